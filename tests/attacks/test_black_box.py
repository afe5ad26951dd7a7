"""Attacks by scores and decisions alone: closed forms, Foolbox, and rows that know nothing of each other."""

from __future__ import annotations

import math
import os
import warnings
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from known_distances import CASES
from known_distances import Plane as KnownPlane
from torch import nn

from epsbench.attacks import PGD, Square
from epsbench.attacks.boundary import Boundary
from epsbench.attacks.hopskipjump import HopSkipJump
from epsbench.attacks.norms import NORMS
from epsbench.attacks.norms.l2 import L2
from epsbench.attacks.norms.linf import LInf
from epsbench.attacks.plain import path
from epsbench.attacks.sparse_rs import SparseRS
from epsbench.attacks.spsa import SPSA
from epsbench.harness.errors import InputError
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.judge import Judge, frozen_copy
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.noise import KeyedNoise

CPU = torch.device("cpu")
# Each of these takes seconds: they run with EPSBENCH_FULL=1.
FULL = pytest.mark.skipif(os.environ.get("EPSBENCH_FULL") != "1", reason="takes seconds: set EPSBENCH_FULL=1")


def engine_of(network, x, y, batch=64) -> Engine:
    targets = Targets.of(x, y)
    return Engine(Victim(frozen_copy(network, CPU), CPU, "float32", "plain"), Judge(network, CPU), targets, batch, 999)


class Plane(nn.Module):
    """Two classes divided by a plane, ``distance`` from the middle of the box under a norm."""

    def __init__(self, norm, distance: float, pixels: int = 16) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.w = nn.Parameter(torch.randn(pixels, generator=generator))
        dual = float(self.w.detach().norm() if norm == L2() else self.w.detach().abs().sum())
        self.b = float(self.w.detach().sum()) / 2 + distance * dual

    def forward(self, x):
        z = x.flatten(1) @ self.w - self.b
        return torch.stack([-z, z], 1)


@pytest.mark.parametrize(
    ("attack", "norm", "nearest"),
    [
        (SPSA(steps=1_600, pairs=40), LInf(), 1.25),
        (SPSA(steps=700, pairs=8, relative_step_size=0.2), L2(), 1.2),
        (HopSkipJump(steps=700), L2(), 1.1),
    ],
    ids=lambda value: getattr(value, "name", type(value).__name__),
)
def test_a_plane_is_crossed_a_little_above_its_distance_and_never_below(attack, norm, nearest):
    distance = 0.2
    x = torch.full((4, 1, 4, 4), 0.5)
    network = Plane(norm, distance)
    eps = [Fraction("0.1999"), Fraction(round(distance * nearest, 6)).limit_denominator(10**6)]
    engine = engine_of(network, x, torch.zeros(4, dtype=torch.int64))
    below, above = engine.run(replace(attack, norm=norm), eps, seed=0)
    assert not below.fooled.any()
    assert above.fooled.all()
    assert above.size.max() <= float(eps[1]) + 1e-6


L2_NORM, LINF_NORM, L1_NORM = (NORMS[name] for name in ("l2", "linf", "l1"))
WALKS = Boundary(steps=2_500, goal="smallest", norm=L2_NORM)
JUMPS = HopSkipJump(steps=2_000, goal="smallest", norm=L2_NORM)
# How far beyond the exact distance the attacks by decisions end, as a share, on a plane, a ball and two pixels. A walk
# converges. Jumps along estimated gradients end as near as the estimates are good: as 1/√queries, whatever the case.
ENDS = [
    (WALKS, "plane of scale 1", 1e-4), (WALKS, "ball", 1e-4), (WALKS, "two pixels", 1e-4),
    (JUMPS, "plane of scale 1", 0.02), (JUMPS, "two pixels", 1e-4),
    pytest.param(replace(JUMPS, steps=8_000), "plane of scale 1", 5e-3, marks=FULL),
    pytest.param(replace(JUMPS, steps=8_000), "ball", 0.02, marks=FULL),
    pytest.param(replace(JUMPS, norm=LINF_NORM), "two pixels", 1e-4, marks=FULL),
    pytest.param(replace(JUMPS, steps=8_000, norm=LINF_NORM), "plane of scale 1", 1e-3, marks=FULL),
    # The corners of a cube meet a ball at many nearest points.
    pytest.param(replace(JUMPS, steps=8_000, norm=LINF_NORM), "ball", 0.25, marks=FULL),
]  # fmt: skip


