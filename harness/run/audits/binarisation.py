"""The binarisation test: does an attack find an adversarial example that is known to exist?

Zimmermann et al. (2022, "Increasing confidence in adversarial robustness evaluations", section 4). Around each image
the model's last layer is replaced by a linear readout of its features with two classes. The image and random points
inside its ball belong to the first, and one random point on the surface of the ball to the second. So an example within
ε exists by construction. An attack that misses it, by the gradients of these very features, says little about the model
where it finds nothing either.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor, nn

from epsbench.attacks.apgd import APGD
from epsbench.attacks.base import Attack
from epsbench.attacks.losses import LogitDifference, Loss, Margin
from epsbench.attacks.norms.base import Norm
from epsbench.attacks.plain import path
from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.attack.gradient import loss_gradient
from epsbench.harness.run.attack.schedule import in_ball
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.audits.points import some_of

IMAGES, FEWEST = 32, 16  # images around which a classifier is built; with fewer there is no finding
# The test begins with so many of them, and ends there where the attack finds so many. An attack that finds 40 % of all
# examples finds so many of the first with a probability of 1 % in either case, and one that finds 10 % once in 100,000.
SCREENS = ((5, 5), (8, 7))
AT_A_TIME = 64  # images in a pass
INNER, WITHIN = 48, 0.95  # points of the first class, and how far they reach, as a share of ε
FEW_INNER = 16  # points with which the test begins
CLOSE = 0.9  # where the boundary lies between the farthest inner point and the constructed example
AT_LEAST, MOST = 10, 200  # answers: an attack of fewer is weak by design, and one of more is cut short
# The share of constructed examples that a working attack finds. On honest models of tests/run/audits PGD of ten steps
# finds 53 % and more, at most ε all; where gradients are masked, attacks find none or nearly none.
FOUND = 0.4
STRONG, HARDLY = 30, 0.1  # steps of an attack to compare with; a share that is next to none
WIDEST = 16_384  # features; a wider layer would take too much memory
CLEAN_MARGIN = 2.0  # of the constructed classifier at the image: it does not saturate a cross-entropy
RIDGE = 1e-3  # of the features' variance


class NotApplicableError(Exception):
    """Why the test cannot be made."""


@dataclass(frozen=True)
class Constructed:
    """A classifier of two classes for each of N images, with an example of the second class in each ball."""

    network: nn.Module
    layer: nn.Linear
    x: Tensor
    """The images, (N, C, H, W)."""
    weight: Tensor
    """The readouts, (N, features)."""
    bias: Tensor
    """(N,)."""

    def logits(self, x: Tensor) -> Tensor:
        """Logits (N, 2) of images in the order of `x`."""
        score = (features_of(self.network, self.layer, x) * self.weight).sum(1) + self.bias
        return torch.stack([-score, score], 1) / 2

    def finds(self, x: Tensor, norm: Norm, eps: float) -> Tensor:
        """Which of these images (N, C, H, W) are examples: of the second class, and within ε."""
        size = norm.size(x - self.x)
        with torch.no_grad():
            return (self.logits(x)[:, 1] > 0) & in_ball(size, torch.full_like(size, eps))


def binarisation(
    network: nn.Module, attack: Attack, targets: Targets, eps: float, evidence: dict[str, Any]
) -> Iterator[Finding]:
    """Test an attack on the features of a network; ``evidence`` gets the counts, or why there are none."""
    try:
        parts = adapted(attack)
        at = some_of(len(targets), IMAGES, targets.labels.device)
        if len(at) < FEWEST:
            raise NotApplicableError(f"there are fewer than {FEWEST} images")
        # Of many images: where outputs agree by chance, one differs.
        layer = readout(network, targets.pixels(at[:FEWEST]))
        for screened, enough in SCREENS:
            first = at[:screened]
            constructed, keep = construct(network, layer, targets, first, attack.norm, eps, FEW_INNER)
            if len(keep) >= enough:
                reached, answers = _reached(constructed, parts, targets.subset(first[keep]), eps, enough)
                if reached >= enough:
                    evidence |= {"images": len(keep), "found": reached, "answers": answers}
                    return
        constructed, keep = construct(network, layer, targets, at, attack.norm, eps)
        if len(keep) < FEWEST:
            raise NotApplicableError(
                "the features of a constructed example do not stand apart from those around the image"
            )
    except NotApplicableError as reason:
        evidence["skipped"] = str(reason)
        return
    targets = targets.subset(at[keep])
    n, (reached, answers) = len(targets), _reached(constructed, parts, targets, eps)
    evidence |= {"images": n, "found": reached, "answers": answers}
    if reached >= FOUND * n:
        return
    by_chance = evidence["found_by_chance"] = _by_chance(constructed, targets, attack.norm, eps, answers)
    strong, _ = _reached(constructed, (APGD(norm=attack.norm, loss=Margin(), steps=STRONG),), targets, eps)
    evidence["found_by_apgd"] = strong
    # An attack that is merely weak finds some, where a stronger one finds most.
    if strong < FOUND * n or reached <= min(by_chance, HARDLY * n):
        fact = (
            f"in {n} balls with an adversarial example by construction, the attack finds {reached}, {STRONG} steps of "
            f"APGD {strong}, and random points {by_chance}"
        )
        yield finding("attack-misses-constructed-example", fact, **evidence, eps=eps)


def _reached(
    constructed: Constructed, parts: tuple[Attack, ...], targets: Targets, eps: float, enough: int = IMAGES
) -> tuple[int, int]:
    """How many of the examples some attacks find, one after the other, and in how many answers; at ``enough`` they
    stop."""
    reached, answers = torch.zeros_like(targets.labels, dtype=torch.bool), 0
    for number, part in enumerate(parts, 1):
        for attempt in range(part.attempts(2)):
            for point in _points(constructed, part, targets, eps, attempt, number):
                if answers >= MOST * number or int(reached.sum()) >= min(enough, len(reached)):
                    break
                reached |= constructed.finds(point, part.norm, eps)
                answers += 1
    return int(reached.sum()), answers


def adapted(attack: Attack) -> tuple[Attack, ...]:
    """The attack, or the parts of an ensemble that follow gradients, for two classes. Raises `NotApplicableError`."""
    parts = [part for _, part in attack.members(2)] or [attack]
    parts = [part for part in parts if part.query in ("gradient", "jacobian")]
    if not attack.norm.shrinks:
        raise NotApplicableError(f"its norm {attack.norm.name} counts, and the features change little with one pixel")
    if not parts:
        raise NotApplicableError("the attack takes no gradient that the engine computes")
    if sum(min(part.budget(), MOST) * part.attempts(2) for part in parts) < AT_LEAST:
        raise NotApplicableError(f"the attack has fewer than {AT_LEAST} answers")
    return tuple(map(_for_two_classes, parts))


def _for_two_classes(part: Attack) -> Attack:
    changes: dict[str, Any] = {}
    if isinstance(getattr(part, "target", None), int):
        changes["target"] = 1
    if part.loss.classes > 2:
        changes["loss"] = LogitDifference() if "target" in part.loss.inputs else Margin()
    if unknown := set(changes) - {each.name for each in fields(part)}:
        raise NotApplicableError(f"its {' and '.join(sorted(unknown))} cannot be set, and needs more than two classes")
    return replace(part, **changes) if changes else part


def readout(network: nn.Module, x: Tensor) -> nn.Linear:
    """The linear layer whose output is the network's. Raises `NotApplicableError` where there is no such one."""
    seen: list[tuple[nn.Linear, Tensor]] = []

    def look(layer: nn.Linear, inputs: tuple[Any, ...], output: Tensor) -> None:
        seen.append((layer, output))

    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    handles = [layer.register_forward_hook(look) for layer in layers]
    try:
        with torch.no_grad():
            logits = network(x)
    finally:
        for handle in handles:
            handle.remove()
    last = [layer for layer, output in seen if output.shape == logits.shape and torch.equal(output, logits)]
    if len(last) != 1 or sum(layer is last[0] for layer, _ in seen) != 1:
        raise NotApplicableError("the network's output is not that of one linear layer")
    if last[0].in_features > WIDEST:
        raise NotApplicableError(f"its last layer has more than {WIDEST:,} features")
    return last[0]


