"""FMN: steps along the gradient of the margin, in a ball that adapts to where the boundary is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from epsbench.attacks.base import LATER, Polished, State, at_least_one
from epsbench.attacks.euclidean import free, stepped
from epsbench.attacks.losses import Margin
from epsbench.attacks.norms.base import choose_rows, cosine, per_row
from epsbench.attacks.rows import Answer, Rows

if TYPE_CHECKING:
    from torch import Tensor

LAST_GAMMA = 0.001  # the share by which the ball changes at the last step
RISE, STALE = 0.01, 3  # the share by which the margin rises where a step is of use, and how many others are too many
LAST_STEP = 0.01  # the last step's length, as a share of the first one's
LEAST = 1e-5  # the radius of a ball: an image whose logits tie is at the boundary, and a radius of 0 never grows


class _Default(NamedTuple):
    """What suits a norm: how many steps, the first one's length, and the share by which the ball changes then."""

    steps: int = 100
    step_size: float = 1.0
    gamma: float = 0.05


# The paper's, but for fewer steps where there is a polish, which finds the nearest point of the boundary they lead to.
DEFAULTS = {"linf": _Default(20, 10.0), "l2": _Default(25, 4.0, 0.5), "l1": _Default(32, 4.0, 0.5)}


@dataclass(frozen=True, kw_only=True)
class FMN(Polished):
    """Fast minimum-norm attack (Pintor et al., 2021, algorithm 1), under L∞, L2, L1 and L0.

    Steps have a Euclidean length under every norm; pixels at a face of the box take no step beyond it, and the
    projection (line 12) is on ball and box together. The ball grows and shrinks as in DDN, and before the first success
    it reaches a little beyond the linearised boundary: the paper's, which ends on it, may never cross. Where the margin
    stops rising before that, the point jumps onto the ball's surface and climbs again: the margin may have a maximum
    below 0 inside, where the search would stay. The authors' code has all points there under L2, and so steps over
    classes that are small. Under L0 the ball begins with one feature.
    """

    version: ClassVar[int] = 5

    goal: ClassVar[str] = "smallest"  # type: ignore[misc]

    loss = Margin()

    steps: int | None = None
    """How many gradients are taken; None: 20 under L∞, 25 under L2, 32 under L1, 100 under L0."""

    polish: int = field(default=8, metadata=LATER, repr=False)
    """As `Polished.polish`."""

    step_size: float | None = None
    """The first step's Euclidean length; None: 10 under L∞, 4 under L2 and L1, 1 under L0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one(steps=self.budget())
        if self.step_size is not None and not self.step_size > 0:
            raise ValueError(f"step_size must be above 0, not {self.step_size}")
        self.requires_norm("linf", "l2", "l1", "l0", "l0-pixels")

    def budget(self) -> int:
        return self._default.steps if self.steps is None else self.steps

    @property
    def _default(self) -> _Default:
        return DEFAULTS.get(self.norm.name, _Default())

    def start(self, rows: Rows) -> tuple[Tensor, State]:
        none = rows.x.new_zeros(len(rows.x))
        return rows.x, {"radius": none, "nearest": none + float("inf"), "highest": none - float("inf"), "stale": none}

    def step(self, rows: Rows, answer: Answer, state: State) -> tuple[Tensor, State]:
        assert answer.gradient is not None
        # Under L1 the ball is shared out by how far pixels go. One that was moved to its face goes on, to keep a share.
        gradient = free(rows.x if self.norm.name == "l1" else answer.x, answer.gradient)
        size = self.norm.size(answer.x - rows.x)
        nearest = state["nearest"].minimum(size.masked_fill(~answer.wrong, float("inf")))
        steps, first = self.budget(), self.step_size or self._default.step_size
        gamma = cosine(rows.step, steps, self._default.gamma, LAST_GAMMA)
        smaller, larger = self._changed(state["radius"], gamma)
        if not self.norm.shrinks:
            unreached = larger
        else:  # line 5: the distance of the linearised boundary
            distance = answer.loss.abs() / self.norm.dual(gradient).clamp_min(1e-12)
            unreached = larger.maximum((size + distance).clamp_min(LEAST) * (1 + gamma))
        outside = larger.where(nearest.isfinite(), unreached)
        radius = smaller.minimum(nearest).where(answer.wrong, outside)  # lines 6 to 10
        moved = stepped(answer.x, gradient, cosine(rows.step, steps, first, LAST_STEP * first))  # line 11
        rises = answer.loss > state["highest"] + RISE * answer.loss.abs()
        highest = answer.loss.where(rises, state["highest"])
        stale = (state["stale"] + 1).masked_fill(rises, 0.0)
        if self.norm.shrinks:  # where the gradient leads nowhere within the ball, onto its surface
            ends = nearest.isinf() & (stale >= STALE)
            moved = self._onto_the_surface(rows, moved, radius, ends)
            highest, stale = highest.masked_fill(ends, -float("inf")), stale.masked_fill(ends, 0.0)
        new = {"radius": radius, "nearest": nearest, "highest": highest, "stale": stale}
        return rows.project(moved, per_row(radius)), new

    def _onto_the_surface(self, rows: Rows, moved: Tensor, radius: Tensor, which: Tensor) -> Tensor:
        """These rows (N,) of ``moved``, bool, lengthened to the radius (N,) where they are within it."""
        if moved.device.type == "cpu" and not bool(which.any()):
            return moved
        delta = moved - rows.x
        short = per_row(radius / self.norm.size(delta).clamp_min(1e-12)).clamp_min(1.0)
        return choose_rows(which, rows.x + short * delta, moved)

    def _changed(self, radius: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
        """A smaller and a larger ball; under L0 by at least one pixel or feature."""
        smaller, larger = radius * (1 - gamma), radius * (1 + gamma)
        if self.norm.shrinks:
            return smaller, larger
        return (radius - 1).minimum(smaller.floor()).clamp_min(0.0), (radius + 1).maximum(larger.floor())
