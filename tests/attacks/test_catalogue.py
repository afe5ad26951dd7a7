"""The attacks of AutoAttack: closed forms, published schedules, and the reference library's parts."""

from __future__ import annotations

import math
import warnings
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known_distances import Plane
from torch import nn

from epsbench.attacks import APGD, APGDT, FAB, FABT, PGD, Attack, AutoAttack, Ensemble, Noise, Square
from epsbench.attacks.apgd_search import APGDTSearch
from epsbench.attacks.bumps import bump
from epsbench.attacks.checkpoints import checkpoints
from epsbench.attacks.losses import DLR, LOSSES, CrossEntropy, KLToClean, LogitDifference, Margin, TargetedDLR
from epsbench.attacks.norms import NORMS
from epsbench.attacks.norms.l0 import L0
from epsbench.attacks.norms.l1 import L1
from epsbench.attacks.norms.l2 import L2
from epsbench.attacks.norms.linf import LInf
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.judge import Judge, frozen_copy
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim

CPU = torch.device("cpu")


def engine_of(network: nn.Module, x: torch.Tensor, y: torch.Tensor, batch: int = 64) -> Engine:
    targets = Targets.of(x, y)
    return Engine(Victim(frozen_copy(network, CPU), CPU, "float32", "plain"), Judge(network, CPU), targets, batch, 999)


def test_checkpoints_are_those_of_the_paper():
    assert [at for at, _ in checkpoints(100)] == [22, 41, 57, 70, 80, 87, 93, 99]
    assert [at for at, _ in checkpoints(1)] == [1]


@pytest.mark.parametrize("norm", [LInf(), L2()], ids=lambda norm: norm.name)
@pytest.mark.parametrize("attack", [APGD(), FAB(), FABT(), APGD(loss=Margin())], ids=repr)
def test_a_plane_is_crossed_above_its_distance_and_not_below(norm, attack):
    torch.manual_seed(0)
    w = torch.randn(1, 4, 4)
    x = torch.full((1, 1, 4, 4), 0.5)
    distance = 0.1
    dual = float(w.abs().sum()) if norm == LInf() else float(w.norm())
    network = Plane(w, float((x * w).sum()) + distance * dual)  # class 0, and the plane is ``distance`` away
    engine = engine_of(network, x, torch.zeros(1, dtype=torch.int64))
    chosen = type(attack)(norm=norm, **({"loss": attack.loss} if isinstance(attack, APGD) else {}))
    below, above = engine.run(chosen, [Fraction("0.0999"), Fraction("0.1002")], seed=0)
    assert (below.fooled.tolist(), above.fooled.tolist()) == ([False], [True])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), norm=st.sampled_from([LInf(), L2()]))
def test_the_least_move_onto_a_plane_is_exact_within_the_box(seed, norm):
    generator = torch.Generator().manual_seed(seed)
    x, w = torch.rand(3, 1, 3, 3, generator=generator), torch.randn(3, 1, 3, 3, generator=generator)
    f = torch.randn(3, generator=generator)
    move = norm.to_plane(x, w, f)
    assert ((x + move) >= -1e-6).all() and ((x + move) <= 1 + 1e-6).all()  # noqa: PT018
    value = f + (w * move).flatten(1).sum(1)
    reach = f - f.sign() * (w.abs() * torch.where(f.sign().view(-1, 1, 1, 1) * w < 0, 1 - x, x)).flatten(1).sum(1)
    feasible = reach * f <= 0
    torch.testing.assert_close(value[feasible], torch.zeros_like(value[feasible]), rtol=0, atol=1e-4)
    # Other points of the plane within the box are not nearer.
    for _ in range(20):
        other = torch.rand(x.shape, generator=generator) - x
        on = (f + (w * other).flatten(1).sum(1)) * f <= 0
        assert (norm.size(other)[on & feasible] >= norm.size(move)[on & feasible] - 1e-4).all()


