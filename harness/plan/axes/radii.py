"""Which ε their norms do not allow: larger than the box, or too small to count one change."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

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
        known = norm_of(norm, base)
        if problem := _unusable(eps, norm, known.largest(shape), counts=not known.shrinks):
            problems |= {f"{key}: {problem}": None for key, given in written_values(part, "eps") if given == eps}
    return list(problems)


def _unusable(eps: Fraction, norm: str, largest: float, *, counts: bool) -> str:
    """What is wrong with an ε under the norm of this name; empty where nothing is.

    ``largest`` is the box, and ``counts`` says whether the norm is a number of changes.
    """
    if float(eps) > largest * (1 + ROUNDED):  # √d has no exact decimal to give
        return too_large(eps, norm, largest)
    # No image could change at all, so every model would be as robust as it is accurate.
    return below_one(eps, norm) if counts and 0 < eps < 1 else ""