def features_of(network: nn.Module, layer: nn.Linear, x: Tensor) -> Tensor:
    """What goes into the last layer for images (N, C, H, W): (N, features), differentiable."""
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        network(x)
    finally:
        handle.remove()
    return seen[0].flatten(1).float()


def construct(
    network: nn.Module, layer: nn.Linear, targets: Targets, at: Tensor, norm: Norm, eps: float, points: int = INNER
) -> tuple[Constructed, Tensor]:
    """The classifiers around the targets at these positions, and for which of them (N,) one could be built.

    They read what goes into ``layer``, the network's last one (`readout`), at so many ``points`` of the first class.

    The readout is that of a linear discriminant: along the features' difference, less what varies inside the ball.
    """
    x = targets.pixels(at)
    n, radius = len(x), x.new_full((len(x), 1, 1, 1), eps)
    noise = targets.noise(0, at, torch.zeros_like(at))
    example = norm.into_ball(x, x + radius * norm.direction(noise.normal(*x.shape[1:])), radius)
    with torch.no_grad():
        near = (norm.into_ball(x, x + norm.start(noise, x, WITHIN * radius), WITHIN * radius) for _ in range(points))
        every, inner = chain([x], near), []
        while some := list(islice(every, max(1, AT_A_TIME // n))):
            inner += features_of(network, layer, torch.cat(some)).split(n)
        known, constructed = torch.stack(inner, 1).double(), features_of(network, layer, example).double()
    mean = known.mean(1)
    spread, gap = known - mean[:, None], constructed - mean
    ridge = RIDGE * (spread.square().mean((1, 2)) + gap.square().mean(1)).clamp_min(1e-30) * known.shape[1]
    # (Σ + ridge)⁻¹ gap by Woodbury's identity: there are fewer points than features.
    inside = spread @ spread.mT + ridge[:, None, None] * torch.eye(known.shape[1], device=x.device, dtype=known.dtype)
    weight = gap - (spread.mT @ torch.linalg.solve(inside, spread @ gap[:, :, None])).squeeze(2)
    scores, best = (known * weight[:, None]).sum(2), (constructed * weight).sum(1)
    threshold = scores.amax(1) + CLOSE * (best - scores.amax(1))
    margin = threshold - scores[:, 0]  # of the clean image
    apart = (best - scores.amax(1) > 1e-6 * best.abs()) & (margin > 0) & (gap.abs().amax(1) > 0)
    keep = apart.nonzero().flatten()
    scale = CLEAN_MARGIN / margin[keep]
    return Constructed(
        network, layer, x[keep], (weight[keep] * scale[:, None]).float(), (-threshold[keep] * scale).float()
    ), keep  # fmt: skip


def _points(
    constructed: Constructed, attack: Attack, targets: Targets, eps: float, attempt: int, number: int
) -> Iterator[Tensor]:
    """The points that an attempt of a part asks about, and its last one."""
    x, y = constructed.x, torch.zeros_like(targets.labels)
    at = torch.arange(len(x), device=x.device)
    again = torch.full_like(at, attempt)
    radius = attack.norm.largest(x.shape[1:]) if attack.goal == "smallest" else eps

    def clean() -> Tensor:
        with torch.no_grad():
            return constructed.logits(x)

    return path(
        attack, partial(_answer, constructed, attack.query), x, y, x.new_full((len(x), 1, 1, 1), radius), again,
        lambda step: targets.noise(number, at, again, step), clean,
    )  # fmt: skip


def _answer(
    constructed: Constructed, query: str, x: Tensor, loss: Loss, *inputs: Tensor
) -> tuple[Tensor | None, Tensor]:
    """What the plain loop asks."""
    if query == "logits":
        with torch.no_grad():
            return None, constructed.logits(x)
    return loss_gradient(constructed.logits, x, loss, inputs)


def _by_chance(constructed: Constructed, targets: Targets, norm: Norm, eps: float, answers: int) -> int:
    """For how many images as many random points find an example."""
    x, at = constructed.x, torch.arange(len(constructed.x), device=constructed.x.device)
    noise = targets.noise(1, at, torch.full_like(at, MOST))
    radius = x.new_full((len(x), 1, 1, 1), eps)
    reached = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for _ in range(min(answers, MOST)):
        point = norm.into_ball(x, x + radius * norm.direction(noise.normal(*x.shape[1:])), radius)
        reached |= constructed.finds(point, norm, eps)
    return int(reached.sum())
