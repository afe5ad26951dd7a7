"""A turn in one CUDA graph: on CUDA no attack's turn waits for the device, and by graphs verdicts are the same.

Where there is no CUDA device, a graph is imitated, and the device's tensors are torch's fake ones.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from fractions import Fraction

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from epsbench.attacks import APGD, APGDT, FABT, MIFGSM, PGD, Attack, Jitter, Square
from epsbench.attacks.apgd_search import APGDSearch
from epsbench.attacks.boundary import Boundary
from epsbench.attacks.cw import CW
from epsbench.attacks.ddn import DDN
from epsbench.attacks.deepfool import DeepFool
from epsbench.attacks.fmn import FMN
from epsbench.attacks.hopskipjump import HopSkipJump
from epsbench.attacks.losses import DLR, KLToClean, Margin
from epsbench.attacks.norms import NORMS
from epsbench.attacks.pdpgd import PDPGD
from epsbench.attacks.rows import Answer, least, likeliest_others
from epsbench.attacks.sigma_zero import SigmaZero
from epsbench.attacks.sparse_rs import SparseRS
from epsbench.attacks.spsa import SPSA
from epsbench.harness.run.attack import graphs, turn_graphs
from epsbench.harness.run.attack.asks import Asks
from epsbench.harness.run.attack.attack_run import AttackRun
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.global_draws import GlobalDraws
from epsbench.harness.run.attack.graphs import Ladder
from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.smallest import NearestTurn
from epsbench.harness.run.attack.turn import Turn
from tests.run.attack.engines import CPU, plain, targets_of
from tests.run.attack.imitation import imitated

LINF, L2, L1, L0 = (NORMS[name] for name in ("linf", "l2", "l1", "l0"))
ATTACKS = {
    "pgd": PGD(steps=6, restarts=2, random_start=True), "pgd-l2": PGD(steps=6, norm=L2),
    "pgd-cycles": PGD(steps=60), "pgd-margin": PGD(steps=6, loss=Margin()),
    "mi-di": MIFGSM(steps=6, di=0.5, ti=3, ni=True, si=2, vmi=2),
    "pgd-kl": PGD(steps=6, loss=KLToClean(), random_start=True), "mi-fgsm": MIFGSM(steps=6), "jitter": Jitter(steps=6),
    "apgd": APGD(steps=12), "apgd-dlr-l2": APGD(steps=12, loss=DLR(), norm=L2), "apgd-l1": APGD(steps=12, norm=L1),
    "apgd-t": APGDT(steps=12, targets=2), "fab-t": FABT(steps=6, targets=2),
    "fab-t-l2": FABT(steps=6, targets=2, norm=L2),
    "fab-t-l1": FABT(steps=6, targets=2, norm=L1), "square": Square(steps=40), "square-l2": Square(steps=40, norm=L2),
    "square-l1": Square(steps=40, norm=L1), "sparse-rs": SparseRS(steps=40, norm=L0), "spsa": SPSA(steps=4, pairs=1),
    "ddn": DDN(steps=10), "fmn-linf": FMN(steps=10, norm=LINF), "fmn-l2": FMN(steps=10, norm=L2),
    "fmn-l1": FMN(steps=10, norm=L1), "fmn-l0": FMN(steps=10, norm=L0), "cw": CW(steps=10), "pdpgd": PDPGD(steps=10),
    "deepfool": DeepFool(steps=10, norm=L2), "apgd-search": APGDSearch(steps=20), "sigma-zero": SigmaZero(steps=10),
    "fab-t-smallest": FABT(goal="smallest", steps=6, targets=2, norm=L2),
    "hopskipjump": HopSkipJump(steps=150), "boundary": Boundary(steps=100),
}  # fmt: skip
WAYS = [(name, early) for name, attack in ATTACKS.items() for early in (True, False) if early or attack.goal == "fool"]
EPS = {"linf": Fraction(1, 20), "l2": Fraction(1), "l1": Fraction(5), "l0": Fraction(10)}


@pytest.fixture
def by_graphs(monkeypatch):
    """Turns by imitated graphs, of every size; the numbers of rows of those that ran."""
    ran = []

    def counted(query, inputs, pool):
        replay, victim = imitated(query, inputs, pool), query.__closure__[0].cell_contents.victim

        def run():
            ran.append(len(inputs[0]))
            counts = victim.forwards, victim.backwards
            outputs = replay()
            victim.forwards, victim.backwards = counts  # a graph runs none of the host's code
            return outputs

        return run

    monkeypatch.setattr(graphs, "captured", counted)
    monkeypatch.setattr(graphs, "new_pool", lambda: None)
    monkeypatch.setattr(Ladder, "faster", lambda self, device, instead=None: self.sizes)
    monkeypatch.setattr(turn_graphs, "WORTH", 0)
    return ran


def outcome_of(network, digits, attack: Attack, *, graphed: bool, **options):
    _, _, targets = targets_of(network, digits, 30)
    victim = plain(network)
    if graphed:  # as if its queries were graphs already: of a loss that nobody asks for
        victim.graphs = {"nobody's": None}  # type: ignore[dict-item]
    engine = Engine(victim, Judge(network, CPU), targets, 20, poll=3)
    (outcome,) = engine.run(attack, [EPS[attack.norm.name]], seed=0, **options)
    return outcome, victim


@pytest.mark.parametrize(("name", "early_stop"), WAYS)
def test_verdicts_distances_and_costs_are_the_same_by_graphs(network, digits, by_graphs, name, early_stop):
    attack = ATTACKS[name]
    expected, bare = outcome_of(network, digits, attack, graphed=False, early_stop=early_stop)
    assert not by_graphs
    ours, victim = outcome_of(network, digits, attack, graphed=True, early_stop=early_stop)
    assert not victim.findings
    assert len(by_graphs) > 1
    assert (ours.fooled == expected.fooled).all()
    assert (ours.forwards, ours.backwards) == (expected.forwards, expected.backwards)
    assert (victim.forwards, victim.backwards) == (bare.forwards, bare.backwards)
    if expected.distances is not None:
        assert torch.allclose(torch.from_numpy(ours.distances), torch.from_numpy(expected.distances), rtol=1e-4)


@pytest.fixture
def no_tables_kept():
    """Attacks keep tables for each device: none of fake tensors may be left."""
    yield
    for name, module in list(sys.modules.items()):
        if name.startswith("epsbench.attacks"):
            for value in vars(module).values():
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


class NothingFromTheHost(TorchDispatchMode):
    """Raises where a tensor goes from the host to the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        devices = [each.device.type for each in (*args[:1], result) if isinstance(each, torch.Tensor)]
        assert devices != ["cpu", "cuda"], func
        return result