@pytest.mark.parametrize("norm", [LInf(), L2(), L1()], ids=lambda norm: norm.name)
def test_the_least_move_is_laid_out_as_the_images_and_does_not_depend_on_that(norm):
    generator = torch.Generator().manual_seed(0)
    x, w = torch.rand(4, 3, 5, 6, generator=generator), torch.randn(4, 3, 5, 6, generator=generator)
    f, last = torch.tensor([0.3, -0.3, 1e4, 5.0]), torch.channels_last
    expected = norm.to_plane(x, w, f)
    for gradient in (w, w.contiguous(memory_format=last)):
        move = norm.to_plane(x.contiguous(memory_format=last), gradient, f)
        assert move.is_contiguous(memory_format=last)
        torch.testing.assert_close(move, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", [LInf(), L2()], ids=lambda norm: norm.name)
def test_the_least_move_of_a_row_does_not_depend_on_rows_that_reach_no_plane(norm):
    generator = torch.Generator().manual_seed(0)
    x, w = torch.rand(4, 1, 8, 8, generator=generator), torch.randn(4, 1, 8, 8, generator=generator)
    w[1] = 0.0  # no direction
    f = torch.tensor([0.3, 0.3, 1e4, -0.5])  # the third plane is outside the box
    move = norm.to_plane(x, w, f)
    assert (move[1] == 0).all()
    torch.testing.assert_close((x + move)[2], (w[2] < 0).float(), rtol=0, atol=1e-6)
    for row in (0, 3):
        alone = norm.to_plane(x[row : row + 1], w[row : row + 1], f[row : row + 1])
        assert torch.equal(move[row : row + 1], alone)


def test_a_norm_that_counts_knows_no_least_move_onto_a_plane():
    x = torch.rand(1, 1, 2, 2)
    with pytest.raises(NotImplementedError, match="the norm l0-pixels knows no least move onto a plane"):
        NORMS["l0-pixels"].to_plane(x, x, torch.ones(1))


def test_losses_agree_with_their_formulas_and_rise_towards_a_mistake():
    z, y, t = torch.tensor([[3.0, 1.0, 0.5, -1.0]]), torch.tensor([0]), torch.tensor([2])
    known = {"y": y, "target": t, "logits": torch.zeros(1, 4)}
    expected = {
        "cross-entropy": -math.log(math.exp(3) / sum(math.exp(v) for v in (3, 1, 0.5, -1))),
        "cross-entropy-targeted": 0.5 - math.log(sum(math.exp(v) for v in (3, 1, 0.5, -1))),
        "margin": 1.0 - 3.0,
        "dlr": -(3.0 - 1.0) / (3.0 - 0.5),
        "dlr-targeted": -(3.0 - 0.5) / (3.0 - (0.5 - 1.0) / 2),
        "logit-difference": 0.5 - 3.0,
        "log-odds": math.log(sum(math.exp(v) for v in (1, 0.5, -1))) - 3.0,
        "kl": sum(
            0.25 * (math.log(0.25) - v + math.log(sum(math.exp(w) for w in (3, 1, 0.5, -1)))) for v in z[0].tolist()
        ),
    }
    for name, loss in LOSSES.items():
        value = float(loss(z, *(known[each] for each in loss.inputs)))
        assert value == pytest.approx(expected[name], rel=1e-5), name


def test_three_classes_take_the_untargeted_denominator():
    z, y, t = torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([0]), torch.tensor([1])
    assert float(TargetedDLR()(z, y, t)) == pytest.approx(-2.0 / 3.0)


def test_targeted_dlr_is_constant_towards_the_least_likely_of_three_classes():
    """A plain apgd-t says what its loss became; AutoAttack takes another loss."""
    z = torch.tensor([[3.0, 1.0, 0.0], [5.0, 4.0, -7.0]])
    y, t = torch.zeros(2, dtype=torch.long), torch.full((2,), 2)
    assert TargetedDLR()(z, y, t).tolist() == pytest.approx([-1.0, -1.0])
    assert APGDT().adapted(3) == {"targets": 2, "denominator": "z1 - z3"}
    APGDT().check(3)
    assert "denominator" not in APGDT(loss=LogitDifference()).adapted(3)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: APGD(loss=TargetedDLR()), "apgd-t"),
        (lambda: PGD(loss=TargetedDLR()), "target"),
        (lambda: PGD(loss=KLToClean()), "random_start"),
        (lambda: APGDT(loss=CrossEntropy()), "no target"),
        (lambda: APGDT(targets=0), "targets"),
        (lambda: APGDT(restarts=2), "restarts"),
        (lambda: FABT(restarts=2), "restarts"),
        (lambda: Square(p=0.0), "p must"),
        (lambda: Square(steps=0), "steps"),
        (lambda: APGD(norm=L0()), "apgd follows lengths, and l0 counts; use sigma-zero"),
        (lambda: FABT(norm=L0()), "fabt knows the norms linf, l2 and l1, not l0"),
        (lambda: FAB(goal="nearest"), 'goal must be "fool" or "smallest"'),
        (lambda: FAB(goal="smallest", restarts=2), "restarts begin within"),
        (lambda: Ensemble(parts=()), "empty"),
        (lambda: Ensemble(parts=(AutoAttack(),)), "ensemble"),
        (lambda: AutoAttack(version="strong"), "version"),
    ],
)
def test_impossible_parameters_are_refused(make, reason):
    with pytest.raises(ValueError, match=reason):
        make()