@pytest.mark.parametrize(("attack", "name", "share"), ENDS)
def test_attacks_by_decisions_end_near_the_closed_form(attack, name, share):
    case = next(case for case in CASES if case.name == name)
    x, y = case.x[:3], case.y[:3]
    (outcome,) = engine_of(case.network, x, y).run(attack, [Fraction(1)], seed=0)
    exact = case.distances[attack.norm.name][:3].numpy()
    assert (outcome.distances >= exact * (1 - 1e-5) - 1e-6).all(), outcome.distances / exact
    assert (outcome.distances <= exact * (1 + share) + 1e-6).all(), outcome.distances / exact
    assert outcome.backwards == 0


# The same of attacks within ε, which have no distance of their own: the least ε at which they fool.
NEEDS = [
    (SPSA(steps=1_500, pairs=8, relative_step_size=0.05, norm=L2_NORM), "plane of scale 1", 0.03),
    (SPSA(steps=1_500, pairs=8, relative_step_size=0.05, norm=L1_NORM), "plane of scale 1", 0.1),
    (SPSA(steps=1_500, pairs=8, relative_step_size=0.05, norm=L1_NORM), "ball", 0.03),
    (SPSA(steps=1_500, pairs=8, relative_step_size=0.05, norm=L1_NORM), "two pixels", 1e-4),
    (Square(steps=1_500, norm=LINF_NORM), "two pixels", 1e-4),
    # Its small windows never cover the last row and column, which are half of an image of 4 x 4.
    (Square(steps=1_500, norm=LINF_NORM), "ball", 0.3),
    (SparseRS(steps=300, norm=NORMS["l0-pixels"]), "plane of scale 1", 0.0),
    (SparseRS(steps=300, norm=NORMS["l0-pixels"]), "ball", 0.0),
    (SparseRS(steps=300, norm=NORMS["l0-pixels"]), "two pixels", 0.0),
]


@pytest.mark.parametrize(("attack", "name", "share"), NEEDS)
def test_attacks_by_scores_fool_a_little_above_the_closed_form_and_never_below(attack, name, share):
    case = next(case for case in CASES if case.name == name)
    exact = float(case.distances[attack.norm.name][0])
    below = [Fraction(exact * (1 - 1e-4)).limit_denominator(10**8)] if attack.norm.shrinks else []
    above = Fraction(exact * (1 + share) + 1e-6).limit_denominator(10**8) if below else Fraction(exact)
    outcomes = engine_of(case.network, case.x[:1], case.y[:1]).run(attack, [*below, above], seed=0)
    assert [bool(outcome.fooled[0]) for outcome in outcomes] == [*(False for _ in below), True]


@pytest.mark.parametrize("norm", [L2_NORM, L1_NORM], ids=lambda norm: norm.name)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 5), (1, 2, 7)])
def test_no_query_of_the_square_attack_is_smaller_than_the_ball_on_images_of_one_or_two_lines(norm, shape):
    """There a window is one pixel. A bump that is the opposite of what was there would leave nothing."""
    w = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x, seen = torch.full((3, *shape), 0.5), []

    class Spy(Victim):
        def scores(self, points):
            seen.append(points.clone())
            return super().scores(points)

    network = KnownPlane(w, 100.0)  # never reached
    targets = Targets.of(x, torch.zeros(3, dtype=torch.int64))
    victim = Spy(frozen_copy(network, CPU), CPU, "float32", "plain")
    (outcome,) = Engine(victim, Judge(network, CPU), targets, 4, 3).run(
        Square(steps=60, norm=norm), [Fraction(1, 10)], seed=0
    )
    sizes = torch.cat([norm.size(each - 0.5) for each in seen] + [torch.from_numpy(outcome.size)])
    torch.testing.assert_close(sizes, torch.full_like(sizes, 0.1), rtol=1e-4, atol=0)
    assert len(seen) == 60


