"""Rows that come back to a point where they have been.

Where the next point depends on nothing but the point (`epsbench.attacks.base.Attack.cycles`), such a row goes round for
ever. Its next points are known, and so is the one after its last step. All but the last round is left out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from epsbench.attacks.base import Attack, State
from epsbench.harness.run.attack.step import hold

FEWEST_STEPS = 50  # with fewer, little is left of an attack when a cycle has closed
_SHORTEST, _SHARE = 4, 4  # answers between two points that are remembered: at least 4, and a quarter of all so far


def watched(attack: Attack) -> bool:
    """Whether the rows of this attack are watched for cycles."""
    return attack.cycles() and attack.budget() >= FEWEST_STEPS


def remembered(point: Tensor, step: Tensor) -> State:
    """What is remembered of rows at their first points (N, C, H, W), after so many answers (N,)."""
    return {"seen": point.clone(), "seen_step": step.clone()}


def skip_rounds(t: State, point: Tensor, step: Tensor, steps: int, kept: Tensor) -> tuple[Tensor, State]:
    """The answers that count as had (N,) at the new points, and what is remembered now.

    ``t`` holds what was `remembered`, ``step`` (N,) the answers had. A row whose point is, pixel by pixel, the
    remembered one has gone round in p answers. It skips as many rounds as fit into what is left of its ``steps``, so
    that it ends at the point where it would have ended. ``kept`` rows (N,) stay as they are.
    """
    back = (point == t["seen"]).flatten(1).all(1) & ~kept
    period = (step - t["seen_step"]).clamp_min(1)
    skipped = torch.where(back, steps - (steps - step) % period, step)
    due = (step - t["seen_step"] >= (step // _SHARE).clamp_min(_SHORTEST)) & ~back & ~kept
    # The images are written in place: nothing else is on their memory.
    return skipped, {
        "seen": hold(due, point, t["seen"], owned=True),
        "seen_step": step.where(due, t["seen_step"]),
    }
