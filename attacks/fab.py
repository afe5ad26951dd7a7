"""The fast adaptive boundary attack: projections on the linearised boundary, pulled towards the clean image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.base import LATER, Polished, State, at_least_one, require_goal
from epsbench.attacks.losses import LogitDifference
from epsbench.attacks.norms.base import Norm, choose_rows, per_row
from epsbench.attacks.rows import Answer, Rows

if TYPE_CHECKING:
    from torch import Tensor

BIAS, OVERSHOOT, BACKWARD = 0.1, 1.05, 0.9  # α_max, η and β of the paper
LEAST = 1e-5  # how far beyond the boundary a point on it goes, where the logits tie: no way would be none for ever


@dataclass(frozen=True, kw_only=True)
class FAB(Polished):
    """FAB (Croce and Hein, 2020, algorithm 1): steps onto the nearest of all linearised boundaries.

    It looks for the smallest change, so its points may lie outside the ball; only those inside count. A misclassified
    point is pulled back to the clean image before the next projection (section 2.4). An answer costs a gradient a
    class: `epsbench.attacks.fab_t.FABT` takes one.
    """

    version: ClassVar[int] = 3

    query: ClassVar[str] = "jacobian"

    loss = LogitDifference()

    steps: int = 100
    """How many projections are made at most."""

    restarts: int = 1
    """How often it starts over, at random points at most ε/2 away, on an image that withstood."""

    goal: str = field(default="fool", metadata=LATER, repr=False)
    """``smallest``: the distances themselves are recorded, and answer every ε."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one(steps=self.steps, restarts=self.restarts)
        require_goal(self.goal)
        if self.goal == "smallest" and self.restarts > 1:
            raise ValueError("restarts begin within ε/2, and there is no ε where the smallest distance is looked for")
        self.requires_norm("linf", "l2", "l1")

    def radius(self, rows: Rows, state: State) -> Tensor:
        return rows.eps + float("inf")

    def start(self, rows: Rows) -> tuple[Tensor, State]:
        return self._first(rows), {}

    def gradient_at(self, rows: Rows, point: Tensor, logits: Tensor) -> Tensor:
        """A misclassified point is pulled back to the clean image."""
        wrong = logits.argmax(1) != rows.y
        return choose_rows(wrong, rows.x + BACKWARD * (point - rows.x), point)

    def score(self, values: Tensor, gradients: Tensor) -> Tensor:
        return distances(self.norm, values, gradients)  # eq. 7

    def step(self, rows: Rows, answer: Answer, state: State) -> tuple[Tensor, State]:
        w, f = self._boundary(answer)  # the boundary is where f + ⟨w, move⟩ = 0 (eq. 4)
        f = f.where((f != 0) | answer.wrong, -LEAST * self.norm.dual(w))
        d = self.norm.to_plane(answer.x, w, f)  # eq. 6
        d_clean = self.norm.to_plane(rows.x, w, f + (w * (rows.x - answer.x)).flatten(1).sum(1))
        length, clean_length = self.norm.size(d), self.norm.size(d_clean)
        bias = per_row((length / (length + clean_length).clamp_min(1e-12)).clamp_max(BIAS))  # α, eq. 9
        return (1 - bias) * (answer.x + OVERSHOOT * d) + bias * (rows.x + OVERSHOOT * d_clean), {}

    def _first(self, rows: Rows) -> Tensor:
        near = rows.x + self.norm.start(rows.noise, rows.x, rows.eps / 2)
        return near.where(per_row(rows.attempt > 0), rows.x)

    def _boundary(self, answer: Answer) -> tuple[Tensor, Tensor]:
        return nearest_boundary(answer)


def distances(norm: Norm, values: Tensor, gradients: Tensor) -> Tensor:
    """How far the linearised boundaries of classes are without the box, (N, M), by z_k − z_y (N, M) and the gradients
    (N, M, C, H, W).
    """
    return values.abs() / norm.dual(gradients.flatten(0, 1)).view_as(values).clamp_min(1e-30)


def nearest_boundary(answer: Answer) -> tuple[Tensor, Tensor]:
    """Gradient (N, C, H, W) and value (N,) of z_k − z_y, for the class k that a ``jacobian`` chose."""
    assert answer.gradient is not None
    assert answer.classes is not None
    value = answer.logits.gather(1, answer.classes) - answer.logits.gather(1, answer.y[:, None])
    return answer.gradient.squeeze(1), value.squeeze(1)