def test_spsa_under_l1_goes_on_where_a_pixel_has_no_room_left():
    """The steepest pixel reaches its face long before the plane: its neighbours have to move, too."""
    network = KnownPlane(torch.tensor([3.0, 2.0, 1.0, 0.5]).view(1, 2, 2), 4.9)
    x = torch.full((1, 1, 2, 2), 0.5)  # 3.25; two pixels at their faces make 5.75
    exact = 0.5 + (4.9 - 3.25 - 1.5) / 2
    attack = SPSA(steps=600, pairs=4, relative_step_size=0.05, norm=L1_NORM)
    eps = [Fraction(exact * share).limit_denominator(10**6) for share in (0.999, 1.05)]
    outcomes = engine_of(network, x, torch.zeros(1, dtype=torch.int64)).run(attack, eps, seed=0)
    assert [bool(outcome.fooled[0]) for outcome in outcomes] == [False, True]


@pytest.mark.parametrize("norm", ["l0", "l0-pixels"])
def test_spsa_refuses_to_count_pixels(norm):
    with pytest.raises(ValueError, match=r"spsa knows the norms linf, l2 and l1, not .*; set norm to one of them"):
        SPSA(norm=NORMS[norm])


def test_spsa_estimates_the_gradient_of_a_plane():
    """With every pair the estimate is unbiased: over many pairs it points along the plane's normal."""
    attack = SPSA(steps=2 * 400 + 2, pairs=400, norm=L2(), relative_step_size=1.0)
    x = torch.full((1, 1, 4, 4), 0.5)
    network = Plane(L2(), 10.0)  # never reached: the row takes all its queries
    seen = []

    class Spy(Victim):
        def scores(self, points):
            seen.append(points.clone())
            return super().scores(points)

    targets = Targets(lambda at: x[at], torch.zeros(1, dtype=torch.int64), torch.arange(1))
    victim = Spy(frozen_copy(network, CPU), CPU, "float32", "plain")
    tuple(Engine(victim, Judge(network, CPU), targets, 4, 1).run(attack, [Fraction(1, 10)], seed=0))
    assert len(seen) == 802
    torch.testing.assert_close(seen[1] + seen[2], 2 * x)  # a pair, above and below
    assert ((seen[1] - x).abs() - 0.01).abs().max() < 1e-6
    step = (seen[801] - x).flatten()
    assert float(torch.cosine_similarity(step, network.w.detach(), dim=0)) > 0.97
    assert float(step.norm()) == pytest.approx(0.1, rel=1e-4)


@pytest.mark.parametrize("attack", [SPSA(steps=30, pairs=2), Boundary(steps=40, norm=L2()),
                                    HopSkipJump(steps=50, first_samples=10, norm=L2())], ids=repr)  # fmt: skip
def test_a_row_knows_nothing_of_its_neighbours(network, digits, attack):
    x, y = digits
    with torch.no_grad():
        right = (network(x).argmax(1) == y).nonzero().flatten()[:6]
    x, y = x[right], y[right]
    eps = [Fraction(3, 2) if attack.norm == L2() else Fraction(1, 5)]
    verdicts = []
    for batch in (1, 4, 64):
        engine = engine_of(network, x, y, batch)
        (outcome,) = engine.run(attack, eps, seed=0)
        verdicts.append(outcome.fooled.tolist())
        assert engine.victim.backwards == 0
        assert outcome.forwards <= attack.steps * len(x)
    assert verdicts[0] == verdicts[1] == verdicts[2]


