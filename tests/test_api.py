"""`epsbench.evaluate` and its neighbours: what goes in, what comes out, and that it is what a suite gives."""

from __future__ import annotations

import copy
import itertools
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import epsbench
from epsbench.attacks import PGD, AutoAttack, BatchAttack, GradientAttack
from epsbench.harness.errors import InputError
from epsbench.harness.plan.names.registry import name_with_parameters
from epsbench.harness.plan.on_the_spot import parsed
from epsbench.harness.records import write_record
from epsbench.harness.run.given_attacks import attack_entries

N = 80


@pytest.fixture(scope="module")
def x(digits):
    return digits[0][:N]


@pytest.fixture(scope="module")
def y(digits):
    return digits[1][:N]


@pytest.fixture(scope="module")
def result(network, x, y):
    return epsbench.evaluate(network, x, y, attack="pgd:steps=5", eps=["4/255", 0.1])


def test_the_accuracies_are_those_of_a_plain_loop(network, x, y, result):
    """FGSM-like sign steps, written out: same step size, start and ball as the attack `pgd`."""
    right = network(x).argmax(1) == y
    assert result.clean_accuracy == pytest.approx(right.float().mean().item())
    for point, eps in zip(result, (4 / 255, 0.1), strict=True):
        moved = x.clone()
        fooled = ~right
        for _ in range(5):
            moved = moved.detach().requires_grad_(True)
            loss = nn.functional.cross_entropy(network(moved), y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, moved)
            moved = (moved + PGD(steps=5).relative_step_size * eps * gradient.sign()).detach()
            moved = x + (moved - x).clamp(-eps, eps)
            moved = moved.clamp(0, 1)
            fooled |= network(moved).argmax(1) != y
        assert point.robust.tolist() == (~fooled).tolist()
        assert point.robust_accuracy == pytest.approx(1 - fooled.float().mean().item())
        assert point.robust_accuracy.low < point.robust_accuracy < point.robust_accuracy.high


def test_the_images_fool_and_lie_in_the_ball(network, x, y, result):
    for point, eps in zip(result, (4 / 255, 0.1), strict=True):
        images = torch.from_numpy(point.per_image["images"])
        assert (images - x).abs().max() <= eps + 1e-6
        assert 0 <= images.min() <= images.max() <= 1
        predicted = network(images).argmax(1)
        assert (predicted == y).tolist() == point.robust.tolist()
        assert predicted.tolist() == point.per_image["adversarial_class"].tolist()


def test_the_frame_has_a_row_for_each_image(result, x, y, network):
    frame = result.frame()
    assert len(frame) == 2 * N
    last = frame[frame.eps == 0.1]
    assert last.label.tolist() == y.tolist()
    assert last.clean_class.tolist() == network(x).argmax(1).tolist()
    assert (last.fooled_by == "pgd").tolist() == (last.attacked & last.fooled).tolist()
    assert last.distance[last.attacked].max() <= 0.1 + 1e-6
    assert last.distance[~last.attacked].isna().all()
    confusion = result.confusion()
    assert confusion.to_numpy().sum() == N
    assert np.trace(confusion) == last.robust.sum()


def test_it_shows_itself(result):
    text = str(result)
    assert f"of {N} images" in text
    assert "pgd linf ε 4/255" in text
    assert "<td>pgd linf ε 0.1</td>" in result._repr_html_()
    latex = result.to_latex("Mine & yours")
    assert "\\toprule" in latex
    assert "Mine \\& yours" in latex
    assert len(result.table()) == 2


def test_the_model_comes_back_as_it_was(x, y):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10)).train()
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    epsbench.evaluate(model, x, y, attack="fgsm")
    assert model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("form", ["arrays", "dataset", "loader", "function", "suite"])
