"""Which ε their norms do not allow: larger than the box, or too small to count one change."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

from epsbench.attacks.norms import Norm
from epsbench.harness.plan.axes.base import written_values
from epsbench.harness.plan.axes.tables import Point
from epsbench.harness.plan.data import describe
from epsbench.harness.plan.epsilon import below_one, too_large
from epsbench.harness.plan.names.norms import norm_of

ROUNDED = 1e-9  # by which share an ε may be above the largest: somebody rounded it


def unusable_radii(part: Any, points: Iterable[Point], base: Path) -> list[str]:
    """A problem for every ε of a part that its norm does not allow, with its key."""
    if part.task != "robustness":
        return []
    shape = describe(part.data).shape
    problems: dict[str, None] = {}
    for eps, norm in dict.fromkeys((point["eps"], point["norm"]) for point in points):
        if problem := _unusable(eps, norm, norm_of(norm, base), shape):
            problems |= {f"{key}: {problem}": None for key, given in written_values(part, "eps") if given == eps}
    return list(problems)


def _unusable(eps: Fraction, name: str, norm: Norm, shape: tuple[int, int, int]) -> str:
    """What is wrong with an ε under a norm, called ``name``, for images of this shape; empty where nothing is."""
    largest = norm.largest(shape)
    if float(eps) > largest * (1 + ROUNDED):  # √d has no exact decimal to give
        return too_large(eps, name, largest)
    # No image could change at all, so every model would be as robust as it is accurate.
    return below_one(eps, name) if not norm.shrinks and 0 < eps < 1 else ""