class Dark(nn.Module):
    """Class 1 where an image is dark. Uniform random images are not: they are of class 0."""

    def forward(self, images):
        z = (images.flatten(1).mean(1) - 0.2) * 40
        return torch.stack([z, -z], 1)


@pytest.mark.parametrize("attack", [Boundary(steps=300, norm=L2()), HopSkipJump(steps=300, norm=L2())], ids=repr)
def test_an_image_without_a_start_stops_no_other(attack):
    """No random image is misclassified for the second row; the first goes on to the boundary, 0.4 away."""
    x = torch.stack([torch.full((1, 4, 4), 0.1), torch.full((1, 4, 4), 0.9)])
    (outcome,) = engine_of(Dark(), x, torch.tensor([1, 0])).run(attack, [Fraction("0.6")], seed=0)
    assert outcome.fooled.tolist() == [True, False]
    assert attack.steps < outcome.forwards < 2 * attack.steps


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: SPSA(pairs=0), "pairs"),
        (lambda: SPSA(delta=0.0), "delta"),
        (lambda: SPSA(steps=64, pairs=32), r"at least 65, the queries of one estimate .*give fewer pairs"),
        (lambda: Boundary(inward_step=1.0), "shares"),
        (lambda: HopSkipJump(first_samples=0), "first_samples"),
        (lambda: HopSkipJump(steps=0), "steps"),
    ],
)
def test_impossible_parameters_are_refused(make, reason):
    with pytest.raises(ValueError, match=reason):
        make()


@FULL
def test_spsa_finds_about_what_gradients_find(network, digits):
    x, y = (each[:25] for each in digits)
    with torch.no_grad():
        right = network(x).argmax(1) == y
    x, y = x[right], y[right]
    (by_gradient,) = engine_of(network, x, y).run(PGD(steps=20), [Fraction(1, 10)], seed=0)
    (by_scores,) = engine_of(network, x, y).run(SPSA(steps=1_300), [Fraction(1, 10)], seed=0)
    assert by_scores.fooled.mean() >= by_gradient.fooled.mean() - 0.13


@FULL
@pytest.mark.parametrize(("ours", "theirs"), [(HopSkipJump, "HopSkipJumpAttack"), (Boundary, "BoundaryAttack")])
def test_decision_attacks_come_as_near_as_foolbox(network, digits, ours, theirs):
    """The share that is fooled within the median distance of Foolbox, at no more queries."""
    foolbox = pytest.importorskip("foolbox", reason="of the extra foolbox")
    x, y = (each[:10] for each in digits)
    with torch.no_grad():
        right = network(x).argmax(1) == y
    x, y = x[right], y[right]
    queries = {"n": 0}

    class Counted(nn.Module):
        def forward(self, images):
            queries["n"] += len(images)
            return network(images)

    options = {"steps": 4} if theirs == "HopSkipJumpAttack" else {"steps": 600}
    torch.manual_seed(0)
    np.random.seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = foolbox.PyTorchModel(Counted().eval(), bounds=(0, 1), device=CPU)
        images = getattr(foolbox.attacks, theirs)(**options).run(wrapped, x, foolbox.criteria.Misclassification(y))
    distances = (images - x).flatten(1).norm(dim=1)
    median = float(distances.median())
    budget = math.ceil(queries["n"] / len(x))
    (outcome,) = engine_of(network, x, y).run(ours(steps=budget, norm=L2()), [Fraction(median * 1.01)], seed=0)
    assert outcome.fooled.mean() >= 0.45


BUDGETS = """
[robustness]
data = "digits"
[robustness.matrix]
model = "smallcnn"
attack = ["fgsm", "square", { name = "spsa", pairs = 4 }]
eps = 0.1
queries = [50, 200]
"""