class Gone:
    """Answers without a network, for tensors that hold no numbers."""

    def __init__(self, asks: Asks, classes: int = 10) -> None:
        self.exact, self.classes, self.victim, self.attack = asks.exact, classes, asks.victim, asks.attack

    def clean_logits(self):
        return torch.empty(1000, self.classes, device="cuda")

    def at(self, point, rows):
        logits, gradient, classes = torch.empty(len(point), self.classes, device="cuda"), None, None
        if self.attack.query == "gradient":
            views = self.attack.views()
            seen = [self.attack.view(rows, point, number) for number in range(sum(views))]  # torch has no fake backward
            gradient = torch.stack(seen[: len(views)], 1) if views[1:] else seen[0]
        elif self.attack.query == "jacobian":
            classes = likeliest_others(logits, rows.y, self.attack.candidates(self.classes))
            gradient = torch.empty_like(point)[:, None].repeat(1, classes.shape[1], 1, 1, 1)
            if self.attack.chooses():
                score = self.attack.score(logits.gather(1, classes), gradient)
                first = least(score, gradient, classes)
                _, gradient, classes = least(score, gradient, classes, first)
        loss = self.attack.loss
        return Answer(point, rows.y, logits, gradient, loss, rows.inputs(loss), classes=classes), logits


@pytest.mark.parametrize(("name", "early_stop"), WAYS)
def test_on_cuda_no_turn_waits_for_the_device(network, digits, no_tables_kept, name, early_stop):
    """A fake tensor raises where the host asks for a value, or where a shape would depend on one.

    In the first turn an attack may make the tables that it keeps.
    """
    attack = ATTACKS[name]
    _, _, targets = targets_of(network, digits, 8)
    engine = Engine(plain(network), Judge(network, CPU), targets, 8)
    attempts = attack.attempts(10)
    run = AttackRun(attack, (EPS[attack.norm.name],), 0, attempts, early_stop, last_only=False)
    asks = Asks(attack, engine.victim, engine.clean, engine.clean_logits)
    turn = (NearestTurn if attack.goal == "smallest" else Turn)(run, asks, targets, attack.norm)
    everyone = torch.arange(8)
    tensors, shared, _ = turn.first(torch.zeros_like(everyone), torch.zeros_like(everyone), everyone)
    turn.asks = Gone(asks)
    turn.draws = GlobalDraws(watched=False)  # a fake tensor has no bytes; the host's generators wait for no device
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake = {
            key: torch.empty_strided(each.shape, each.stride(), dtype=each.dtype, device="cuda")
            for key, each in tensors.items()
        }
        turn.take(fake, shared, None)
        with NothingFromTheHost():
            turn.take(fake, shared, None)
    assert all(fake[key].shape == tensors[key].shape for key in fake)
    assert all(fake[key].device.type == "cuda" for key in fake), {k: v.device for k, v in fake.items()}


