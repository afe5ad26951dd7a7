"""What an attack sees: its rows, and the answers to what it asked. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from epsbench.attacks.losses import Loss, wrong_logits
from epsbench.attacks.norms.base import Norm, Region, RowNoise

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """N rows in flight, each an attempt on one image at one ε. Rows never see each other. Read-only."""

    x: Tensor
    """The clean images, (N, C, H, W)."""

    y: Tensor
    """Their labels, (N,)."""

    eps: Tensor
    """The radius of each row's ball, (N, 1, 1, 1), in pixel units. Where the smallest distance is looked for, the
    largest change within the box."""

    attempt: Tensor
    """Which restart, or which target class, (N,); counts from 0."""

    step: Tensor
    """How many answers each row has had, (N,)."""

    target: Tensor
    """The class that targeted losses aim at, (N,); the label where the attack has no target."""

    norm: Norm
    """The norm that bounds the perturbation."""

    region: Region
    """What `epsbench.attacks.norms.base.Norm.region` made of the images, once for all steps. Empty: there is no ball,
    because the smallest distance is looked for."""

    draw: Callable[[], RowNoise]
    """Makes `noise`."""

    clean: Callable[[], Tensor]
    """Gives `logits`."""

    @cached_property
    def noise(self) -> RowNoise:
        """Random numbers keyed by (seed, image, attempt), and after the start by the step as well."""
        return self.draw()

    @cached_property
    def normals(self) -> Tensor:
        """Standard normal numbers (N, K), one for each class: what a random loss needs."""
        return self.noise.normal(self.logits.shape[1])

    @cached_property
    def logits(self) -> Tensor:
        """The model's logits at the clean images, (N, K)."""
        return self.clean()

    def inputs(self, loss: Loss) -> tuple[Tensor, ...]:
        """What a loss needs besides the logits."""
        return tuple(getattr(self, name) for name in loss.inputs)

    def project(self, point: Tensor, radius: Tensor | None = None) -> Tensor:
        """The nearest points to ``point`` (N, C, H, W) of each row's ball and of the box [0, 1]; a new tensor.

        The ball's radius is ε, or ``radius`` (N, 1, 1, 1). Where the smallest distance is looked for, and there is no
        ``radius``, only the box counts.
        """
        if radius is not None:
            return self.norm.into_ball(self.x, point, radius)
        if not self.region:
            return point.clamp(0.0, 1.0)
        return self.norm.within(self.region, point, self.eps)

    def ranked(self, rank: Tensor) -> Tensor:
        """The class (N,) of this rank (N,) among the wrong ones at the clean image; rank 0 is the most likely."""
        return wrong_logits(self.logits, self.y).argsort(1, descending=True).gather(1, rank[:, None]).squeeze(1)


@dataclass(frozen=True)
class Answer:
    """What the model says of the points that were asked."""

    x: Tensor
    """The points, (N, C, H, W): what the attack proposed, projected."""

    y: Tensor
    """The labels, (N,)."""

    logits: Tensor
    """The logits there, (N, K), float32."""

    gradient: Tensor | None
    """The gradient of the attack's loss there, (N, C, H, W), float32; None where the attack asks for logits only.

    For the query ``jacobian`` (N, M, C, H, W): of z_k − z_y, for each class k of `classes`, or for the one (M = 1) that
    the attack chooses by its `epsbench.attacks.asking.Asking.score`.
    """

    objective: Loss
    """The attack's loss."""

    inputs: tuple[Tensor, ...]
    """What the loss needs besides the logits."""

    mean_loss: Tensor | None = None
    """The mean of the loss (N,) over several passes, of a model that is random; None: one pass."""

    classes: Tensor | None = None
    """The wrong classes (N, M) whose gradients a ``jacobian`` has, in rising order, or the chosen one (N, 1); None for
    other queries."""

    @cached_property
    def loss(self) -> Tensor:
        """The loss (N,) there. It rises towards a success."""
        return self.objective(self.logits, *self.inputs) if self.mean_loss is None else self.mean_loss

    @cached_property
    def wrong(self) -> Tensor:
        """Whether the model misclassifies the points, (N,)."""
        return self.logits.argmax(1) != self.y


class Chosen(NamedTuple):
    """One class of each row."""

    score: Tensor
    """Its score, (N, 1)."""

    gradient: Tensor
    """Its gradient, (N, 1, C, H, W)."""

    classes: Tensor
    """Its number, (N, 1)."""


def likeliest_others(logits: Tensor, y: Tensor, count: int) -> Tensor:
    """The ``count`` classes but ``y`` with the highest logits, in rising order of their numbers: (N, count)."""
    return wrong_logits(logits, y).topk(count, 1).indices.sort(1).values


def least(score: Tensor, gradients: Tensor, classes: Tensor, before: Chosen | None = None) -> Chosen:
    """The class of the least score (N, M) with its gradient, of ``gradients`` (N, M, C, H, W) and ``classes`` (N, M).

    Or that of ``before``, where its score is no larger.
    """
    at = score.argmin(1, keepdim=True)
    place = at.view(-1, 1, 1, 1, 1).expand(-1, 1, *gradients.shape[2:])
    new = Chosen(score.gather(1, at), gradients.gather(1, place), classes.gather(1, at))
    if before is None:
        return new
    less = new.score < before.score
    return Chosen(
        new.score.where(less, before.score),
        new.gradient.where(less.view(-1, 1, 1, 1, 1), before.gradient),
        new.classes.where(less, before.classes),
    )