def test_budgets_of_queries_are_an_axis_of_attacks_without_gradients(tmp_path):
    path = tmp_path / "budgets.toml"
    path.write_text(BUDGETS, encoding="utf-8")
    cells = load_suite(str(path)).cells
    assert [(cell.attack.name, dict(cell.attack.params).get("steps")) for cell in cells] == [
        ("fgsm", 1), ("square", 50), ("square", 200), ("spsa", 50), ("spsa", 200)
    ]  # fmt: skip
    path.write_text(BUDGETS.replace("queries = [50, 200]", "").replace('"square"', '{ name = "square", steps = 50 }'))
    assert cells[1].id in {cell.id for cell in load_suite(str(path)).cells}  # the same cell by either spelling
    path.write_text(BUDGETS.replace("[50, 200]", "[0, 200]"), encoding="utf-8")
    with pytest.raises(InputError, match="queries"):
        load_suite(str(path))


@pytest.mark.parametrize("attack", [Square(steps=100), SPSA(steps=300, pairs=4, relative_step_size=0.3)], ids=repr)
def test_an_attack_by_scores_is_as_strong_in_low_precision(network, digits, attack):
    """It compares logits that hardly differ, so it is asked in float32: no verdict and no pass depends on precision."""
    x, y = digits
    with torch.no_grad():
        right = (network(x).argmax(1) == y).nonzero().flatten()[:60]
    targets = Targets(lambda at: x[right][at], y[right], right)
    outcomes = []
    for precision in ("float32", "bf16"):
        victim = Victim(frozen_copy(network, CPU), CPU, precision, "plain")
        outcomes += Engine(victim, Judge(network, CPU), targets, 60).run(attack, [Fraction(1, 20)], seed=0)
    exact, low = outcomes
    assert 0 < exact.fooled.sum() < 60
    assert (low.fooled == exact.fooled).all()
    assert (low.forwards, low.judge_forwards) == (exact.forwards, exact.judge_forwards)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("eps", [0.05, 1.0])
def test_a_query_of_the_square_attack_is_the_best_point_with_one_square_at_plus_or_minus_eps(layout, eps):
    """Algorithm 2, written out: every pixel is as far as ε and the box let it, and one square differs from the best."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(6, 3, 8, 9, generator=generator).contiguous(memory_format=layout)
    y, zero = torch.zeros(6, dtype=torch.long), torch.zeros(6, dtype=torch.long)
    weight = torch.randn(x[0].numel(), 2, generator=generator)
    weight[:, 0] += 3  # nothing is misclassified, so the best point is the one with the highest loss
    asked = []

    def ask(point, loss, *inputs):
        asked.append(point)
        return None, point.flatten(1) @ weight

    def draw(step):
        return KeyedNoise(0, torch.arange(6), zero, step)

    *_, _ = path(Square(steps=60), ask, x, y, torch.full((6, 1, 1, 1), eps), zero, draw, lambda: x.flatten(1) @ weight)
    low, high = (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)
    best, best_margin = asked[0], _margins(asked[0], weight)
    for point in asked:
        assert torch.equal(torch.where((point - low).abs() < (point - high).abs(), low, high), point)
        for row in range(6):
            differs = (point[row] != best[row]).any(0)
            down, across = differs.any(1), differs.any(0)
            inside = differs[down][:, across]  # a pixel that had the sign before does not show
            if inside.numel():
                side = [int(line.nonzero().max() - line.nonzero().min()) + 1 for line in (down, across)]
                assert max(side) <= round(math.sqrt(0.8 * 8 * 9))
        margin = _margins(point, weight)
        best = point.where((margin > best_margin).view(-1, 1, 1, 1), best)
        best_margin = margin.maximum(best_margin)
    assert (best_margin > _margins(asked[0], weight)).all()  # it has come nearer to another class


def _margins(point, weight):
    z = point.flatten(1) @ weight
    return z[:, 1] - z[:, 0]
