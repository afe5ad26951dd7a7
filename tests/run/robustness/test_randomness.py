"""Models that answer at random: the attack averages passes, the judge takes a majority, and verdicts repeat."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from small import QUIET
from torch import nn

import epsbench
from epsbench.attacks import APGD, PGD, Ensemble, Square
from epsbench.attacks.losses import CROSS_ENTROPY, Margin
from epsbench.harness.errors import InputError
from epsbench.harness.plan.names.registry import make, name_with_parameters
from epsbench.harness.plan.one_word import parsed
from epsbench.harness.plan.plan import plan
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.records import read_record, read_records, record_path
from epsbench.harness.report.exports.citing.paragraph import sentences
from epsbench.harness.run.attack import few_rows
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.judge import frozen_copy
from epsbench.harness.run.attack.random_model import RandomVictim, VotingJudge, majority
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.runner import run_suite
from epsbench.harness.run.verify import SAME, verify

CPU = torch.device("cpu")
SIGMA, N, SIDE = 0.15, 400, 4


class NoisyLinear(nn.Module):
    """Two classes apart by a hyperplane, seen through Gaussian noise."""

    def __init__(self, sigma: float = SIGMA) -> None:
        super().__init__()
        self.sigma = sigma
        self.weight = nn.Parameter(torch.randn(SIDE * SIDE, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = (x + self.noise(x) - 0.5).flatten(1) @ self.weight
        return torch.stack([score, -score], 1)

    def noise(self, x: torch.Tensor) -> torch.Tensor:
        return self.sigma * torch.randn_like(x)

    def margin(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return ((x - 0.5).flatten(1) @ self.weight) * (1 - 2 * y)


class OneDrawABatch(NoisyLinear):
    """Draws one shift for the whole batch, from Python's and NumPy's generators."""

    def noise(self, x: torch.Tensor) -> torch.Tensor:
        return torch.full_like(x, random.gauss(0, self.sigma) + np.random.normal(0, self.sigma))


class OwnGenerator(NoisyLinear):
    """Draws from a generator of its own, which nobody can seed."""

    def noise(self, x: torch.Tensor) -> torch.Tensor:
        state = self.__dict__.setdefault("generator", torch.Generator().manual_seed(1))
        return self.sigma * torch.randn(x.shape, generator=state)

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if key != "generator"}


def images(n: int = N) -> tuple[torch.Tensor, torch.Tensor]:
    """Images so far inside the box that no step is cut off, with the labels of the model without noise."""
    x = 0.3 + 0.4 * torch.rand(n, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    return x, (NoisyLinear().margin(x, torch.zeros(n)) < 0).long()


def engine_of(network: nn.Module, n: int = 40, batch: int = 16, samples: int = 3, votes: int = 5) -> Engine:
    x, y = images(n)
    judge = VotingJudge(network, CPU, votes, seed=0)
    right = (judge.verdict(x, y, n)[1] == y).nonzero().flatten()
    targets = Targets(lambda at: x[right][at], y[right], right)
    return Engine(RandomVictim(frozen_copy(network, CPU), CPU, "float32", "plain", samples=samples), judge, targets,
                  batch, 999)  # fmt: skip


@pytest.mark.parametrize("votes", [1, 5, 15])
@pytest.mark.parametrize("attack", [PGD(steps=8), Ensemble(parts=(APGD(steps=8, samples=2), Square(steps=5)))])
def test_the_error_of_the_majority_is_that_of_the_closed_form(votes, attack):
    eps = 0.03
    network, (x, y) = NoisyLinear(), images()
    result = epsbench.evaluate(
        network, x, y, attack=attack, eps=eps, randomness={"samples": 4, "votes": votes}, seed=votes
    )
    for accuracy, radius in ((result.clean_accuracy, 0.0), (result.robust_accuracy, eps)):
        # The strongest step lowers the margin by ε ‖w‖₁. A pass is wrong where the noise is larger than what is left.
        left = (network.margin(x, y) - radius * network.weight.abs().sum()).detach()
        wrong = torch.special.ndtr(-left / (SIGMA * network.weight.detach().norm())).double().numpy()
        right = sum(math.comb(votes, k) * wrong**k * (1 - wrong) ** (votes - k) for k in range((votes + 1) // 2))
        deviation = math.sqrt(float((right * (1 - right)).sum())) / N
        assert abs(float(accuracy) - float(right.mean())) < 3.5 * deviation, (votes, radius)
    assert not result.points[0].void


def test_without_randomness_such_a_model_is_void_and_with_it_is_not():
    x, y = images(100)
    void = epsbench.evaluate(NoisyLinear(), x, y, attack="pgd", eps=0.03)
    assert void.points[0].void
    assert "not-deterministic" in {each.code for each in void.findings}
    asked = {"samples": 2, "votes": 15}
    fine = epsbench.evaluate(NoisyLinear(0.01), x, y, attack="pgd", eps=0.03, randomness=asked)
    assert not fine.points[0].void
    assert not {each.code for each in fine.findings}


ATTACKS = ("noise", "fgsm", "pgd:steps=3", "apgd:steps=4", "apgd-t:steps=4,loss=logit-difference", "square:steps=6",
           "fab:steps=3", "fab-t:steps=3", "spsa:steps=5,pairs=2", "ddn:steps=5", "mi-fgsm:steps=2")  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_attack_runs_and_its_costs_count_every_pass(attack, monkeypatch):
    monkeypatch.setattr(few_rows, "FEWEST", 1)  # rows that only fill a small batch are no passes of the attack
    passes = [0]

    class Counted(NoisyLinear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            passes[0] += len(x)
            return super().forward(x)

    network, counts = Counted(), {}
    named = name_with_parameters("attack", parsed(attack), Path())
    made = make("attack", named, Path(), norm="l2" if attack.startswith("ddn") else "linf")
    for samples, votes in ((1, 1), (3, 1), (1, 4)):
        engine = engine_of(network, samples=samples, votes=votes)
        engine.clean_logits()
        passes[0] = 0
        (outcome,) = engine.run(made, [Fraction(1, 20)], seed=0)
        assert passes[0] == outcome.forwards + outcome.judge_forwards
        counts[samples, votes] = outcome
    assert counts[3, 1].forwards % 3 == counts[3, 1].backwards % 3 == counts[1, 4].judge_forwards % 4 == 0
    assert counts[1, 4].forwards > 0 or attack == "noise"


@pytest.mark.parametrize("kind", [NoisyLinear, OneDrawABatch])
def test_a_vote_depends_on_no_other_image(kind):
    x, y = images(60)
    judge = VotingJudge(kind(), CPU, 5, seed=3)
    logits, classes = judge.verdict(x, y, 60)
    some = torch.randperm(60, generator=torch.Generator().manual_seed(0))[:23]
    again, same = judge.verdict(x[some], y[some], 7, examples=some)
    assert torch.equal(again, logits[some])
    assert torch.equal(same, classes[some])
    assert len(judge.passes(x[:1])[0].unique(dim=0)) == 5  # the passes of an image differ
    assert not torch.equal(VotingJudge(kind(), CPU, 5, seed=4).verdict(x, y, 60)[0], logits)


def test_the_majority_and_its_ties():
    def one_hot(*classes: int) -> torch.Tensor:
        return torch.eye(4)[list(classes)]

    passes = torch.stack([one_hot(1, 1, 2, 2), one_hot(1, 1, 2, 2), one_hot(0, 3, 3, 3), one_hot(2, 1, 0, 3)])
    assert majority(passes, torch.tensor([1, 0, 0, 3])).tolist() == [2, 1, 3, 0]  # a tie with the label is lost


def test_the_victim_averages_the_loss_and_not_the_logits():
    network, (x, y) = NoisyLinear(), images(6)
    victim = RandomVictim(frozen_copy(network, CPU), CPU, "float32", "plain", samples=7, seed=5)
    answer = victim.respond(x, Margin(), (y,), gradient=True)
    victim.begin(5)
    assert torch.equal(victim.respond(x, Margin(), (y,), gradient=True).loss, answer.loss)  # the same draws
    victim.begin(5)
    assert torch.equal(victim.respond(x, Margin(), (y,), gradient=False).loss, answer.loss)
    assert not torch.equal(victim.respond(x, Margin(), (y,), gradient=False).loss, answer.loss)  # the next answer's
    assert (victim.forwards, victim.backwards) == (4 * 6 * 7, 2 * 6 * 7)
    # The cross-entropy is convex: its mean lies above the loss of the mean logits.
    convex = victim.respond(x, CROSS_ENTROPY, (y,), gradient=True)
    assert convex.loss is not None
    assert bool((convex.loss > CROSS_ENTROPY(convex.logits, y)).all())


def test_global_generators_are_put_back():
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    list(engine_of(OneDrawABatch()).run(PGD(steps=2), [Fraction(1, 20)], seed=0))
    assert states[0] == random.getstate()
    assert states[1] == np.random.get_state()[1].tolist()
    assert torch.equal(states[2], torch.get_rng_state())


def codes(network: nn.Module, votes: int = 3) -> dict[str, dict[str, object]]:
    x, y = images(64)
    result = epsbench.evaluate(network, x, y, attack="noise", eps=0.03, randomness={"samples": 1, "votes": votes})
    return {each.code: each.evidence for each in result.findings}


def test_audits_compare_votes():
    assert "not-random" in codes(NoisyLinear(0.0))
    assert codes(NoisyLinear(3.0))["unsettled-votes"]["same_draws"] == 0
    assert codes(OwnGenerator(3.0))["unsettled-votes"]["same_draws"] > 0


SUITE = """
[robustness]
data = "digits"
limit = 60
randomness = { samples = 2, votes = 3 }
[robustness.training]
epochs = 2
[robustness.matrix]
model = "noisy.py:Noisy"
attack = [{ name = "pgd", steps = 3 }, { name = "ensemble", parts = [{ name = "apgd", steps = 3 }, "fgsm"] }]
eps = [0.05, 0.1, 0.15]
"""
MODEL = """
import torch
from torch import nn

