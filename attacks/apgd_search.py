"""Auto-PGD with a search for the smallest ε at which it fools, image by image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.aims import require_lead
from epsbench.attacks.apgd import APGD, first_state
from epsbench.attacks.base import Polished, State, at_least_one
from epsbench.attacks.losses import TARGETED_DLR, Loss
from epsbench.attacks.norms.base import per_row
from epsbench.attacks.rows import Answer, Rows
from epsbench.attacks.targets import Targeted

if TYPE_CHECKING:
    from torch import Tensor

FIRST = 0.1  # the first ε, as a share of half the largest change within the box; it doubles until a run succeeds


@dataclass(frozen=True, kw_only=True)
class APGDSearch(Polished, APGD):
    """Auto-PGD (Croce and Hein, 2020) at the ε of a bisection: the most exact of attacks, and the one that costs most.

    A run ends as soon as it fools. The next ε lies halfway between the largest that withstood and the nearest
    adversarial point, and its run begins at that point, projected. Before the first success, ε doubles. It stays with
    the class that it meets first: `APGDTSearch` tries several.
    """

    version: ClassVar[int] = 3

    goal: ClassVar[str] = "smallest"  # type: ignore[misc]

    steps: int = 20
    """How many gradients one run takes at most."""

    searches: int = 15
    """How many ε are tried."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one(searches=self.searches)
        if "target" in self.loss.inputs and self.target is None and not isinstance(self, Targeted):
            raise ValueError(
                f"its loss {type(self.loss).__name__} needs a target class; set target, or use apgd-t-search"
            )
        self.requires_norm("linf", "l2")

    def budget(self) -> int:
        return self.steps * self.searches

    def roams(self) -> bool:
        return True

    def radius(self, rows: Rows, state: State) -> Tensor:
        return per_row(state["eps"])

    def start(self, rows: Rows) -> tuple[Tensor, State]:
        eps = rows.eps.flatten() / rows.x[0].numel() ** 0.5 if self.norm.name == "l2" else rows.eps.flatten()
        eps = eps * FIRST
        none = rows.y.new_zeros(len(rows.y))
        return rows.x, first_state(rows.x, self._at(rows, eps, rows.step)) | {
            "eps": eps, "withstood": 0 * eps, "nearest": eps + float("inf"), "point": rows.x, "at": none,
            "search": none,
        }  # fmt: skip

    def step(self, rows: Rows, answer: Answer, state: State) -> tuple[Tensor, State]:
        eps, at = state["eps"], state["at"]
        inner = {name: state[name] for name in state if name not in _OWN}
        proposal, inner = super().step(self._at(rows, eps, at), answer, inner)

        size = self.norm.size(answer.x - rows.x)
        nearer = answer.wrong & (size < state["nearest"])
        nearest = size.where(nearer, state["nearest"])
        point = answer.x.where(per_row(nearer), state["point"])
        over = answer.wrong | (at + 1 >= self.steps)
        withstood = eps.where(over & ~answer.wrong, state["withstood"])
        following = ((withstood + nearest) / 2).where(nearest.isfinite(), 2 * eps)
        eps = following.where(over, eps)

        fresh = self._at(rows, eps, at * 0)
        near = fresh.project(point)  # the next run's first point
        again = first_state(near, fresh)
        new = {name: again[name].where(over.view(-1, *[1] * (value.dim() - 1)), value) for name, value in inner.items()}
        x = near.where(per_row(over), proposal)
        return x, new | {
            "eps": eps, "withstood": withstood, "nearest": nearest, "point": point,
            "at": (at + 1).masked_fill(over, 0), "search": state["search"] + over,
        }  # fmt: skip

    def done(self, rows: Rows, answer: Answer, state: State) -> Tensor:
        return state["search"] >= self.searches

    def _at(self, rows: Rows, eps: Tensor, step: Tensor) -> Rows:
        """The rows as one run sees them: with its ε and its own count of steps."""
        radius = per_row(eps)
        return replace(rows, eps=radius, step=step, region=self.norm.region(rows.x, radius))


@dataclass(frozen=True, kw_only=True)
class APGDTSearch(Targeted, APGDSearch):
    """`APGDSearch` towards one wrong class after the other: the nearest of all is the distance."""

    version: ClassVar[int] = 3

    loss: Loss = TARGETED_DLR
    """A loss with a target: ``dlr-targeted`` or ``logit-difference``. Of three classes only the latter: the former is
    constant towards the least likely one, which may be the nearest."""

    def check(self, classes: int) -> None:
        super().check(classes)
        require_lead(self.loss, classes)


_OWN = frozenset({"eps", "withstood", "nearest", "point", "at", "search"})
