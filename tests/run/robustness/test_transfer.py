"""Images made on one model and judged by another, against a loop written by hand."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from small import WITHIN
from torch.nn import functional as F

from epsbench.attacks.apgd_t import APGDT
from epsbench.attacks.base import Attack
from epsbench.attacks.ensemble import Ensemble
from epsbench.attacks.norms import NORMS
from epsbench.attacks.pgd import PGD
from epsbench.harness.finding_codes import OWN_GRADIENTS
from epsbench.harness.options import Options
from epsbench.harness.plan.cell import RobustnessCell
from epsbench.harness.plan.suite import Suite, load_suite
from epsbench.harness.records import Record, read_records
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.judge import Judge, frozen_copy
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.data.load import load_data
from epsbench.harness.run.machine.lock import turn
from epsbench.harness.run.runner import run_suite
from epsbench.harness.run.training import trained as classifiers
from epsbench.harness.run.training.trained import build
from epsbench.harness.run.training.weights import load_weights
from epsbench.harness.run.verify import SAME, verify

CPU = torch.device("cpu")
STEPS, LIMIT = 5, 400
HALVES = f"""
[robustness]
data = "digits"
training = {{ epochs = 8, batch_size = 16, learning_rate = 1e-2 }}
[robustness.matrix]
model = {{ name = "smallcnn", width = 8, hidden = 16 }}
subset = ["first-half", "second-half"]
source = ["self", {{ subset = "first-half" }}, {{ subset = "second-half" }}]
attack = ["fgsm", {{ name = "pgd", steps = {STEPS} }}]
eps = [0.1, 0.2]
"""
# A network whose input gradients point downhill: what it trains to is the same, and attacks along them help it.
REVERSED = """
import torch
from torch import nn

