"""Adam's moments (Kingma and Ba, 2015, algorithm 1), for attacks that follow them: one state a row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from epsbench.attacks.norms.base import per_row

if TYPE_CHECKING:
    from torch import Tensor

    from epsbench.attacks.base import State

FIRST, SECOND = 0.9, 0.999  # β₁ and β₂


def adam_start(x: Tensor) -> State:
    """The moments of images (N, C, H, W) before the first gradient."""
    return {"first": x.new_zeros(x.shape), "second": x.new_zeros(x.shape)}


def adam(gradient: Tensor, state: State, step: Tensor) -> tuple[Tensor, Tensor, State]:
    """The corrected mean gradient, the corrected root of the mean square, and the new moments; step (N,) from 0."""
    first = state["first"].lerp(gradient, 1 - FIRST)
    second = SECOND * state["second"] + (1 - SECOND) * gradient**2
    count = per_row(step + 1)
    mean, scale = first / (1 - FIRST**count), (second / (1 - SECOND**count)).sqrt() + 1e-8
    return mean, scale, {"first": first, "second": second}
