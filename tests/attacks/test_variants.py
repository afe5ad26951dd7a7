"""Variants of gradient attacks: targets, starts, step rules, and what makes images transfer."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import pytest
import torch
from known_distances import Plane
from torch import nn
from torch.nn import functional as F

from epsbench.attacks import APGD, APGDT, FGSM, MIFGSM, PGD, Attack, Jitter, Square
from epsbench.attacks.apgd_search import APGDSearch
from epsbench.attacks.jitter import JitterLoss
from epsbench.attacks.losses import DLR, KLToClean, LogitDifference, Loss, Margin, TargetedCrossEntropy, TargetedDLR
from epsbench.attacks.norms import NORMS
from epsbench.attacks.norms.l2 import L2
from epsbench.attacks.norms.linf import LInf
from epsbench.attacks.plain import path
from epsbench.attacks.transforms import _placement, resized_and_padded, smoothed
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.gradient import loss_gradient
from epsbench.harness.run.attack.judge import Judge, frozen_copy
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.noise import KeyedNoise

TARGETED = TargetedCrossEntropy()
CPU = torch.device("cpu")


def engine_of(network, x, y, batch=64, **options) -> Engine:
    targets = Targets.of(x, y)
    victim = Victim(frozen_copy(network, CPU), CPU, "float32", "plain")
    return Engine(victim, Judge(network, CPU), targets, batch, 999, **options)


def points(network, attack: Attack, x, y, eps: float) -> list[torch.Tensor]:
    """The points of the plain loop, seed 0."""
    everyone, zero = torch.arange(len(x)), torch.zeros(len(x), dtype=torch.int64)
    with torch.no_grad():
        clean = network(x)

    def ask(point, loss, *inputs):
        return loss_gradient(network, point, loss, inputs)

    radius = torch.full((len(x), 1, 1, 1), eps)
    draw = lambda step: KeyedNoise(0, everyone, zero, step)  # noqa: E731
    return list(path(attack, ask, x, y, radius, zero, draw, lambda: clean))


def test_a_target_takes_the_targeted_form_of_the_loss():
    assert PGD(target=3).loss == TargetedCrossEntropy() == FGSM(target="random").loss
    assert APGD(target=3, loss=DLR()).loss == TargetedDLR()
    assert Square(target=3).loss == LogitDifference() == PGD(loss=Margin(), target=0).loss
    assert APGDSearch(target=3).loss == TargetedCrossEntropy()
    assert replace(PGD(target=3), norm=L2()).loss == TargetedCrossEntropy()
    assert PGD().loss != PGD(target=3).loss


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: PGD(target="least"), "least-likely"),
        (lambda: PGD(target=-1), "counts from 0"),
        (lambda: PGD(target=10).check(10), "classes 0 to 9"),
        (lambda: Square(target=2).check(2), "classes 0 to 1"),
        (lambda: APGDT(target=1), "one after the other"),
        (lambda: APGDSearch(loss=LogitDifference()), "set target, or use apgd-t-search"),
        (lambda: APGDSearch(target=10).check(10), "classes 0 to 9"),
        (lambda: PGD(loss=KLToClean(), random_start=True, target=1), "no targeted form"),
        (lambda: PGD(sphere_start=True), "random_start"),
        (lambda: PGD(step_rule="fast"), "constant, linear"),
        (lambda: PGD(step_size=Fraction(0)), "step_size"),
        (lambda: PGD(samples=0), "samples"),
        (lambda: MIFGSM(di=1.5), "from 0 to 1"),
        (lambda: MIFGSM(ti=4), "odd"),
        (lambda: MIFGSM(si=0), "at least 1"),
        (lambda: MIFGSM(vmi=-1), "neighbours"),
        (lambda: Jitter(scale=0.0), "scale"),
    ],
)
def test_impossible_variants_are_refused(make, reason):
    with pytest.raises(ValueError, match=reason):
        make()


@dataclass(frozen=True, kw_only=True)
class Second(PGD):
    """Names the method that chooses classes as it was named before it had a parameter beside it."""

    loss: Loss = TARGETED

    def target(self, rows):
        return rows.ranked(rows.attempt)


def test_a_method_called_target_still_chooses_the_classes(network, digits):
    x, y = (each[:20] for each in digits)
    with torch.no_grad():
        second = network(x).topk(2).indices[:, 1]
    moved = points(network, Second(steps=1), x, y, 0.1)[-1]
    gradient, _ = loss_gradient(network, x, TargetedCrossEntropy(), (second,))
    torch.testing.assert_close(moved, (x + 0.25 * 0.1 * gradient.sign()).clamp(0, 1))


def test_targets_are_wrong_classes(network, digits):
    x, y = (each[:80] for each in digits)
    with torch.no_grad():
        clean = network(x)

    def aims(target, attempt=0):
        seen = []

        @dataclass(frozen=True, kw_only=True)
        class Spy(PGD):
            def aim(self, rows):
                seen.append(super().aim(rows))
                return seen[-1]

        tuple(engine_of(network, x, y).run(Spy(target=target, steps=1), [Fraction(1, 100)], seed=attempt))
        return torch.cat(seen)

    least = aims("least-likely")
    assert (least != y).all()
    torch.testing.assert_close(least, clean.scatter(1, y[:, None], math.inf).argmin(1))
    random = aims("random")
    assert (random != y).all()
    assert len(random.unique()) == 10
    assert (random != aims("random", 1)).any()
    fixed = aims(3)
    assert (fixed[y != 3] == 3).all()
    torch.testing.assert_close(fixed[y == 3], clean.scatter(1, y[:, None], -math.inf).argmax(1)[y == 3])


def test_a_random_target_is_independent_of_the_random_start(network, digits):
    x, y = (each[:400] for each in digits)
    first = points(network, PGD(target="random", random_start=True, steps=1), x, y, 0.2)[0]
    offset = (first - x)[:, 0, 0, 0]  # the first number that the start draws
    seen = KeyedNoise(0, torch.arange(400), torch.zeros(400, dtype=torch.int64))
    target = [seen.uniform(1) for _ in range(9)][-1].flatten()
    moved = offset != 0
    assert abs(torch.corrcoef(torch.stack([offset[moved], target[moved]]))[0, 1]) < 0.2


def test_a_target_is_reached_more_often_than_without(network, digits):
    x, y = (each[:100] for each in digits)
    with torch.no_grad():
        target = network(x).scatter(1, y[:, None], math.inf).argmin(1)
    hits = []
    for attack in (PGD(steps=40), PGD(steps=40, target="least-likely"), APGD(steps=40, target="least-likely")):
        with torch.no_grad():
            hits.append(int((network(points(network, attack, x, y, 0.5)[-1]).argmax(1) == target).sum()))
    assert hits[0] < 30 < 60 < min(hits[1:])


def test_a_sphere_start_lies_on_the_sphere(network, digits):
    x, y = (each[:20] * 0.2 + 0.4 if each.is_floating_point() else each[:20] for each in digits)
    for norm in (LInf(), L2()):
        attack = PGD(random_start=True, sphere_start=True, norm=norm, steps=1)
        first = points(network, attack, x, y, 0.1)[0]
        torch.testing.assert_close(norm.size(first - x), torch.full((20,), 0.1), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("rule", "factor"),
    [
        ("constant", lambda t: 1.0),
        ("linear", lambda t: 1 - t / 4),
        ("cosine", lambda t: (1 + math.cos(math.pi * t / 4)) / 2),
        ("sqrt", lambda t: 1 / math.sqrt(t + 1)),
    ],
)
def test_step_rules_are_their_formulas(rule, factor):
    attack = PGD(steps=4, step_rule=rule, step_size=Fraction(1, 50))
    eps = torch.full((1, 1, 1, 1), 0.3)
    sizes = [float(attack.size(eps, torch.full((1, 1, 1, 1), t))) for t in range(4)]
    assert sizes == pytest.approx([factor(t) / 50 for t in range(4)])


class Linear(nn.Module):
    """Logits that are linear in the pixels: the gradient of a logit difference is the same everywhere."""

    def __init__(self, shape) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.w = nn.Parameter(torch.randn(3, math.prod(shape)))

    def forward(self, x):
        return x.flatten(1) @ self.w.T


def test_a_placement_is_torchs_bilinear_resize_between_black_borders():
    x = torch.rand(1, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    for side, place in ((18, 0.0), (19, 0.6), (20, 0.3)):
        share, at = torch.tensor([(side + 0.01) / 20]), torch.tensor([place])
        matrix = _placement(20, share, at, torch.tensor([False]))
        ours = matrix[:, None] @ x @ matrix[:, None].transpose(2, 3)
        first = int(place * (20 - side + 1))
        resized = F.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)
        rest = 20 - side - first
        torch.testing.assert_close(ours, F.pad(resized, (first, rest, first, rest)), atol=1e-6, rtol=0)


def test_images_that_are_not_resized_stay_as_they_are():
    x = torch.rand(50, 1, 8, 8)
    noise = KeyedNoise(0, torch.arange(50), torch.zeros(50, dtype=torch.int64))
    changed = (resized_and_padded(x, noise, 0.5, 0.5) != x).flatten(1).any(1)
    assert 12 < int(changed.sum()) < 38
    noise = KeyedNoise(0, torch.arange(50), torch.zeros(50, dtype=torch.int64))
    torch.testing.assert_close(resized_and_padded(x, noise, 0.0, 0.5), x, atol=0, rtol=0)


def test_a_smoothed_gradient_is_the_published_kernel():
    line = torch.tensor([math.exp(-(((i - 7) * 3 / 7) ** 2) / 2) for i in range(15)])
    kernel = torch.outer(line, line)
    impulse = torch.zeros(1, 2, 31, 31)
    impulse[0, 1, 15, 15] = 1
    expected = torch.zeros_like(impulse)
    expected[0, 1, 8:23, 8:23] = kernel / kernel.sum()
    torch.testing.assert_close(smoothed(impulse, 15), expected)


@pytest.mark.parametrize("options", [{"di": 1.0}, {"si": 3}, {"vmi": 2}, {"di": 0.5, "si": 2, "vmi": 2, "ti": 3}])
def test_the_gradient_of_a_view_is_that_of_the_whole_function(options):
    """Against autograd through view and network together, for one step."""
    shape = (1, 8, 8)
    network, x = Linear(shape), torch.rand(6, *shape)
    y = network(x).argmax(1)
    attack = MIFGSM(steps=1, **options)
    everyone, zero = torch.arange(6), torch.zeros(6, dtype=torch.int64)
    from epsbench.attacks.rows import Rows
    from epsbench.attacks.views import gradient_of_views

    eps = torch.full((6, 1, 1, 1), 0.1)

    def rows() -> Rows:
        return Rows(x, y, eps, zero, zero, y, attack.norm, attack.norm.region(x, eps),
                    lambda: KeyedNoise(0, everyone, zero, zero), lambda: network(x))  # fmt: skip

    ours, _ = gradient_of_views(attack, rows(), x, lambda at: loss_gradient(network, at, attack.loss, (y,)))
    leaf, now, number, means = x.clone().requires_grad_(True), rows(), 0, []
    for size in attack.views():
        losses = []
        for _ in range(size):
            losses.append(F.cross_entropy(network(attack.view(now, leaf, number)), y, reduction="sum"))
            number += 1
        means.append(torch.autograd.grad(sum(losses) / size, leaf)[0])
    torch.testing.assert_close(ours, means[0] if len(means) == 1 else torch.stack(means, 1))


def test_nesterov_asks_ahead_and_ends_where_it_stands(network, digits):
    """Written out for one image, as in the published code with the mean of |∇| in place of its sum."""
    x, y = digits[0][:4], digits[1][:4]
    eps, steps, alpha = 0.2, 4, 0.02
    ours = points(network, MIFGSM(steps=steps, ni=True, relative_step_size=alpha / eps), x, y, eps)
    here, momentum = x.clone(), torch.zeros_like(x)
    low, high = (x - eps).clamp_min(0), (x + eps).clamp_max(1)
    for step in range(steps):
        asked = (here + alpha * momentum).clamp(low, high) if step else here
        torch.testing.assert_close(ours[step], asked, atol=2e-6, rtol=0)
        gradient, _ = loss_gradient(network, asked, PGD().loss, (y,))
        momentum = momentum + gradient / gradient.abs().mean((1, 2, 3), keepdim=True)
        here = (here + alpha * momentum.sign()).clamp(low, high)
    torch.testing.assert_close(ours[-1], here, atol=2e-6, rtol=0)


def test_jitter_is_its_formula():
    z, y = torch.tensor([[4.0, -2.0, 1.0]]), torch.tensor([0])
    normals = torch.tensor([[0.3, -0.2, 1.0]])
    scaled = [math.exp(10 * v / 4) for v in (4, -2, 1)]
    outputs = [v / sum(scaled) + 0.1 * n for v, n in zip(scaled, normals[0].tolist(), strict=True)]
    expected = sum((o - t) ** 2 for o, t in zip(outputs, (1, 0, 0), strict=True))
    assert float(JitterLoss(10.0, 0.1)(z, y, normals)) == pytest.approx(expected, rel=1e-5)


VARIANTS = [
    PGD(steps=4, target="random", random_start=True, restarts=2),
    PGD(steps=4, step_rule="cosine", samples=2),
    APGD(steps=4, target="least-likely"),
    Square(steps=9, target=3),
    MIFGSM(steps=3, di=0.7, ti=3),
    MIFGSM(steps=3, ni=True, si=2),
    MIFGSM(steps=3, vmi=2, ni=True, di=0.5),
    Jitter(steps=4),
]


@pytest.mark.parametrize("attack", VARIANTS, ids=range(len(VARIANTS)))
def test_the_engine_is_the_plain_loop_at_every_batch_size(network, digits, attack):
    x, y = digits
    with torch.no_grad():
        right = (network(x).argmax(1) == y).nonzero().flatten()[:30]
    x, y, eps = x[right], y[right], [Fraction(1, 10)]
    seen = []
    for batch in (1, 7, 64):
        engine = engine_of(network, x, y, batch, white_box=False)
        (outcome,) = engine.run(
            replace(attack, **({"restarts": 1} if hasattr(attack, "restarts") else {})), eps, seed=0
        )
        seen.append(outcome.images)
        assert engine.victim.backwards == attack.gradients(10) // getattr(attack, "restarts", 1) * len(x)
    if attack.query != "logits":
        torch.testing.assert_close(seen[0], points(network, attack, x, y, 0.1)[-1], atol=1e-5, rtol=0)
    torch.testing.assert_close(seen[0], seen[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(seen[0], seen[2], atol=1e-5, rtol=0)


class Mean(nn.Module):
    """A network for grey images, on the mean of three channels."""

    def __init__(self, network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x.mean(1, keepdim=True))


PEERS = {
    "MIFGSM": (MIFGSM(steps=10), {"decay": 1.0}),
    "NIFGSM": (MIFGSM(steps=10, ni=True), {"decay": 1.0}),
    "SINIFGSM": (MIFGSM(steps=10, ni=True, si=5), {"decay": 1.0, "m": 5}),
    "VMIFGSM": (MIFGSM(steps=10, vmi=5), {"decay": 1.0, "N": 5, "beta": 1.5}),
    "DIFGSM": (MIFGSM(steps=10, di=0.5), {"decay": 1.0, "resize_rate": 0.9, "diversity_prob": 0.5}),
    "TIFGSM": (MIFGSM(steps=10, ti=3), {"decay": 1.0, "len_kernel": 3, "nsig": 3, "resize_rate": 0.9,
                                        "diversity_prob": 0.0}),
    "Jitter": (Jitter(steps=10, relative_step_size=0.1), {"scale": 10, "std": 0.1}),
}  # fmt: skip


@pytest.mark.parametrize("name", PEERS)
def test_variants_are_as_strong_as_those_of_torchattacks(network, digits, name):
    torchattacks = pytest.importorskip("torchattacks", reason="torchattacks is a test extra")
    ours, options = PEERS[name]
    x, y = (each[:150] for each in digits)
    with torch.no_grad():
        right = network(x).argmax(1) == y
    x, y = x[right], y[right]
    if name == "TIFGSM":  # theirs takes images of three channels alone
        x, network = x.repeat(1, 3, 1, 1), Mean(network).eval()
    torch.manual_seed(0)
    images = getattr(torchattacks, name)(network, eps=0.08, alpha=0.008, steps=10, **options)(x, y)
    with torch.no_grad():
        theirs = float((network(images).argmax(1) != y).float().mean())
    (outcome,) = engine_of(network, x, y, white_box=False).run(ours, [Fraction("0.08")], seed=0)
    assert abs(outcome.fooled.mean() - theirs) <= 0.06
    assert 0.02 < outcome.fooled.mean() < 0.99


@pytest.mark.parametrize("attack", [FGSM, PGD, MIFGSM])
def test_under_l1_and_l0_pixels_at_a_face_do_not_stop_the_others(attack):
    """The two steepest pixels of four are at 1: the change that is needed, 0.2, is that of the third alone."""
    network = Plane(torch.tensor([4.0, 3.0, 2.0, 1.0]).view(1, 2, 2), 9.0)
    x, y = torch.tensor([1.0, 1.0, 0.6, 0.4]).view(1, 1, 2, 2), torch.zeros(1, dtype=torch.int64)  # 8.6
    for norm, eps in (("l1", [Fraction(199, 1000), Fraction(201, 1000)]), ("l0", [Fraction(1)])):
        outcomes = engine_of(network, x, y).run(replace(attack(), norm=NORMS[norm]), eps, seed=0)
        assert [bool(outcome.fooled[0]) for outcome in outcomes] == [False, True][-len(eps) :]


@pytest.mark.parametrize("attack", [PGD(steps=40, relative_step_size=0.1), MIFGSM(steps=40, decay=0.0)])
def test_under_l1_a_pixel_that_reaches_its_face_hands_over_to_the_next(attack):
    network = Plane(torch.tensor([3.0, 2.0, 1.0, 0.5]).view(1, 2, 2), 4.9)
    x, y = torch.full((1, 1, 2, 2), 0.5), torch.zeros(1, dtype=torch.int64)  # 3.25; the steepest pixel makes it 4.75
    exact = 0.5 + (4.9 - 3.25 - 1.5) / 2
    eps = [Fraction(exact * share).limit_denominator(10**6) for share in (0.999, 1.01)]
    outcomes = engine_of(network, x, y).run(replace(attack, norm=NORMS["l1"]), eps, seed=0)
    assert [bool(outcome.fooled[0]) for outcome in outcomes] == [False, True]