@pytest.mark.parametrize(
    ("attack", "classes", "reason"),
    [
        (APGD(loss=DLR()), 2, "classes"),
        (APGDT(targets=10), 10, "beyond"),
        (FABT(targets=12), 10, "beyond"),
        (APGDTSearch(), 3, 'constant towards the least likely of three classes.*loss = "logit-difference"'),
        (PGD(loss=DLR(), target="least-likely"), 3, "constant towards the least likely"),
        (APGD(loss=TargetedDLR(), target="least-likely"), 3, "constant towards the least likely"),
    ],
)
def test_attacks_refuse_data_with_too_few_classes(attack, classes, reason):
    with pytest.raises(ValueError, match=reason):
        attack.check(classes)


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_attacks_whose_loss_leads_to_every_class_are_taken(classes):
    for attack in (APGDTSearch(loss=LogitDifference()), PGD(loss=Margin(), target="least-likely"), PGD(target=1)):
        attack.check(classes)
    if classes == 4:
        APGDTSearch().check(classes)
        PGD(loss=DLR(), target="least-likely").check(classes)


def test_autoattack_is_adapted_to_few_classes():
    names = {classes: [name for name, _ in AutoAttack().members(classes)] for classes in (2, 3, 10)}
    assert names[10] == ["apgd-ce", "apgd-t", "fab-t", "square"] == names[3]
    assert names[2] == ["apgd-ce", "apgd-margin", "fab-t", "square"]
    assert AutoAttack().adapted(10) == {}
    assert AutoAttack().adapted(3) == {
        "apgd-t": {"targets": 2, "loss": "logit-difference"}, "fab-t": {"targets": 2}
    }  # fmt: skip
    assert AutoAttack().adapted(4) == {"apgd-t": {"targets": 3}, "fab-t": {"targets": 3}}
    assert AutoAttack(version="rand").adapted(3) == {}
    for version in ("standard", "plus", "rand"):
        for norm in (LInf(), L2(), L1()):
            for classes in (2, 3, 4, 5, 6, 10):
                AutoAttack(version=version, norm=norm).check(classes)


def test_autoattack_under_l1_aims_at_five_classes_or_at_all_there_are():
    aims = {n: dict(AutoAttack(norm=L1()).members(n))["apgd-t"].attempts(n) for n in (3, 4, 5, 6, 10)}
    assert aims == {3: 2, 4: 3, 5: 4, 6: 5, 10: 5}
    assert AutoAttack(norm=L1()).adapted(5)["apgd-t"] == {"targets": 4}
    assert "apgd-t" not in AutoAttack(norm=L1()).adapted(6)


