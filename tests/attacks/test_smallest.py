"""Attacks that look for the smallest distance: the engine against the plain loop, and distances in closed form."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from known_distances import CASES, CPU, Case, Plane, engine_of, targets_of

from epsbench.attacks import FAB, FABT, Attack
from epsbench.attacks.apgd_search import APGDSearch, APGDTSearch
from epsbench.attacks.base import Polished
from epsbench.attacks.cw import CW
from epsbench.attacks.ddn import DDN
from epsbench.attacks.deepfool import DeepFool
from epsbench.attacks.euclidean import free, stepped
from epsbench.attacks.fmn import FMN
from epsbench.attacks.losses import LogitDifference, Margin
from epsbench.attacks.norms import NORMS
from epsbench.attacks.norms.base import movable
from epsbench.attacks.pdpgd import PDPGD
from epsbench.attacks.plain import path
from epsbench.attacks.sigma_zero import SigmaZero
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.gradient import loss_gradient
from epsbench.harness.run.attack.judge import Judge, frozen_copy
from epsbench.harness.run.attack.line_search import lead, nearest_on_the_line
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim

CLOSE = 1e-4  # how far beyond the exact distance an attack along gradients may end, as a share

# Attacks along gradients that are brief, since the polish at their end makes up for it.
ATTACKS: list[Attack] = [
    DDN(),
    *(FMN(norm=NORMS[norm]) for norm in ("linf", "l2", "l1")),
    *(FMN(steps=50, norm=NORMS[norm]) for norm in ("linf", "l2", "l1", "l0", "l0-pixels")),
    *(DeepFool(norm=NORMS[norm]) for norm in ("linf", "l2")),
    *(APGDTSearch(loss=LogitDifference(), searches=10, norm=NORMS[norm]) for norm in ("linf", "l2")),
    *(APGDSearch(loss=Margin(), searches=10, norm=NORMS[norm]) for norm in ("linf", "l2")),
    *(FABT(goal="smallest", steps=20, norm=NORMS[norm]) for norm in ("linf", "l2", "l1")),
    *(FAB(goal="smallest", steps=20, norm=NORMS[norm]) for norm in ("linf", "l2", "l1")),
    CW(),
    CW(steps=100, searches=9, learning_rate=0.01, first_weight=1e-3),
    PDPGD(steps=100),
    *(SigmaZero(steps=100, norm=NORMS[norm]) for norm in ("l0", "l0-pixels")),
]
# The plain loop knows no polish.
SHORT = [replace(attack, steps=min(attack.budget(), 12), **{"searches": 3} if hasattr(attack, "searches") else {},
                 **{"polish": 0} if isinstance(attack, Polished) else {}) for attack in ATTACKS]  # fmt: skip


def named(attack: Attack) -> str:
    return f"{type(attack).__name__.lower()}-{attack.norm.name}"


PAIRS = [
    pytest.param(attack, case, id=f"{named(attack)}-{case.name}")
    for attack in ATTACKS
    for case in CASES
    if attack.norm.name in case.distances
]


@pytest.mark.parametrize(("attack", "case"), PAIRS)
def test_the_distance_is_that_of_the_closed_form(attack, case: Case):
    (outcome,) = engine_of(case.network, case.x, case.y).run(attack, [Fraction(1)], seed=0)
    exact = case.distances[attack.norm.name].numpy()
    assert (outcome.distances >= exact * (1 - 1e-5) - 1e-6).all(), outcome.distances / exact
    assert (outcome.distances <= exact * (1 + CLOSE) + 1e-6).all(), outcome.distances / exact


def plain_distances(network, attack: Attack, targets: Targets) -> tuple[np.ndarray, torch.Tensor]:
    """The distance of the nearest point of any attempt that fools, (n,), and those points."""
    everyone = torch.arange(len(targets))
    x, y = targets.pixels(everyone), targets.labels
    radius = torch.full((len(x), 1, 1, 1), attack.norm.largest(x.shape[1:]))
    nearest, best = torch.full((len(x),), torch.inf), x.clone()

    def ask(point, loss, *inputs):
        return loss_gradient(network, point, loss, inputs)

    with torch.no_grad():
        clean = network(x)
    for number in range(attack.attempts(clean.shape[1])):
        attempt = torch.full_like(everyone, number)

        def draw(step, k=attempt):
            return targets.noise(0, everyone, k, step)

        for point in path(attack, ask, x, y, radius, attempt, draw, lambda: clean):
            with torch.no_grad():
                nearer = (network(point).argmax(1) != y) & (attack.norm.size(point - x) < nearest)
            nearest, best[nearer] = attack.norm.size(point - x).where(nearer, nearest), point[nearer]
    return nearest.numpy(), best


@settings(max_examples=8, deadline=None, phases=(Phase.reuse, Phase.generate))
@given(
    attack=st.sampled_from(SHORT), batch=st.integers(1, 50), n=st.integers(1, 12), early=st.booleans(),
    poll=st.integers(1, 4), eps=st.lists(st.sampled_from([Fraction(1, 10), Fraction(1), Fraction(5)]), min_size=1,
                                         unique=True),
)  # fmt: skip
def test_the_engine_finds_the_nearest_point_of_the_plain_loop(network, digits, attack, batch, n, early, poll, eps):
    targets = targets_of(network, digits, n)
    victim = Victim(frozen_copy(network, CPU), CPU, "float32", "plain")
    engine = Engine(victim, Judge(network, CPU), targets, batch, n, poll)
    outcomes = list(engine.run(attack, sorted(eps), seed=0, early_stop=early))
    nearest, best = plain_distances(network, attack, targets)
    x, y = targets.pixels(torch.arange(n)), targets.labels
    if attack.norm.shrinks and len(at := torch.from_numpy(np.isfinite(nearest)).nonzero().flatten()):
        judge = Judge(network, CPU)
        leads = lead(judge, x[at], y[at], n, at), lead(judge, best[at], y[at], n, at)
        best[at], _ = nearest_on_the_line(judge, x[at], best[at], y[at], n, at, leads)
        nearest[at.numpy()] = attack.norm.size(best[at] - x[at]).numpy()
    for outcome in outcomes:
        np.testing.assert_allclose(outcome.distances, nearest, rtol=2e-3)
        np.testing.assert_array_equal(outcome.fooled, outcome.distances <= float(outcome.eps) + 1e-6)
        # The kept image is the one whose distance is recorded, and it fools.
        kept = outcome.images[torch.from_numpy(outcome.fooled)]
        clean = x[torch.from_numpy(outcome.fooled)]
        sizes = attack.norm.size(kept.double() - clean.double())
        np.testing.assert_allclose(outcome.distances[outcome.fooled], sizes.numpy(), rtol=1e-6)
        with torch.no_grad():
            assert (network(kept).argmax(1) != y[torch.from_numpy(outcome.fooled)]).all()


def test_distances_do_not_depend_on_the_batch_or_on_the_radii_asked(network, digits):
    targets = targets_of(network, digits, 12)
    runs = []
    for batch, eps in ((3, [Fraction(1)]), (20, [Fraction(1, 10), Fraction(2)])):
        victim = Victim(frozen_copy(network, CPU), CPU, "float32", "plain")
        engine = Engine(victim, Judge(network, CPU), targets, batch, 20)
        runs.append(next(iter(engine.run(DDN(steps=30), eps, seed=0))).distances)
    np.testing.assert_allclose(*runs, rtol=1e-3)


def test_a_jacobian_is_one_forward_pass_and_a_backward_pass_a_wrong_class(network, digits):
    x, y = (each[:7] for each in digits)
    victim = Victim(frozen_copy(network, CPU), CPU, "float32", "plain")
    gradients, logits, classes = victim.jacobian(x, LogitDifference(), y, 9)
    assert (victim.forwards, victim.backwards) == (7, 63)
    wrong = torch.arange(9) + (torch.arange(9) >= y[:, None])
    assert torch.equal(classes, wrong)
    for k in range(9):
        one, again = loss_gradient(network, x, LogitDifference(), (y, wrong[:, k]))
        torch.testing.assert_close(gradients[:, k], one, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits, again)
    assert DeepFool(steps=2).gradients(10) == 18


def test_a_jacobian_of_some_classes_has_the_most_likely_ones(network, digits):
    x, y = (each[:7] for each in digits)
    victim = Victim(frozen_copy(network, CPU), CPU, "float32", "plain")
    every, logits, _ = victim.jacobian(x, LogitDifference(), y, 9)
    victim.backwards = 0
    gradients, _, classes = victim.jacobian(x, LogitDifference(), y, 3)
    assert victim.backwards == 7 * 3
    for row in range(7):
        ranked = [k for k in logits[row].argsort(descending=True).tolist() if k != int(y[row])]
        assert classes[row].tolist() == sorted(ranked[:3])
        for place, k in enumerate(classes[row].tolist()):
            expected = every[row, k - int(k > y[row])]
            torch.testing.assert_close(gradients[row, place], expected, rtol=1e-4, atol=1e-5)


def test_deepfool_takes_no_more_gradients_of_a_thousand_classes_than_of_ten(digits):
    x, y = (each[:6] for each in digits)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(x[0].numel(), 1000))
    y = network(x).argmax(1)
    attack = DeepFool(polish=0)
    assert attack.gradients(1000) == attack.gradients(10) == 50 * 9
    targets = targets_of(network, (x, y), 6)
    engine = Engine(Victim(frozen_copy(network, CPU), CPU, "float32", "plain"), Judge(network, CPU), targets, 6)
    (outcome,) = engine.run(attack, [Fraction(1)], seed=0)
    # A linear model: the first step crosses the boundary of the nearest of the ten, the next answer sees it.
    assert outcome.backwards == 6 * 9 * 2
    weight = network[1].weight.detach()
    with torch.no_grad():
        for row in range(6):
            logits = network(x[row : row + 1])[0]
            near = [k for k in logits.topk(10).indices.tolist() if k != int(y[row])]
            away = [float((logits[y[row]] - logits[k]) / (weight[k] - weight[y[row]]).norm()) for k in near]
            # Without the box, it would be the least of these, or less where another class is on the way.
            assert 0 < outcome.distances[row] < 1.2 * min(away) + 1e-3


def test_deepfool_looks_at_two_classes_or_more():
    with pytest.raises(ValueError, match="classes must be at least 2, the true one and another, not 1"):
        DeepFool(classes=1)


def test_a_source_is_refused(network, digits):
    victim = Victim(frozen_copy(network, CPU), CPU, "float32", "plain")
    engine = Engine(victim, Judge(network, CPU), targets_of(network, digits, 5), 5, white_box=False)
    with pytest.raises(ValueError, match="source"):
        list(engine.run(DDN(steps=3), [Fraction(1)], seed=0))


def test_the_norms_that_an_attack_knows_are_named():
    with pytest.raises(ValueError, match="ddn knows the norm l2, not linf; set norm to 'l2'"):
        DDN(norm=NORMS["linf"])


class Hill(torch.nn.Module):
    """Class 1 where the first of two pixels is above 0.9; on the way there, at 0.5, the margin has a peak of −0.2."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        hill = -0.2 - (x - 0.5).square().sum(1).clamp_min(1e-12).sqrt()
        margin = hill.maximum(5 * (x[:, 0] - 0.9))
        return torch.stack([-margin / 2, margin / 2], 1)


