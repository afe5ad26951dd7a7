"""The boundary attack: a random walk along the decision boundary, towards the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.base import State
from epsbench.attacks.decision import Decisions, pick
from epsbench.attacks.norms.base import per_row
from epsbench.attacks.rows import Answer, Rows

if TYPE_CHECKING:
    from torch import Tensor

EVERY = 10  # queries, of which one asks for the step on the sphere alone
SPHERE_WINDOW, STEP_WINDOW = 10, 30  # answers by which a step's size is adapted
FACTOR = 1.5
CLOSE_ENOUGH = 1e-7  # inward steps: a walk that takes smaller ones has converged


@dataclass(frozen=True, kw_only=True)
class Boundary(Decisions):
    """The boundary attack (Brendel et al., 2018, algorithm 1 and figure 2); it walks under L2.

    A candidate moves on the sphere around the image, at right angles to the way to it, and then towards the image.
    Both sizes grow or shrink with the share of candidates that are misclassified (section 2.3): of 10 for the sphere,
    of 30 for the way inwards.
    """

    version: ClassVar[int] = 1

    sphere_step: float = 0.01
    """The first step on the sphere, as a share of the distance."""

    inward_step: float = 0.01
    """The first step towards the image, likewise."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 < self.sphere_step < 1 and 0 < self.inward_step < 1):
            raise ValueError("sphere_step and inward_step are shares of the distance, above 0 and below 1")

    def start(self, rows: Rows) -> tuple[Tensor, State]:
        zero = rows.eps.flatten() * 0
        return self.random_image(rows), {
            "best": rows.x, "started": zero, "sphere": zero + self.sphere_step, "inward": zero + self.inward_step,
            "sphere_hits": zero, "sphere_tries": zero, "hits": zero, "tries": zero,
        }  # fmt: skip

    def step(self, rows: Rows, answer: Answer, state: State) -> tuple[Tensor, State]:
        wrong, started = answer.wrong, state["started"] > 0
        on_sphere = started & (rows.step % EVERY == 0)
        inwards = started & ~on_sphere
        best = pick(wrong & ~on_sphere, answer.x, state["best"])
        new = self._adapted(state, "sphere", on_sphere, wrong, SPHERE_WINDOW, 0.5, 0.2)
        new |= self._adapted(state, "inward", inwards, wrong, STEP_WINDOW, 0.25, 0.1)
        started = started | wrong

        sphere, inward = per_row(new["sphere"]), per_row(new["inward"])
        away = best - rows.x
        distance = per_row(away.flatten(1).norm(dim=1)).clamp_min(1e-12)
        noise = rows.noise.normal(*rows.x.shape[1:])
        noise = noise - per_row((noise * away).flatten(1).sum(1)) / distance**2 * away  # at right angles
        noise = noise / per_row(noise.flatten(1).norm(dim=1)).clamp_min(1e-12)
        moved = (away + sphere * distance * noise) / (1 + sphere**2).sqrt()  # as far from the image as before
        next_on_sphere = per_row((rows.step + 1) % EVERY == 0)
        candidate = rows.x + moved * (1 - inward * ~next_on_sphere)
        proposal = pick(started, candidate, self.random_image(rows))
        return pick(rows.step + 1 >= self.steps, best, proposal), {"best": best, "started": started.float(), **new}

    def done(self, rows: Rows, answer: Answer, state: State) -> Tensor:
        return state["inward"] < CLOSE_ENOUGH

    def _adapted(
        self, state: State, name: str, asked: Tensor, wrong: Tensor, window: int, many: float, few: float
    ) -> State:
        """The size ``name`` and its counts, after an answer in the rows that ``asked``."""
        hits, tries = ("sphere_hits", "sphere_tries") if name == "sphere" else ("hits", "tries")
        count, success = state[tries] + asked, state[hits] + (asked & wrong)
        full = count >= window
        share = success / count.clamp_min(1)
        factor = 1 + (FACTOR - 1) * (full & (share > many)) + (1 / FACTOR - 1) * (full & (share < few))
        return {name: (state[name] * factor).clamp_max(0.5), hits: success * ~full, tries: count * ~full}