def test_every_form_gives_the_same(network, x, y, form, tmp_path, monkeypatch):
    arguments = {
        "arrays": (network, x.double().numpy(), y.numpy().astype(np.uint8)),
        "dataset": (network, TensorDataset(x, y)),
        "loader": (network, DataLoader(TensorDataset(x, y), batch_size=17)),
        "function": (lambda images: network(images), x, y),
        "suite": (network, "test.npz"),
    }[form]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EPSBENCH_CACHE", str(tmp_path / "cache"))
    np.savez("test.npz", images=x.numpy(), labels=y.numpy())
    first = epsbench.evaluate(network, x, y, attack="fgsm", eps=0.1)
    other = epsbench.evaluate(*arguments, attack={"name": "fgsm"}, eps=np.float32(0.1))
    assert other[0].robust.tolist() == first[0].robust.tolist()
    assert other[0].void == first[0].void


class Half(GradientAttack):
    """Half a step."""

    def update(self, x_adv, gradient, eps, step):
        return x_adv + 0.5 * eps * self.norm.direction(gradient)


def test_attacks_as_objects(network, x, y):
    by_name = epsbench.evaluate(network, x, y, attack="pgd:steps=3,random_start=true", eps=0.1)
    by_object = epsbench.evaluate(network, x, y, attack=PGD(steps=3, random_start=True), eps=0.1)
    assert by_object.records[0].cell == by_name.records[0].cell
    assert by_object.records[0].id == by_name.records[0].id
    own = epsbench.evaluate(network, x, y, attack=[Half(), "fgsm"], eps=0.1)
    assert [point.attack for point in own] == ["Half", "fgsm"]
    assert own[0].per_image["distance"].tolist() != own[1].per_image["distance"].tolist()
    assert own.robust_accuracy <= min(point.robust_accuracy for point in own)


def test_a_results_folder_is_gone_on_with(network, x, y, tmp_path, monkeypatch):
    first = epsbench.evaluate(network, x, y, attack="fgsm", eps=0.1, out=tmp_path / "out")
    both = epsbench.evaluate(network, x, y, attack="fgsm", eps=[0.1, 0.2], out=tmp_path / "out")
    assert both.records[0].started == first.records[0].started
    assert len(epsbench.records(tmp_path / "out").frame()) == 2
    with torch.no_grad():
        changed = copy.deepcopy(network)
        changed[0].weight.mul_(1.1)
    other = epsbench.evaluate(changed, x, y, attack="fgsm", eps=0.1, out=tmp_path / "out")
    assert other.records[0].id != first.records[0].id
    assert "arrays (" in epsbench.report(tmp_path / "out")
    (tmp_path / "out" / "images" / f"{first.records[0].id}.npz").unlink()
    again = epsbench.evaluate(network, x, y, attack="fgsm", eps=0.1, out=tmp_path / "out")
    assert np.array_equal(again.images, first.images)


def test_models_of_one_class_in_one_folder_have_rows_of_their_own_by_name(network, x, y, tmp_path):
    with torch.no_grad():
        other = copy.deepcopy(network)
        other[0].weight.mul_(1.1)
    models = {"first": network, "second, scaled": other}
    for name, model in models.items():
        result = epsbench.evaluate(model, x, y, attack="fgsm", eps=0.1, out=tmp_path / "named", name=name)
        assert result.records[0].cell["model"]["name"] == name
        assert name in result.to_latex()
        epsbench.evaluate(model, x, y, attack="fgsm", eps=0.1, out=tmp_path / "unnamed")
    text = epsbench.report(tmp_path / "named")
    assert "first" in text
    assert "second, scaled" in text
    assert "left out" not in text
    epsbench.evaluate(other, x, y, attack="fgsm", eps=0.2, out=tmp_path / "unnamed")
    assert "1 record of earlier code or weights left out" in epsbench.report(tmp_path / "unnamed")


@pytest.mark.parametrize("name", ["/tmp/best.pt", "file:best", "a\nb", " "])
def test_a_name_that_cannot_be_one_is_refused(network, x, y, name):
    with pytest.raises(InputError, match=r"^name: .* cannot be a model's name"):
        epsbench.evaluate(network, x, y, attack="fgsm", name=name)


def test_a_named_model_keeps_its_name(x, y):
    with pytest.raises(InputError, match=r"^name: a model that is named keeps its name"):
        epsbench.evaluate("victim.py:load", x, y, attack="fgsm", name="mine")


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
import torch
import epsbench

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc = torch.nn.Linear(64, 10)
    def forward(self, x):
        if "kill" in sys.argv and any(Path("out/cells").glob("*.json")):
            os.kill(os.getpid(), signal.SIGKILL)
        return self.fc(x.flatten(1))