class LeastLikely(nn.Module):
    """Three classes, of which only the least likely one can be reached."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        moved = 40 * (x.mean((1, 2, 3)) - 0.5)
        return torch.stack([0 * moved, 0 * moved - 1, moved - 2], 1)


def test_a_search_for_three_classes_finds_the_least_likely_one():
    """Its logit reaches 0 at a mean of 0.55. With the default loss there would be no way to it."""
    x, y = torch.full((2, 1, 4, 4), 0.5), torch.zeros(2, dtype=torch.long)
    attack = APGDTSearch(loss=LogitDifference(), norm=LInf())
    attack.check(3)
    (outcome,) = engine_of(LeastLikely(), x, y).run(attack, [Fraction(1)], seed=0)
    assert outcome.distances.tolist() == pytest.approx([0.05, 0.05], rel=1e-4)


def test_each_targeted_part_for_three_classes_reaches_the_least_likely_one():
    x, y = torch.full((4, 1, 4, 4), 0.5), torch.zeros(4, dtype=torch.long)
    parts = dict(AutoAttack().members(3))
    for name in ("apgd-t", "fab-t"):
        (outcome,) = engine_of(LeastLikely(), x, y).run(parts[name], [Fraction("0.06")], seed=0)
        assert outcome.fooled.all(), name


def test_the_cost_of_the_standard_version_is_the_published_one():
    attack = AutoAttack()
    assert dict(attack.members(10))["apgd-ce"].gradients(10) == 100
    assert dict(attack.members(10))["apgd-t"].gradients(10) == 900
    assert dict(attack.members(10))["square"].forwards(10) == 5_000
    assert attack.gradients(10) == 100 + 900 + 900
    assert attack.forwards(10) == 5_000 + 900


def test_a_bump_is_up_beside_down_and_of_length_one():
    shape = torch.tensor(bump(5))
    assert float(shape.norm()) == pytest.approx(1.0)
    assert (shape[:2] > 0).all()
    assert (shape[2:] < 0).all()


REFERENCE = {
    "APGD": (APGD(steps=50), {"steps": 50, "loss": "ce"}),
    "APGDT": (APGDT(steps=50), {"steps": 50, "n_classes": 10}),
    "FAB": (FABT(steps=30), {"steps": 30, "multi_targeted": True, "n_classes": 10}),
    "Square": (Square(steps=300), {"n_queries": 300}),
}


@pytest.mark.parametrize("name", REFERENCE)
@pytest.mark.parametrize("norm", [LInf(), L2()], ids=lambda norm: norm.name)
def test_parts_are_about_as_strong_as_the_reference_library(network, digits, name, norm):
    attack, options = REFERENCE[name]
    eps = 0.08 if norm == LInf() else 0.5
    x, y = (each[:150] for each in digits)
    with torch.no_grad():
        right = network(x).argmax(1) == y
    x, y = x[right], y[right]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torchattacks = pytest.importorskip("torchattacks", reason="torchattacks is a test extra")
        theirs = getattr(torchattacks, name)(network, eps=eps, norm=norm.name.capitalize(), **options)
        if name == "Square":
            theirs.rescale_schedule = False
        images = theirs(x, y)
    with torch.no_grad():
        expected = (network(images).argmax(1) != y) & (norm.size(images - x) <= eps * (1 + 1e-5))
    chosen: Attack = type(attack)(steps=attack.steps, norm=norm)
    (outcome,) = engine_of(network, x, y).run(chosen, [Fraction(eps)], seed=0)
    assert abs(outcome.fooled.mean() - expected.float().mean().item()) <= 0.05
    assert 0.02 < outcome.fooled.mean() < 0.99
    assert outcome.size.max() <= eps + 1e-5


SHORT = [
    APGD(steps=6, restarts=2),
    APGDT(steps=5),
    FABT(steps=4),
    FAB(steps=2),
    Square(steps=12),
    Square(steps=12, norm=L2()),
    Ensemble(parts=(Noise(), APGD(steps=3), Square(steps=9))),
]


@pytest.mark.parametrize("attack", SHORT, ids=repr)
def test_verdicts_do_not_depend_on_the_batch_size(network, digits, attack):
    x, y = (each[:40] for each in digits)
    eps = [Fraction(1, 20), Fraction(3, 5)] if attack.norm == L2() else [Fraction(1, 20), Fraction(1, 10)]
    verdicts = [
        [outcome.fooled.tolist() for outcome in engine_of(network, x, y, batch).run(attack, eps, seed=0)]
        for batch in (1, 7, 64)
    ]
    assert verdicts[0] == verdicts[1] == verdicts[2]


def test_parts_attack_what_withstood_the_parts_before(network, digits):
    x, y = (each[:60] for each in digits)
    attack = Ensemble(parts=(PGD(steps=2), APGD(steps=10), Square(steps=20)))
    (outcome,) = engine_of(network, x, y).run(attack, [Fraction(1, 10)], seed=0)
    left = 60
    for part in outcome.parts:
        assert part.attacked == left
        left -= len(part.fooled)
    assert left == (~outcome.fooled).sum()
    assert outcome.forwards == sum(part.forwards for part in outcome.parts)


def test_a_killed_ensemble_goes_on_after_its_last_part(network, digits, tmp_path):
    from dataclasses import dataclass

    from epsbench.harness.run.robustness.partial import PartialResults

    @dataclass(frozen=True)
    class Cell:
        id: str
        eps: Fraction

    x, y = (each[:40] for each in digits)
    eps = Fraction(1, 10)
    store = PartialResults(tmp_path, [Cell("a" * 16, eps)], "weights")  # type: ignore[list-item]
    attack = Ensemble(parts=(PGD(steps=2), APGD(steps=10), Square(steps=20)))
    (whole,) = engine_of(network, x, y).run(attack, [eps], seed=0, store=store)
    kept = store.load(eps)
    assert [part.name for part in kept.parts] == [part.name for part in whole.parts[:-1]]
    (resumed,) = engine_of(network, x, y).run(attack, [eps], seed=0, store=store)
    assert resumed.fooled.tolist() == whole.fooled.tolist()
    assert [part.fooled.tolist() for part in resumed.parts] == [part.fooled.tolist() for part in whole.parts]
    assert resumed.parts[0].seconds == whole.parts[0].seconds  # read, not computed again
    assert PartialResults(tmp_path, store.cells, "other weights").load(eps) is None
    store.path(eps).write_bytes(b"damaged")
    assert store.load(eps) is None
    store.drop(eps)
    assert not store.path(eps).exists()