class Back(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return -gradient

class Reversed(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.line = nn.Linear(64, classes)

    def forward(self, x):
        return self.line(Back.apply(x).flatten(1))

def backwards(shape, classes):
    return Reversed(classes)
"""


def suite_of(folder: Path, text: str) -> Suite:
    path = folder / "transfer.toml"
    path.write_text(text, encoding="utf-8")
    return load_suite(str(path), limit=LIMIT)


def run(suite: Suite, results: Path, **options: object) -> dict[str, Record]:
    assert run_suite(suite, results, Options(quiet=True, device="cpu", **options)) == 0
    return {record.id: record for record in read_records(results)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Suite, Path, dict[str, Record], int]:
    """A suite, its results and records, and how many trainings they took."""
    folder = tmp_path_factory.mktemp("transfer")
    suite, trainings = suite_of(folder, HALVES), []
    train = classifiers.train_classifier
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifiers, "train_classifier", lambda *a, **k: trainings.append(a) or train(*a, **k))
        records = run(suite, folder / "results")
    return suite, folder / "results", records, len(trainings)


def network_of(cell: RobustnessCell, results: Path) -> torch.nn.Module:
    data = load_data("digits", None, CPU, LIMIT)
    context = type("Here", (), {"base": results, "device": CPU})()
    network = build(cell, data, context)
    assert load_weights(results / "weights", cell.weights_key, network) is not None
    return network.eval()


def signed_steps(network, x, y, eps: float, steps: int) -> torch.Tensor:
    """The iterate after the last step: FGSM of size ε, or PGD with steps of ε / 4."""
    size = eps if steps == 1 else eps / 4
    at = x.clone()
    for _ in range(steps):
        at.requires_grad_(True)
        (gradient,) = torch.autograd.grad(F.cross_entropy(network(at), y, reduction="sum"), at)
        at = (x + (at.detach() + size * gradient.sign() - x).clamp(-eps, eps)).clamp(0, 1)
    return at


def test_verdicts_are_those_of_a_loop_by_hand(finished):
    suite, results, records, _ = finished
    test = load_data("digits", None, CPU, LIMIT).test
    x, y = test.pixels(), test.labels
    transferred = [cell for cell in suite.cells if cell.source]
    assert len(transferred) == 8
    spared = 0
    for cell in transferred:
        victim, source = network_of(cell, results), network_of(cell.source, results)
        attacked = signed_steps(source, x, y, float(cell.eps), 1 if cell.attack.name == "fgsm" else STEPS)
        with torch.no_grad():
            clean = (victim(x).argmax(1) == y).numpy()
            stands = (victim(attacked).argmax(1) == y).numpy()
            falls_at_home = (source(attacked).argmax(1) != y).numpy()
        judged, robust = records[cell.id].verdicts.unpack()
        np.testing.assert_array_equal(judged, clean)
        assert (robust != clean & stands).sum() <= 1  # a gradient that rounds to the other sign may tip an image
        spared += (robust & falls_at_home).sum()
    assert spared > 50  # so many images fool their source alone


def test_every_image_takes_every_step_and_is_judged_once(finished):
    suite, _, records, _ = finished
    for cell in (cell for cell in suite.cells if cell.source):
        cost, attacked = records[cell.id].cost, records[cell.id].cost["attacked"]
        assert cost["gradients_per_image"] == (1 if cell.attack.name == "fgsm" else STEPS)
        assert cost["judge_forwards"] == attacked


def test_the_record_names_its_source_and_keeps_to_its_own_training(finished):
    suite, _, records, _ = finished
    own = {cell.subset: records[cell.id] for cell in suite.cells if not cell.source}
    for cell in (cell for cell in suite.cells if cell.source):
        record, source = records[cell.id], own[cell.source.subset]
        assert record.training["weights_sha256"] == own[cell.subset].training["weights_sha256"]
        assert record.evaluation == {"source_weights_sha256": source.training["weights_sha256"]}
        assert source.training["weights_sha256"] != record.training["weights_sha256"]
        assert record.metrics["clean_accuracy"] == own[cell.subset].metrics["clean_accuracy"]


def test_no_model_is_trained_twice_and_no_lock_stays(finished):
    suite, results, _, trainings = finished
    assert trainings == 2
    keys = {cell.weights_key for cell in suite.cells}
    assert {path.name for path in (results / "weights").iterdir()} == {f"{key}.safetensors" for key in keys}


def test_a_half_is_trained_on_its_own_images(finished):
    data = load_data("digits", None, CPU, LIMIT)
    first, second = data.trained_on("first-half"), data.trained_on("second-half")
    assert torch.equal(torch.cat([first.train.pixels(), second.train.pixels()]), data.train.pixels())
    assert torch.equal(torch.cat([first.train.labels, second.train.labels]), data.train.labels)
    assert first.test is data.test
    assert first.validation is data.validation
    _, _, records, _ = finished
    assert len({record.training["weights_sha256"] for record in records.values()}) == 2


def test_verdicts_do_not_depend_on_the_batch_size_nor_on_who_trained_the_source(finished, tmp_path):
    """A job of its own finds no weights of its source and trains them."""
    suite, _, records, _ = finished
    transferred = [cell for cell in suite.cells if cell.source and cell.subset == "first-half"]
    alone = Suite(suite.name, suite.path, "", tuple(transferred), ())
    for identity, record in run(alone, tmp_path / "alone", batch_size=7).items():
        assert record.verdicts == records[identity].verdicts
        assert record.evaluation == records[identity].evaluation


def test_measuring_again_gives_the_same(finished):
    suite, results, _, _ = finished
    lines: list[str] = []
    transfer = Suite(suite.name, suite.path, "", tuple(cell for cell in suite.cells if cell.source), ())
    assert verify(transfer, results, Options(quiet=True, device="cpu"), 2, lines.append) == SAME
    assert lines[-1] == "2 of 2 cells are the same (8 are recorded)"


def test_no_audit_of_white_boxes_is_raised_by_another_models_gradients(tmp_path):
    (tmp_path / "backwards.py").write_text(REVERSED, encoding="utf-8")
    suite = suite_of(
        tmp_path,
        """
        [robustness]
        data = "digits"
        training = { epochs = 8, batch_size = 32 }
        [robustness.matrix]
        model = [{ name = "smallcnn", width = 8, hidden = 16 }, "backwards.py:backwards"]
        source = ["self", { model = "backwards.py:backwards" }]
        attack = ["noise", "fgsm", { name = "pgd", steps = 3 }]
        eps = [0.3]
        """,
    )
    # Attacks without gradients fool the reversed model, which voids its cells.
    assert run_suite(suite, tmp_path / "results", Options(quiet=True, device="cpu")) == 1
    records = {record.id: record for record in read_records(tmp_path / "results")}
    codes = {cell.id: {finding.code for finding in records[cell.id].findings} for cell in suite.cells}
    transferred = [cell.id for cell in suite.cells if cell.source]
    assert len(transferred) == 3
    at_home = set().union(*(codes[c.id] for c in suite.cells if not c.source and c.model.name != "smallcnn"))
    assert at_home >= {"no-ascent", "noise-beats-gradient"}
    relative = {"no-ascent", "unconverged", "noise-beats-gradient", "one-step-beats-many", "eps-not-monotone"}
    assert not set().union(*(codes[identity] for identity in transferred)) & (relative | OWN_GRADIENTS)
    of_victim = set().union(*(codes[c.id] for c in suite.cells if not c.source and c.model.name == "smallcnn"))
    # Nor do the images of others make the victim's own attacks look weak.
    assert not of_victim & (relative - {"unconverged"})


class Wobbling(Attack):
    """Ends where it began to fool, or one step after: what fools on the way does not count on another model."""

    def perturb(self, victim, x, y, eps, noise):
        gradient, _ = victim.gradient(x, y)
        victim(x + eps * gradient.sign())
        return x - eps * gradient.sign()


def test_an_attack_with_a_loop_of_its_own_is_made_on_the_source(network, digits):
    """The attack lowers the loss of its source. No finding about lost iterates or a missing rise in loss may follow."""
    torch.manual_seed(1)
    source = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    x, y = digits[0][:60], digits[1][:60]
    victim = Victim(frozen_copy(source, CPU), CPU, "float32", "plain")
    targets = Targets(lambda rows: x[rows], y, torch.arange(60))
    engine = Engine(victim, Judge(network, CPU), targets, 16, white_box=False)
    eps = Fraction(1, 5)
    (outcome,) = engine.run(Wobbling(norm=NORMS["linf"]), [eps], seed=0)
    at = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(F.cross_entropy(source(at), y, reduction="sum"), at)
    with torch.no_grad():
        fooled = network((x - float(eps) * gradient.sign()).clamp(0, 1)).argmax(1) != y
    np.testing.assert_array_equal(outcome.fooled, fooled.numpy())
    assert outcome.watched == outcome.lost == outcome.short == 0


def test_targets_are_ranked_by_the_source(network, digits):
    """An attacker by another model knows that model's logits alone: its first target is that model's second class."""
    torch.manual_seed(1)
    source = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    x, y = digits[0][:60], digits[1][:60]
    victim = Victim(frozen_copy(source, CPU), CPU, "float32", "plain")
    with torch.no_grad():
        logits, of_source = network(x), source(x)
    targets = Targets(lambda rows: x[rows], y, torch.arange(60), logits)
    aims: list[torch.Tensor] = []

    @dataclass(frozen=True, kw_only=True)
    class Watched(APGDT):
        def aim(self, rows):
            aims.append(super().aim(rows))
            return aims[-1]

    for white_box, ranks in ((False, of_source), (True, logits)):
        engine = Engine(victim, Judge(network, CPU), targets, 60, white_box=white_box)
        for attack in (Watched(steps=1), Ensemble(parts=(Watched(steps=1, targets=1),))):
            aims.clear()
            (outcome,) = engine.run(attack, [Fraction(1, 5)], seed=0, early_stop=False)
            wrong = ranks.scatter(1, y[:, None], float("-inf"))
            assert torch.equal(aims[0], wrong.argmax(1))
            assert outcome.forwards == outcome.backwards  # the clean logits are no part of the attack's cost


def test_a_transfer_cell_whose_attack_ranks_classes_has_another_id(tmp_path):
    text = """[robustness]
data = "digits"
matrix = { model = "smallcnn", attack = ["apgd-t", "pgd", "autoattack", { name = "pgd", target = "least-likely" }],
           eps = 0.1, subset = ["first-half", "second-half"], source = ["self", { subset = "second-half" }] }
""".replace("\n           ", " ")
    (tmp_path / "ranks.toml").write_text(text)
    for cell in load_suite(str(tmp_path / "ranks.toml")).cells:
        ranks = cell.source is not None and cell.attack.label() != "pgd"
        assert ("clean_logits" in cell.code) == ranks, cell.label()


def test_a_further_restart_is_another_try(network, digits):
    """Begun for the images that the judge still has right."""
    torch.manual_seed(1)
    source = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    x, y = digits[0][:120], digits[1][:120]
    with torch.no_grad():
        right = (network(x).argmax(1) == y).nonzero().flatten()
    victim = Victim(frozen_copy(source, CPU), CPU, "float32", "plain")
    targets = Targets(lambda rows: x[right][rows], y[right], right)

    def fooled(restarts: int) -> tuple[np.ndarray, int]:
        attack = PGD(steps=2, random_start=True, restarts=restarts, relative_step_size=0.1)
        engine = Engine(victim, Judge(network, CPU), targets, 32, white_box=False)
        (outcome,) = engine.run(attack, [Fraction(2, 5)], seed=0)
        return outcome.fooled, outcome.judge_forwards

    (once, judged), (thrice, judged_again) = fooled(1), fooled(3)
    assert judged == len(right)
    assert 0 < once.sum() < thrice.sum()
    assert not (once & ~thrice).any()
    assert judged_again < 3 * len(right)


def test_one_at_a_time_takes_its_turn(tmp_path):
    path, inside, most = tmp_path / "weights" / ".key.lock", [], []

    def visit() -> None:
        with turn(path):
            inside.append(1)
            time.sleep(0.005)
            most.append(len(inside))
            inside.pop()

    visitors = [threading.Thread(target=visit) for _ in range(8)]
    for each in visitors:
        each.start()
    for each in visitors:
        each.join(timeout=WITHIN)
    assert most == [1] * 8
    assert not path.exists()


def test_a_turn_ends_with_an_error_too(tmp_path):
    with pytest.raises(KeyError), turn(tmp_path / ".lock"):
        raise KeyError
    with turn(tmp_path / ".lock"):
        assert (tmp_path / ".lock").exists()
