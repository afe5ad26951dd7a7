"""HopSkipJump: gradients of the boundary, estimated from decisions."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod, sqrt
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.base import State, at_least_one
from epsbench.attacks.decision import Decisions, pick
from epsbench.attacks.norms.base import per_row
from epsbench.attacks.rows import Answer, Rows

if TYPE_CHECKING:
    from torch import Tensor

SEARCH, BISECT, ESTIMATE, JUMP = range(4)  # what a row is doing
HALVINGS = 20  # of a jump; a row whose jumps all fail estimates again


@dataclass(frozen=True, kw_only=True)
class HopSkipJump(Decisions):
    """HopSkipJump (Chen, Jordan and Wainwright, 2020, algorithm 2), for L2 and L∞.

    A row looks for a misclassified image; bisects between it and the image (algorithm 1); estimates the gradient at the
    boundary from decisions nearby (eq. 16); and jumps along it by distance / √t, halved until misclassified (eq. 14).
    """

    version: ClassVar[int] = 1

    first_samples: int = 100
    """Decisions of the first estimate; of the t-th √t times as many."""
    most_samples: int = 10_000
    """Decisions of an estimate at most."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one(first_samples=self.first_samples, most_samples=self.most_samples)

    def start(self, rows: Rows) -> tuple[Tensor, State]:
        zero, image = rows.eps.flatten() * 0, rows.x * 0
        return self.random_image(rows), {
            "phase": zero + SEARCH, "round": zero + 1, "far": rows.x, "near": rows.x, "low": zero, "high": zero,
            "votes": image, "moves": image, "sum": zero, "count": zero, "jump": zero, "direction": image, "tries": zero,
        }  # fmt: skip

    def step(self, rows: Rows, answer: Answer, state: State) -> tuple[Tensor, State]:
        s, wrong = dict(state), answer.wrong
        phase, vote = s["phase"], wrong.float() * 2 - 1
        searching, bisecting, estimating, jumping = (phase == kind for kind in (SEARCH, BISECT, ESTIMATE, JUMP))

        # A misclassified point begins a bisection: a random image, or where a jump ended.
        begins = (searching | jumping) & wrong
        s["far"] = pick(begins, answer.x, s["far"])

        # Bisection: at `high`, on the way from the image to the far point, it is misclassified, at `low` not.
        middle = (s["low"] + s["high"]) / 2
        s["high"] = pick(bisecting & wrong, middle, s["high"])
        s["low"] = pick(bisecting & ~wrong, middle, s["low"])
        reached = bisecting & (s["high"] - s["low"] <= self._tolerance(rows))
        s["near"] = pick(reached, self._between(rows, s["far"], s["high"]), s["near"])

        # The estimate: votes of decisions at distance δ, minus their mean.
        size = self.norm.size(s["near"] - rows.x).clamp_min(1e-12)
        reach = self._reach(rows, size, s["round"])
        moved = (answer.x - s["near"]) / per_row(reach)
        s["votes"] = s["votes"] + moved * per_row(vote * estimating)
        s["moves"] = s["moves"] + moved * per_row(estimating.float())
        s["sum"], s["count"] = s["sum"] + vote * estimating, s["count"] + estimating
        enough = estimating & (s["count"] >= (self.first_samples * s["round"].sqrt()).clamp_max(self.most_samples))
        mean = s["sum"] / s["count"].clamp_min(1)
        baseline = mean * (mean.abs() < 1)  # where all agree it would leave nothing
        gradient = s["votes"] - per_row(baseline) * s["moves"]
        s["direction"] = pick(enough, self.norm.direction(gradient), s["direction"])

        # Jumps: half as far after each that is classified correctly.
        given_up = jumping & ~wrong & (s["tries"] >= HALVINGS)
        s["jump"] = pick(enough, size / s["round"].sqrt(), s["jump"] / (1 + (jumping & ~wrong).float()))
        s["tries"] = (s["tries"] + jumping) * ~enough

        s["round"] = s["round"] + (begins & jumping) + given_up
        fresh = reached | given_up  # a new estimate
        for name in ("votes", "moves", "sum", "count"):
            s[name] = pick(fresh, s[name] * 0, s[name])
        s["low"], s["high"] = pick(begins, s["low"] * 0, s["low"]), pick(begins, s["high"] * 0 + 1, s["high"])
        for rows_of, kind in ((begins, BISECT), (fresh, ESTIMATE), (enough, JUMP)):
            phase = pick(rows_of, phase * 0 + kind, phase)
        s["phase"] = phase
        return self._proposal(rows, s), s

    def _proposal(self, rows: Rows, s: State) -> Tensor:
        """What each row asks in its phase; at the end the nearest misclassified point."""
        size = self.norm.size(s["near"] - rows.x).clamp_min(1e-12)
        shape = rows.x.shape[1:]
        sample = rows.noise.normal(*shape) if self.norm.name == "l2" else rows.noise.uniform(*shape) - 0.5
        sample = sample * per_row(self._reach(rows, size, s["round"]) / sample.flatten(1).norm(dim=1).clamp_min(1e-12))
        point = s["near"] + per_row(s["jump"]) * s["direction"]
        point = pick(s["phase"] == ESTIMATE, s["near"] + sample, point)
        point = pick(s["phase"] == BISECT, self._between(rows, s["far"], (s["low"] + s["high"]) / 2), point)
        point = pick(s["phase"] == SEARCH, self.random_image(rows), point)
        last = pick(s["phase"] == BISECT, self._between(rows, s["far"], s["high"]), s["near"])
        return pick(rows.step + 1 >= self.steps, last, point)

    def _between(self, rows: Rows, far: Tensor, share: Tensor) -> Tensor:
        """The point at this share (N,) of the way from the image to ``far``; under L∞ of a ball of that share."""
        away = far - rows.x
        if self.norm.name == "l2":
            return rows.x + per_row(share) * away
        return rows.x + self.norm.project(away, per_row(share * self.norm.size(away)))

    def _tolerance(self, rows: Rows) -> float:
        """θ: the width at which a bisection ends, d^−3/2 under L2 and d^−2 under L∞; no finer than float32."""
        pixels = prod(rows.x.shape[1:])
        return max(pixels**-1.5 if self.norm.name == "l2" else pixels**-2.0, 1e-6)

    def _reach(self, rows: Rows, size: Tensor, number: Tensor) -> Tensor:
        """δ (N,): the Euclidean length of the samples of the ``number``-th estimate; 0.1 at first."""
        pixels = prod(rows.x.shape[1:])
        scale = sqrt(pixels) if self.norm.name == "l2" else pixels
        return (scale * self._tolerance(rows) * size).where(number > 1, size * 0 + 0.1)
