"""The fast adaptive boundary attack: projections on the linearised boundary, pulled towards the clean image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.base import Attack, State, at_least_one
from epsbench.attacks.losses import LogitDifference
from epsbench.attacks.norms.base import per_row
from epsbench.attacks.plane import to_plane
from epsbench.attacks.rows import Answer, Rows

if TYPE_CHECKING:
    from torch import Tensor

BIAS, OVERSHOOT, BACKWARD = 0.1, 1.05, 0.9  # α_max, η and β of the paper


@dataclass(frozen=True, kw_only=True)
class FAB(Attack):
    """FAB (Croce and Hein, 2020, algorithm 1): steps onto the nearest of all linearised boundaries.

    It looks for the smallest change, so its points may lie outside the ball; only those inside count. A misclassified
    point is pulled back to the clean image before the next projection (section 2.4). An answer costs a gradient a
    class: `epsbench.attacks.fab_t.FABT` takes one.
    """

    version: ClassVar[int] = 2

    query: ClassVar[str] = "jacobian"

    loss = LogitDifference()

    steps: int = 100
    """How many projections are made at most."""

    restarts: int = 1
    """How often it starts over, at random points at most ε/2 away, on an image that withstood."""

    def __post_init__(self) -> None:
        at_least_one(steps=self.steps, restarts=self.restarts)
        if self.norm.name not in ("linf", "l2"):
            raise ValueError(f"fab knows the norms linf and l2, not {self.norm.name}")

    def radius(self, rows: Rows, state: State) -> Tensor:
        return rows.eps + float("inf")

    def start(self, rows: Rows) -> tuple[Tensor, State]:
        return self._first(rows), {}

    def gradient_at(self, rows: Rows, point: Tensor, logits: Tensor) -> Tensor:
        """A misclassified point is pulled back to the clean image."""
        wrong = logits.argmax(1) != rows.y
        return (rows.x + BACKWARD * (point - rows.x)).where(per_row(wrong), point)

    def step(self, rows: Rows, answer: Answer, state: State) -> tuple[Tensor, State]:
        w, f = self._boundary(answer)  # the boundary is where f + ⟨w, move⟩ = 0 (eq. 4)
        d = to_plane(self.norm, answer.x, w, f)  # eq. 6
        d_clean = to_plane(self.norm, rows.x, w, f + (w * (rows.x - answer.x)).flatten(1).sum(1))
        length, clean_length = self.norm.size(d), self.norm.size(d_clean)
        bias = per_row((length / (length + clean_length).clamp_min(1e-12)).clamp_max(BIAS))  # α, eq. 9
        return (1 - bias) * (answer.x + OVERSHOOT * d) + bias * (rows.x + OVERSHOOT * d_clean), {}

    def _first(self, rows: Rows) -> Tensor:
        near = rows.x + self.norm.start(rows.noise, rows.x, rows.eps / 2)
        return near.where(per_row(rows.attempt > 0), rows.x)

    def _boundary(self, answer: Answer) -> tuple[Tensor, Tensor]:
        """Gradient (N, C, H, W) and value (N,) of z_k − z_y, for the class k whose boundary is nearest (eq. 7)."""
        assert answer.gradient is not None
        values = answer.logits - answer.logits.gather(1, answer.y[:, None])
        flat = answer.gradient.flatten(2)
        steepness = flat.abs().sum(2) if self.norm.name == "linf" else flat.norm(dim=2)  # the dual norm
        distance = values.abs() / steepness.clamp_min(1e-30)
        nearest = distance.scatter(1, answer.y[:, None], float("inf")).argmin(1)
        chosen = nearest.view(-1, 1, 1).expand(-1, 1, flat.shape[2])
        return flat.gather(1, chosen).view_as(answer.x), values.gather(1, nearest[:, None]).squeeze(1)