@dataclass(frozen=True, kw_only=True)
class Asking(PGD):
    """Asks the device whether any gradient is 0, or gives it a tensor of the host's."""

    waits: bool = True

    def update(self, x_adv, gradient, eps, step):
        if self.waits and bool((gradient == 0).all()):
            return x_adv
        gradient = gradient * torch.tensor([1.0], device=gradient.device)
        return super().update(x_adv, gradient, eps, step)


@pytest.mark.parametrize("waits", [True, False])
def test_a_turn_that_waits_for_the_device_is_seen(network, digits, monkeypatch, waits):
    """The test above can fail."""
    monkeypatch.setitem(ATTACKS, "asking", Asking(steps=3, waits=waits))
    with pytest.raises(DataDependentOutputException if waits else AssertionError):
        test_on_cuda_no_turn_waits_for_the_device(network, digits, None, "asking", early_stop=True)


def test_an_attack_that_cannot_be_captured_goes_on_without_a_graph(network, digits, by_graphs, monkeypatch):
    def refuses(query, inputs, pool):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(graphs, "captured", refuses)
    expected, _ = outcome_of(network, digits, ATTACKS["pgd"], graphed=False)
    ours, victim = outcome_of(network, digits, ATTACKS["pgd"], graphed=True)
    assert (ours.fooled == expected.fooled).all()
    assert list(victim.graphs) == ["nobody's"]
    (finding,) = victim.findings
    assert finding.code == "not-graphed"
    assert "not permitted" in finding.message
    again = Engine(victim, Judge(network, CPU), targets_of(network, digits, 30)[2], 20)
    list(again.run(replace(ATTACKS["pgd"], steps=5), [Fraction(1, 20)], seed=0))
    assert len(victim.findings) == 1


def test_a_turn_that_computes_something_else_is_refused(network, digits, by_graphs, monkeypatch):
    def stale(query, inputs, pool):
        outputs = tuple(torch.zeros_like(each) for each in query(*inputs))
        return lambda: outputs

    monkeypatch.setattr(graphs, "captured", stale)
    expected, _ = outcome_of(network, digits, ATTACKS["pgd"], graphed=False)
    ours, victim = outcome_of(network, digits, ATTACKS["pgd"], graphed=True)
    assert (ours.fooled == expected.fooled).all()
    assert [each.code for each in victim.findings] == ["not-graphed"]


def test_a_short_attack_is_not_captured(network, digits, by_graphs, monkeypatch):
    monkeypatch.setattr(turn_graphs, "WORTH", 200)
    outcome_of(network, digits, ATTACKS["pgd"], graphed=True)
    assert not by_graphs
