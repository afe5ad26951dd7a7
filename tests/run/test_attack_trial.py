"""A user's own attacks and defenses are tried before anything is trained; all faults are named at once."""

from __future__ import annotations

import re

import pytest
from small import QUIET

from epsbench.harness.errors import InputError
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.records import read_records
from epsbench.harness.run import attack_trial
from epsbench.harness.run.runner import run_suite

ATTACKS = """
from dataclasses import dataclass
import time
import torch
from torch.nn.functional import cross_entropy
from epsbench.attacks.base import Attack, BatchAttack, GradientAttack
from epsbench.attacks.losses import Loss

def returns(make):
    @dataclass(frozen=True, kw_only=True)
    class Own(BatchAttack):
        def perturb(self, victim, x, y, eps, noise):
            return make(victim, x, y, eps)
    return Own

def steps(make):
    @dataclass(frozen=True, kw_only=True)
    class Own(Attack):
        steps: int = 3
        def step(self, rows, answer, state):
            return make(rows, answer, state)
    return Own

Tuple = returns(lambda victim, x, y, eps: (x, x))
List = returns(lambda victim, x, y, eps: list(x))
Array = returns(lambda victim, x, y, eps: x.numpy())
First = returns(lambda victim, x, y, eps: x[:1])
Bytes = returns(lambda victim, x, y, eps: 255 * (x + eps).clamp(0, 1))
Integers = returns(lambda victim, x, y, eps: (255 * x).byte())
Writes = returns(lambda victim, x, y, eps: x.add_(eps))
Squeezes = returns(lambda victim, x, y, eps: x * victim(x).squeeze().amax(1).view(-1, 1, 1, 1))
Double = returns(lambda victim, x, y, eps: (x + eps).double())
WithGraph = returns(lambda victim, x, y, eps: x + eps * torch.ones(1, requires_grad=True))
NotANumber = returns(lambda victim, x, y, eps: x * float("nan"))

def first_image(rows, answer, state):
    return (rows.x + rows.eps)[:1], state

Points = steps(lambda rows, answer, state: rows.x)
OneForAll = steps(first_image)
State = steps(lambda rows, answer, state: (rows.x, {"count": 1}))
Rows = steps(lambda rows, answer, state: (rows.x, {"mean": answer.logits.mean(0)}))
Later = steps(lambda rows, answer, state: (rows.x if rows.step.max() < 2 else rows.x.tolist(), state))
DoubleSteps = steps(lambda rows, answer, state: ((rows.x + rows.eps).double(), state))

@dataclass(frozen=True, kw_only=True)
class Typo(GradientAttack):
    def update(self, x_adv, gradient, eps, step):
        return x_adv + eps * gradient.signs()

@dataclass(frozen=True, kw_only=True)
class Endless(BatchAttack):
    def perturb(self, victim, x, y, eps, noise):
        for _ in range(40):
            time.sleep(0.005)
            victim(x)
        return None

class MyLoss(Loss):
    def __call__(self, logits, y):
        return logits.gather(1, y).sum()
"""
SUITE = """
[robustness]
data = "digits"
limit = 40
precision = "PRECISION"
training = { epochs = 1, batch_size = 20 }
[robustness.matrix]
model = "smallcnn"
defense = "none"
attack = "noise"
eps = 0.1
"""
PIXELS = r"perturb must return a tensor of shape \(N, C, H, W\)"


@pytest.fixture
def outcome(tmp_path):
    """The messages of a run that is refused, or its exit code."""

    def of(attack: str, model: str = '"smallcnn"', defense: str = '"none"', precision: str = "float32"):
        text = SUITE.replace('"noise"', attack).replace('"smallcnn"', model).replace('"none"', defense)
        text = text.replace("PRECISION", precision)
        (tmp_path / "s.toml").write_text(text, encoding="utf-8")
        try:
            return run_suite(load_suite(str(tmp_path / "s.toml")), tmp_path / "r", QUIET)
        except InputError as error:
            assert read_records(tmp_path / "r") == []
            assert not (tmp_path / "r" / "weights").exists()
            return error.messages

    return of


@pytest.fixture
def attacks(tmp_path):
    (tmp_path / "att.py").write_text(ATTACKS, encoding="utf-8")


@pytest.mark.usefixtures("attacks")
def test_what_an_attack_returns_is_refused_before_training_all_at_once(outcome):
    expected = {
        "Tuple": f"for 2 images, attack Own returned a tuple of 2; {PIXELS}",
        "List": f"for 2 images, attack Own returned a list of 2; {PIXELS}",
        "Array": f"for 2 images, attack Own returned a ndarray; {PIXELS}",
        "First": rf"for 2 images, attack Own returned a tensor of shape \(1, 1, 8, 8\); {PIXELS}",
        "Bytes": r"for 2 images, 2 of 2 images that it returns have values far outside \[0, 1\]; return pixels",
        "Integers": "for 2 images, attack Own returned torch.uint8 images",
        "Writes": "for 2 images, the attack changes its arguments in place",
        "Squeezes": r"for one image, it raises IndexError: .*\(att.py, line \d+\)",
        "Points": r"attack Own returned a Tensor; start and step must return \(points, state\)",
        "OneForAll": r"attack Own returned a tensor of shape \(1, 1, 8, 8\); its next points must be",
        "State": "attack Own has an int as state 'count'; it must be a tensor with 2 rows",
        "Rows": r"attack Own has a tensor of shape \(10,\) as state 'mean'",
        "Later": "attack Own returned a list of 2; its next points must be",
        "Typo": r"for 2 images, it raises AttributeError: .*'signs'.*\(att.py, line \d+\)",
    }
    messages = outcome(str([f"att.py:{name}" for name in expected]))
    assert len(messages) == len(expected)
    for name, message in expected.items():
        (own,) = (each for each in messages if f"'att.py:{name}'" in each)
        assert own.startswith(f"attack 'att.py:{name}' cannot be used on digits: ")
        assert re.search(message, own), own