@pytest.mark.parametrize("norm", ["l2", "l1", "linf"])
def test_fmn_leaves_a_hill_of_the_margin_that_reaches_nowhere(norm):
    x, y = torch.tensor([0.3, 0.5]).view(1, 1, 1, 2), torch.zeros(1, dtype=torch.int64)
    attack = FMN(step_size=0.1, norm=NORMS[norm])
    (outcome,) = engine_of(Hill(), x, y).run(attack, [Fraction(1)], seed=0)
    np.testing.assert_allclose(outcome.distances, [0.6], rtol=CLOSE)


def test_a_row_of_deepfool_whose_step_moves_nothing_ends():
    x, y = torch.full((2, 1, 2, 2), 0.5), torch.zeros(2, dtype=torch.int64)
    beyond_the_box = Plane(torch.ones(1, 2, 2), 10.0)
    (outcome,) = engine_of(beyond_the_box, x, y).run(DeepFool(steps=50, norm=NORMS["l2"]), [Fraction(1)], seed=0)
    assert np.isinf(outcome.distances).all()
    assert outcome.backwards <= 2 * 3  # onto the corner, and once more


def test_steps_in_few_passes_are_those_of_the_norm():
    generator = torch.Generator().manual_seed(0)
    x, gradient = torch.rand(4, 1, 3, 3, generator=generator), torch.randn(4, 1, 3, 3, generator=generator)
    x[0, 0, 0], x[0, 0, 1], gradient[1], gradient[2] = 0.0, 1.0, 0.0, gradient[2] * 1e-30
    length = torch.tensor([0.1, 1.0, 2.0, 3.0])
    expected = x + length.view(-1, 1, 1, 1) * NORMS["l2"].direction(gradient)
    torch.testing.assert_close(stepped(x, gradient, length), expected)
    assert torch.equal(free(x, gradient), movable(x, gradient))


def test_fmn_takes_as_many_steps_as_suit_its_norm_unless_steps_are_given():
    assert [FMN(norm=NORMS[n]).budget() for n in ("linf", "l2", "l1", "l0")] == [20, 25, 32, 100]
    assert FMN(steps=7).gradients(10) == 7