x, y = np.linspace(0, 1, 40 * 64, dtype="float32").reshape(40, 1, 8, 8), np.arange(40) % 10
epsbench.evaluate(Net(), x, y, attack=["fgsm", "pgd:steps=9"], eps=0.1, out="out")
"""


def test_a_process_that_is_killed_in_the_middle_loses_no_finished_attack(tmp_path):
    """The second attack kills it; the same call then measures what is missing, and nothing else."""
    (tmp_path / "mine.py").write_text(KILLED)

    def call(*arguments: str) -> int:
        command = [sys.executable, "mine.py", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode

    assert call("kill") == -signal.SIGKILL
    (kept,) = epsbench.records(tmp_path / "out")
    assert call() == 0
    first, second = epsbench.records(tmp_path / "out")
    assert (first.id, first.started, second.status) == (kept.id, kept.started, "ok")
    assert (first.cell["attack"]["name"], second.cell["attack"]["name"]) == ("fgsm", "pgd")


def test_what_only_a_program_has_cannot_be_loaded_again(network, x, y, tmp_path):
    epsbench.evaluate(network, x, y, attack="fgsm", eps=0.1, out=tmp_path / "out")
    with pytest.raises(InputError, match="an object that a program passed"):
        epsbench.load_model(tmp_path / "out")


def test_an_honest_model_of_this_process_that_withstands_has_no_finding(network, x, y):
    """The audits of models that withstand an attack build them again elsewhere, which this one cannot be."""
    result = epsbench.evaluate(network, x, y, attack="pgd:steps=5", eps=0.01)
    assert result.robust_accuracy > 0.5
    assert not result.findings


def test_a_number_that_means_nothing_is_no_number(x, y):
    random = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Dropout(0.5))
    random.eval = lambda: random  # it stays random under attack
    torch.manual_seed(0)

    def noisy(images):
        return random(images) + torch.randn(len(images), 10)

    result = epsbench.evaluate(noisy, x, y, attack="fgsm")
    assert np.isnan(result.robust_accuracy)
    assert "void" in str(result)
    assert result.findings


def test_adversarial_images_alone(network, x, y):
    images = epsbench.attack(network, x, y, attack="fgsm", eps=0.1)
    assert images.shape == x.shape
    assert 0.05 < (images - x).abs().max() <= 0.1 + 1e-6


@pytest.mark.parametrize(
    "several",
    [{"eps": [0.1, 0.2]}, {"eps": np.array([0.1, 0.2])}, {"attack": ["fgsm", "pgd"]}, {"norm": ["linf", "l2"]}],
)
def test_several_attacks_are_refused_before_one_is_made(x, y, several):
    def never(images: torch.Tensor) -> torch.Tensor:
        raise AssertionError("it was asked")

    with pytest.raises(InputError, match=r"^attack: one attack at one ε is needed, not 2; evaluate"):
        epsbench.attack(never, x, y, **several)


def test_the_frame_of_records_has_every_parameter(network, x, y, tmp_path):
    epsbench.evaluate(network, x, y, attack="pgd:steps=3", eps="4/255", out=tmp_path / "out")
    frame = epsbench.records(tmp_path / "out").frame()
    row = frame.iloc[0]
    assert (row["attack"], row["attack.steps"], row["eps"]) == ("pgd", 3, "4/255")
    assert row["eps_value"] == pytest.approx(4 / 255)


class Raises(nn.Module):
    def forward(self, x):
        raise RuntimeError("no such layer")


class Broken(torch.utils.data.Dataset):
    def __len__(self):
        return 5

    def __getitem__(self, index):
        if index == 2:
            raise OSError("file 2 is gone")
        return torch.zeros(1, 8, 8), 0


class Doubles(nn.Linear):
    pass


def _linear(classes: int = 10) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (lambda x, y: (_linear(), x * 255, y), "x: pixels go from 0 to 255, and must lie in [0, 1]"),
        (lambda x, y: (_linear(), (x * 255).byte(), y), "x: is uint8; images are floats in [0, 1] here: give x / 255"),
        (lambda x, y: (_linear(), x.permute(0, 2, 3, 1), y), "x: has the shape (80, 8, 8, 1), with channels last"),
        (lambda x, y: (lambda images: np.zeros((len(images), 10)), x, y), "compute the logits with torch"),
        (lambda x, y: (_linear(), x, y[:5]), "y: 80 images and 5 labels"),
        (lambda x, y: (_linear(), x, y.float()), "y: labels are float32; give integers"),
        (lambda x, y: (_linear(), x, nn.functional.one_hot(y)), "y: labels have the shape (80, 10), as if one-hot"),
        (lambda x, y: (_linear(5), x, y), "y: has a label 9, and the model gives 5 logits"),
        (lambda x, y: (_linear(), x, None), "y: is missing"),
        (lambda x, y: (_linear(), Broken()), "x, example 2: raises OSError: file 2 is gone"),
        (lambda x, y: (_linear(), DataLoader(Broken(), 2)), "x, batch 1: the loader raises OSError: file 2 is gone"),
        (lambda x, y: (_linear(), DataLoader(TensorDataset(x, y), batch_size=None)), "x, batch 0: is one example, and"),
        (lambda x, y: (_linear(), x * 1.0000005, y), "pixels go from 0 to 1.0000005, and must lie in [0, 1]; set what"),
        (lambda x, y: (_linear().double(), x, y), "its weights are float64, and images are float32; call"),
        (lambda x, y: (Raises(), x, y), "no such layer"),
        (lambda x, y: (7, x, y), "model: is a int; give a torch.nn.Module"),
        (lambda x, y: (_linear().state_dict(), x, y), "model: is a dict of weights; build the network, load them"),
        (lambda x, y: (_linear(), Broken(), y), "y: labels come with x, which is a Broken; leave y out"),
        (lambda x, y: (_linear(), DataLoader(Broken(), 2), y), "y: labels come with x, which is a DataLoader"),
        (lambda x, y: (_linear(), x[0], y), "x: images have the shape|labels"),
    ],
)  # fmt: skip
def test_what_cannot_be_evaluated(x, y, arguments, wanted):
    with pytest.raises(InputError) as caught:
        epsbench.evaluate(*arguments(x, y), attack="fgsm")
    text = "\n".join(caught.value.messages)
    assert any(part in text for part in wanted.split("|")), text


class Exhausted(nn.Module):
    """Raises for good once it is asked for a gradient, as what has run out of something would."""

    out = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        Exhausted.out |= x.requires_grad
        if Exhausted.out:
            raise ValueError("the licence ran out")
        return x.flatten(1)[:, :10]


def test_a_model_that_raises_is_not_advised_on_its_gradient(x, y):
    with pytest.raises(InputError, match="ValueError: the licence ran out") as raised:
        epsbench.evaluate(Exhausted(), x, y, attack="pgd:steps=3")
    assert "differentiated" not in str(raised.value)


class EightImages(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(8, 64)[:, :10]


def test_a_model_for_one_batch_size_hears_of_the_batch_and_not_of_its_signature(x, y):
    with pytest.raises(InputError, match=r"asked about 2 images: forward\(\) must take any number of them") as raised:
        epsbench.evaluate(EightImages(), x[:8], y[:8], attack="fgsm")
    assert "signature" not in str(raised.value)
    with pytest.raises(InputError, match="has 12 classes, with labels from 0 to 11: correct the labels") as raised:
        epsbench.evaluate(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), x, y, attack="fgsm", classes=12)
    assert "signature" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"attack": "pdg"}, "unknown attack 'pdg'; did you mean 'pgd'"),
        ({"attack": "pgd:stps=4"}, "pgd: unknown parameter 'stps'; did you mean 'steps'"),
        ({"attack": PGD}, "attack: PGD is a class; give an object: PGD()"),
        ({"attack": []}, "attack: is empty"),
        ({"eps": "8/0"}, "eps[0]: ε '8/0' divides by zero"),
        ({"eps": 8}, "ε must not be above 1"),
        ({"norm": "linfty"}, "norm[0]: unknown norm 'linfty'; did you mean 'linf'"),
        ({"batch_size": 0}, "batch_size: must be a whole number from 1 on, not 0"),
        ({"batch_size": 2.5}, "batch_size: must be a whole number from 1 on, not 2.5"),
        ({"attack": "pgd:relative_step_size=inf"}, "attack[0].relative_step_size: must be a finite number, not inf"),
        ({"attack": {"name": "pgd", "relative_step_size": np.inf}}, "relative_step_size: must be a finite number"),
        ({"eps": [0.1, float("nan")]}, "eps[1]: must be a finite number, not nan"),
        ({"randomness": 5}, "randomness: is 5; give a table, such as {'samples': 20"),
        ({"out": 5}, "out: is 5; give the path of a results folder"),
        ({"out": ""}, "out: is ''; give the path of a results folder"),
        ({"out": "/proc/results"}, "or out= in Python"),
        ({"device": "gpu"}, "device: 'gpu' is no device; give cpu, cuda or cuda:0"),
        ({"class_names": "cat"}, "class_names: is a str; give a list of names"),
        ({"compile": "yes"}, "compile: must be 'auto', 'on' or 'off', not 'yes'"),
    ],
)
def test_options_that_cannot_be(network, x, y, options, wanted):
    with pytest.raises(InputError) as caught:
        epsbench.evaluate(network, x, y, **{"attack": "fgsm"} | options)
    assert wanted in "\n".join(caught.value.messages)


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("pgd", "pgd"),
        ("pgd:steps=40,restarts=5", {"name": "pgd", "steps": 40, "restarts": 5}),
        ("mine.py:Attack", "mine.py:Attack"),
        ("mine.py:A:share=0.5,fast=true,mode=a", {"name": "mine.py:A", "share": 0.5, "fast": True, "mode": "a"}),
        ('ensemble:parts=["fgsm", "pgd"]', {"name": "ensemble", "parts": ["fgsm", "pgd"]}),
        ("folder:path=my photos,crop=8", {"name": "folder", "path": "my photos", "crop": 8}),
        ("pgd:steps=3,loss=mine.py:Loss", {"name": "pgd", "steps": 3, "loss": "mine.py:Loss"}),
        ('pgd:loss={name="mine.py:Loss",scale=2}', {"name": "pgd", "loss": {"name": "mine.py:Loss", "scale": 2}}),
        ("mine.py:A:loss=b/c.py:L,path=x:y=z", {"name": "mine.py:A", "loss": "b/c.py:L", "path": "x:y=z"}),
    ],
)  # fmt: skip
def test_parameters_in_one_word(text, entry):
    assert parsed(text) == entry


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("pgd:steps=3,steps=4", "'pgd:steps=3,steps=4': steps is given twice"),
        ("pgd:name=fgsm", "'pgd:name=fgsm': name is what stands before the colon"),
        ("pgd:steps=", "'steps=' is no parameter; write name:key=value,key=value"),
        ("ensemble:parts=[fgsm, pgd]", "parts: [fgsm, pgd] is no list or table; texts in it need quotes"),
    ],
)
def test_parameters_that_cannot_be_in_one_word(text, wanted):
    with pytest.raises(InputError) as caught:
        parsed(text)
    assert wanted in str(caught.value)


def test_a_loss_of_a_file_in_one_word(network, x, y, tmp_path, monkeypatch):
    """A colon in a value is no end of the name."""
    (tmp_path / "mine.py").write_text(
        "import torch\nfrom epsbench.attacks.losses import CrossEntropy\n\nclass Backwards(CrossEntropy):\n"
        "    def __call__(self, *arguments, **more):\n        return -super().__call__(*arguments, **more)\n"
    )
    monkeypatch.chdir(tmp_path)
    ours, theirs = (
        epsbench.evaluate(network, x, y, attack=attack, eps=0.2).robust_accuracy
        for attack in ("pgd:steps=3,loss=mine.py:Backwards", "pgd:steps=3")
    )
    assert ours > theirs + 0.2


def test_an_ensemble_says_which_part_fooled_which_image(network, x, y):
    result = epsbench.evaluate(network, x, y, attack='ensemble:parts=["fgsm", "pgd"]', eps="16/255")
    point = result[0]
    fooled = point.right & ~point.robust
    names = {part.name for part in point.record.parts}
    assert names == {"fgsm", "pgd"}
    assert set(point.fooled_by()[fooled]) <= names
    assert set(point.fooled_by()[~fooled]) <= {""}
    assert "\\pm" in result.to_latex()


@dataclass(frozen=True, kw_only=True)
class Steps(GradientAttack):
    size: float = 0.5

    def update(self, x_adv, gradient, eps, step):
        return x_adv + self.size * eps * gradient.sign()


class Drawn(GradientAttack):
    def update(self, x_adv, gradient, eps, step):
        return x_adv + eps * torch.rand_like(gradient) * gradient.sign()


class DrawnInALoop(BatchAttack):
    def perturb(self, victim, x, y, eps, noise):
        return (x + eps * (2 * torch.from_numpy(np.random.random_sample(x.shape)).float() - 1)).clamp(0, 1)


class Keyed(GradientAttack):
    def start(self, rows):
        return rows.x + rows.eps * (2 * rows.noise.uniform(*rows.x.shape[1:]) - 1), {}

    def update(self, x_adv, gradient, eps, step):
        return x_adv + eps * gradient.sign()


@pytest.mark.parametrize(("kind", "warns"), [(Drawn, True), (DrawnInALoop, True), (Keyed, False)])
def test_an_attack_that_draws_from_a_global_generator_gets_a_finding(network, x, y, kind, warns):
    for attack in (kind(), {"name": "ensemble", "parts": ["fgsm", kind()]}):
        findings = epsbench.evaluate(network, x, y, attack=attack, eps=0.02).findings
        assert [each.code for each in findings if each.code == "unkeyed-noise"] == ["unkeyed-noise"] * warns


def test_the_parts_in_a_table_may_be_objects(network, x, y):
    by_table = epsbench.evaluate(
        network, x, y, attack={"name": "ensemble", "parts": ["fgsm", Steps(size=1.0)]}, eps=0.1
    )
    (entry,), objects, _ = attack_entries({"name": "ensemble", "parts": ["fgsm", Steps(size=0.25)]})
    assert [part.name for part in by_table[0].record.parts] == ["fgsm", "steps(size=1.0)"]
    assert entry["parts"][1]["size"] == 0.25
    assert objects == {("attack", "Steps"): Steps}


def test_two_classes_of_one_name_are_not_taken_for_each_other(network, x, y):
    other = dataclass(frozen=True, kw_only=True)(type("Steps", (Steps,), {}))
    with pytest.raises(InputError, match="attack: two classes are called Steps; give one of them another name"):
        epsbench.evaluate(network, x, y, attack=[Steps(), other()], eps=0.1)


def test_autoattack_as_an_object_is_the_one_of_a_suite():
    (entry,), objects, norms = attack_entries(AutoAttack())
    assert (entry["name"], objects, norms) == ("autoattack", {}, ["linf"])
    base = Path()
    assert name_with_parameters("attack", entry, base) == name_with_parameters("attack", "autoattack", base)


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"batch_size": True}, {"compile": "yes"}])
def test_options_of_a_run_are_checked_as_those_of_evaluate_are(wrong):
    with pytest.raises(InputError, match=f"^{next(iter(wrong))}: must be"):
        epsbench.Options(**wrong)


def test_models_that_differ_in_a_parameter_are_told_apart(tmp_path):
    path = tmp_path / "two.toml"
    path.write_text(
        '[robustness]\ndata = "digits"\ntraining = { epochs = 1 }\n[robustness.matrix]\nattack = "none"\neps = 0\n'
        'model = ["smallcnn", { name = "smallcnn", width = 8 }]\n',
        encoding="utf-8",
    )
    epsbench.run_suite(epsbench.load_suite(str(path), 60), tmp_path / "out", epsbench.Options(quiet=True, device="cpu"))
    with pytest.raises(InputError, match=r"model=\{'name': 'smallcnn', 'width': 16\}.*'width': 8\}") as raised:
        epsbench.load_model(tmp_path / "out")
    assert "hidden" not in str(raised.value)  # a parameter in which they are alike
    assert epsbench.load_model(tmp_path / "out", model={"name": "smallcnn", "width": 8}).layers[0].out_channels == 8


def test_models_with_other_starts_are_told_apart_and_of_two_versions_the_last_is_loaded(tmp_path):
    path, out = tmp_path / "tuned.toml", tmp_path / "out"
    path.write_text(
        '[robustness]\ndata = "digits"\ntraining = { epochs = 1 }\n[robustness.matrix]\nattack = "none"\neps = 0\n'
        'model = "smallcnn"\nstart = ["scratch", { training = { epochs = 2 } }, { training = { epochs = 3 } }]\n',
        encoding="utf-8",
    )
    epsbench.run_suite(epsbench.load_suite(str(path), 60), out, epsbench.Options(quiet=True, device="cpu"))
    expected = r"start='scratch'; .*start=\{'training': \{'epochs': 2\}\}; .*start=\{'training': \{'epochs': 3\}\}$"
    with pytest.raises(InputError, match=expected):
        epsbench.load_model(out)
    wheres = [{"start": "scratch"}, *({"start": {"training": {"epochs": n}}} for n in (2, 3))]
    weights = [epsbench.load_model(out, **where).layers[0].weight for where in wheres]
    assert not any(a.equal(b) for a, b in itertools.combinations(weights, 2))
    with pytest.raises(InputError, match="no model matches"):
        epsbench.load_model(out, start={"training": {"epochs": 4}})

    (scratch,) = [record for record in epsbench.records(out) if "start" not in record.cell]
    old = {"id": "0" * 16, "code": scratch.code | {"model": "old"}, "finished": "2020-01-01T00:00:00.000+00:00"}
    write_record(out, scratch.model_copy(update=old))
    assert epsbench.load_model(out, start="scratch").layers[0].weight.equal(weights[0])


def test_a_trained_model_is_loaded(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(
        '[robustness]\ndata = "digits"\ntraining = { epochs = 1 }\n[robustness.matrix]\nmodel = "smallcnn"\n'
        'attack = "fgsm"\neps = 0.1\nseed = [0, 1]\n'
        '[generation]\ndata = "digits"\ntraining = { epochs = 1 }\n[generation.evaluation]\nimportance_samples = 0\n'
        "prior_samples = 0\ngenerated = 0\ngradient_samples = 0\n[generation.matrix]\nz_dim = 4\n"
        "training = [{}, { average = 0.5 }]\n",
        encoding="utf-8",
    )
    options = epsbench.Options(quiet=True, device="cpu")
    epsbench.run_suite(epsbench.load_suite(str(path), 60), tmp_path / "out", options)
    with pytest.raises(InputError, match=r"several models match; choose one by its values: .*seed=0.*seed=1"):
        epsbench.load_model(tmp_path / "out", model="smallcnn")
    model = epsbench.load_model(tmp_path / "out", model="smallcnn", seed=1)
    assert not model.training
    result = epsbench.evaluate(model, "digits", attack="fgsm", eps=0.1, limit=60, seed=1)
    (record,) = [r for r in epsbench.records(tmp_path / "out") if r.cell.get("attack") and r.cell["seed"] == 1]
    assert result[0].record.verdicts == record.verdicts
    with pytest.raises(InputError, match=r"several models.*training=\{'average': 0.0\}.*training=\{'average': 0.5\}"):
        epsbench.load_model(tmp_path / "out", z_dim=4)
    vae = epsbench.load_model(tmp_path / "out", z_dim=4, training={"average": 0.0, "encoder_batches": "none"})
    assert vae.sample(torch.randn(3, 4)).shape == (3, 1, 8, 8)
    with pytest.raises(InputError, match="no model matches"):
        epsbench.load_model(tmp_path / "out", z_dim=5)
    with pytest.raises(InputError, match="'zdim' is no key of a cell; did you mean 'z_dim'"):
        epsbench.load_model(tmp_path / "out", zdim=5)


def test_import_is_fast_and_brings_no_torch():
    script = (
        "import sys, time; start = time.perf_counter(); import epsbench; taken = time.perf_counter() - start; "
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules; assert taken < 0.1, taken"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_one_logit_and_a_class_in_place_of_a_model_say_what_to_do():
    x, y = torch.rand(6, 1, 8, 8), torch.arange(6) % 2
    single = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    with pytest.raises(InputError, match=r"gives one logit an image, .*two lines: `class Logits.*functional.pad"):
        epsbench.evaluate(single, x, y, attack="fgsm")
    with pytest.raises(InputError, match=r"model: Flatten is a class; give an object: Flatten\(\)"):
        epsbench.evaluate(nn.Flatten, x, y, attack="fgsm")


class Brightness(nn.Module):
    """Class 1 where the sum of 16 numbers is above 12; under L2 an even image of sum s is (12 − s) / 4 away from it."""

    def forward(self, x):
        total = x.flatten(1).sum(1)
        return torch.stack([12 - total, total - 12], 1)


def test_smallest_distances_do_not_end_at_epsilon():
    x = torch.tensor([0.25, 0.5, 0.7, 0.25]).view(4, 1, 1, 1).expand(4, 1, 4, 4).contiguous()
    y = torch.tensor([0, 0, 0, 1])  # the last is wrong without an attack
    result = epsbench.evaluate(Brightness(), x, y, attack="ddn", norm="l2", eps=1)
    exact = [2.0, 1.0, 0.2, 0.0]
    np.testing.assert_allclose(result[0].distances, exact, rtol=1e-4)
    frame = result.frame()
    np.testing.assert_allclose(frame.smallest_distance, exact, rtol=1e-4)
    assert frame.distance.isna().tolist() == [True, True, False, True]  # 1.00001 is beyond ε, too
    assert np.array_equal(result.images[0], x[0].numpy())


def test_the_smallest_distance_is_infinite_where_no_image_fools_and_unknown_within_a_ball(network, x, y):
    class Stubborn(Brightness):
        def forward(self, x):
            return super().forward(x) + torch.tensor([100.0, 0.0])

    result = epsbench.evaluate(Stubborn(), x[:3], y[:3] * 0, attack="fab-t:goal=smallest", norm="l1", eps=8)
    assert np.isinf(result[0].distances).all()
    assert result.robust_accuracy == 1
    within = epsbench.evaluate(network, x, y, attack="fgsm", eps=0.1)[0]
    assert within.distances is None
    assert "smallest_distance" not in within.frame()


def test_points_and_records_show_themselves_in_lines_that_a_reader_takes_in(network, x, y, tmp_path):
    result = epsbench.evaluate(network, x, y, attack=["fgsm", "pgd:steps=3"], eps=[0.1, 0.2], out=tmp_path / "out")
    assert str(result[0]) == f"robust accuracy {result[0].robust_accuracy} under fgsm linf ε 0.1"
    assert repr(result[0]) == f"<{result[0]}>"
    records = epsbench.records(tmp_path / "out")
    shown = repr(records)
    assert all(record.id in shown for record in records)
    assert {"attack.steps", "robust_accuracy"} <= set(shown.splitlines()[0].split())
    assert "training.epochs" not in shown  # it is the same in all of them
    assert "[4 rows x" in shown
    assert records[0].id in records._repr_html_()
    assert max(map(len, shown.splitlines())) < 200
    assert repr(type(records)([])) == "no records"


@pytest.mark.parametrize(
    "form", [lambda z: z[:, :1] - z[:, 1:], lambda z: z[:, 0] - z[:, 1], lambda z: (z, z), lambda z: {"logits": z}]
)
def test_the_line_that_mends_a_plain_function_works(form):
    x, y = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1] * 4)
    weight = torch.linspace(-1, 1, 32).reshape(16, 2)
    scope = {"torch": torch, "model": lambda x: form(x.flatten(1) @ weight)}
    with pytest.raises(epsbench.InputError, match="mend it in a line") as raised:
        epsbench.evaluate(scope["model"], x, y, attack="fgsm", eps=0.01)
    exec(str(raised.value).split("`")[1], scope)
    assert epsbench.evaluate(scope["model"], x, y, attack="fgsm", eps=0.01).clean_accuracy.n == 8