@pytest.mark.usefixtures("attacks")
@pytest.mark.parametrize("name", ["Double", "WithGraph", "DoubleSteps"])
def test_images_of_another_floating_type_or_with_a_graph_are_taken(outcome, name):
    assert outcome(f'"att.py:{name}"') == 0


@pytest.mark.usefixtures("attacks")
def test_members_of_an_ensemble_and_losses_are_tried_too(outcome):
    parts = '{ name = "ensemble", parts = ["fgsm", "att.py:List"] }'
    (message,) = outcome(parts)
    assert "'ensemble' cannot be used on digits: for 2 images, attack Own returned a list of 2" in message
    (message,) = outcome('{ name = "pgd", steps = 2, loss = "att.py:MyLoss" }')
    assert re.search(
        r"'pgd' cannot be used on digits: for 2 images, it raises RuntimeError: .*\(att.py, line \d+\)", message
    )


@pytest.mark.usefixtures("attacks")
def test_a_trial_ends_after_its_time(outcome, monkeypatch):
    monkeypatch.setattr(attack_trial, "SECONDS", 0.05)
    assert outcome('"att.py:Endless"') == 1  # its cell is failed where it returns


@pytest.mark.usefixtures("attacks")
def test_not_a_number_may_be_the_untrained_networks_doing_and_is_left_to_the_audits(outcome, tmp_path):
    assert outcome('"att.py:NotANumber"') == 1
    (record,) = read_records(tmp_path / "r")
    assert [finding.code for finding in record.findings] == ["not-finite"]


DEFENSES = """
from dataclasses import dataclass
import torch
from epsbench.attacks.pgd import PGD
from epsbench.models.defenses import Defense

def loss(make):
    @dataclass(frozen=True)
    class Own(Defense):
        def loss(self, trainee, x, y):
            return make(trainee, x, y)
    return Own

Number = loss(lambda trainee, x, y: trainee.loss(x, y).item())
Rows = loss(lambda trainee, x, y: torch.nn.functional.cross_entropy(trainee.logits(x, y), y, reduction="none"))
Detached = loss(lambda trainee, x, y: trainee.loss(x, y).detach())
Apart = loss(lambda trainee, x, y: torch.zeros((), requires_grad=True) + trainee.predict(x).sum())
Raises = loss(lambda trainee, x, y: trainee.lose(x, y))
Nothing = loss(lambda trainee, x, y: None)
KEPT = []

def kept(trainee, x, y):
    KEPT.append(trainee.loss(x, y))
    return sum(KEPT)

Keeps = loss(kept)
Honest = loss(lambda trainee, x, y: trainee.loss(trainee.attack(PGD(steps=2), x, y, 0.1), y))
"""


def test_what_a_defense_returns_is_refused_before_training_all_at_once(outcome, tmp_path):
    (tmp_path / "defense.py").write_text(DEFENSES, encoding="utf-8")
    wanted = "loss must return one floating-point number with a gradient"
    expected = {
        "Number": f"it returns a float; {wanted}",
        "Rows": r"it returns a tensor of shape \(20,\); .*such as the mean",
        "Detached": f"it returns a loss without a gradient; {wanted}.*leave out detach",
        "Apart": "does not depend on the model's weights",
        "Raises": r"for 20 images it raises AttributeError: .*\(defense.py, line 18\)",
        "Nothing": f"it returns nothing; {wanted}",
        "Keeps": r"it raises RuntimeError: .*(backward through the graph a second time|inplace)",
    }
    messages = outcome('"noise"', defense=str([f"defense.py:{name}" for name in expected]))
    assert len(messages) == len(expected)
    for name, message in expected.items():
        (own,) = (each for each in messages if f"'defense.py:{name}'" in each)
        assert own.startswith(f"defense 'defense.py:{name}' cannot train model 'smallcnn' on digits: ")
        assert re.search(message, own), own
    assert outcome('"noise"', defense='"defense.py:Honest"') == 0


NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.first, self.last = nn.Linear(64, 32), nn.Linear(32, classes)

    def forward(self, x):
        hidden = self.first(x.flatten(1))
        if self.training:
            assert hidden.dtype == x.dtype, f"no {hidden.dtype}"
        return self.last(hidden)
"""


@pytest.mark.usefixtures("units_for_low_precision")
def test_a_model_is_tried_in_the_precision_that_it_is_trained_in(outcome, tmp_path):
    (tmp_path / "net.py").write_text(NET, encoding="utf-8")
    (message,) = outcome('"noise"', model='"net.py:Net"', precision="bf16")
    assert re.search(
        r"in train mode it raises for 20 images in bf16: AssertionError: no torch.bfloat16 \(net.py, line 12", message
    )
    assert outcome('"noise"', model='"net.py:Net"') == 0