class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        return self.linear((x + 0.3 * torch.randn_like(x)).flatten(1))
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("random")
    (folder / "noisy.py").write_text(MODEL)
    (folder / "random.toml").write_text(SUITE)
    suite = load_suite(str(folder / "random.toml"))
    assert run_suite(suite, folder / "results", QUIET) == 0
    return suite, folder / "results"


def test_a_resumed_run_and_a_verification_give_the_same_verdicts(measured):
    suite, results = measured
    before = {record.id: record for record in read_records(results)}
    for cell in suite.cells[1::2]:
        record_path(results, cell.id).unlink()
    run_suite(suite, results, QUIET)
    for cell in suite.cells:
        after = read_record(record_path(results, cell.id))
        assert after.status == "ok"
        assert after.verdicts == before[cell.id].verdicts, cell.label()
        assert after.cost["forwards"] == before[cell.id].cost["forwards"]
    lines: list[str] = []
    assert verify(suite, results, QUIET, 3, lines.append) == SAME, lines


def test_records_plan_and_methods_say_so(measured):
    suite, results = measured
    record = next(record for record in read_records(results) if record.cell["attack"]["name"] == "pgd")
    assert record.cell["randomness"] == {"samples": 2, "votes": 3}
    assert record.cost["form"] == "plain, 2 passes"
    assert record.cost["judge_forwards"] % 3 == 0
    assert any("mean of the loss over 2 samples" in each.text for each in sentences(record))
    cells = suite.cells[:1]
    assert plan(suite, results / "none").predicted_gradients(cells).at_most == 60 * 3 * 2
    assert "(2 samples, 3 votes)" in cells[0].label()


def test_at_its_default_it_is_no_part_of_a_cell(tmp_path):
    (tmp_path / "plain.toml").write_text(SUITE.replace("randomness", "#").replace("noisy.py:Noisy", "smallcnn"))
    assert "randomness" not in load_suite(str(tmp_path / "plain.toml")).cells[0].canonical()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{ samples = 0, votes = 3 }", "robustness.randomness.samples: must be greater than or equal to 1"),
        ("{ samples = 2 }", "robustness.randomness.votes: is missing"),
        ("{ samples = 2, votes = 3, passes = 1 }", "robustness.randomness.passes: unknown key"),
        ("3", "robustness.randomness: must be"),
    ],
)
def test_what_is_no_randomness_is_refused(value, message, tmp_path):
    text = SUITE.replace("{ samples = 2, votes = 3 }", value).replace("noisy.py:Noisy", "smallcnn")
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        load_suite(str(tmp_path / "bad.toml"))
