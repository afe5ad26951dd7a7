"""Which ε are larger than their norms allow."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from epsbench.harness.plan.axes.tables import Point
from epsbench.harness.plan.data import describe
from epsbench.harness.plan.epsilon import too_large
from epsbench.harness.plan.names.norms import norm_of


def too_large_radii(part: Any, points: Iterable[Point], base: Path) -> list[str]:
    """A problem for every ε of a part that is larger than its norm allows, with its key."""
    if part.task != "robustness":
        return []
    shape = describe(part.data).shape
    tables = [("matrix", part.matrix), *((f"include[{n}]", include) for n, include in enumerate(part.include))]
    problems: dict[str, None] = {}
    for eps, norm in dict.fromkeys((point["eps"], point["norm"]) for point in points):
        if eps <= (largest := norm_of(norm, base).largest(shape)):
            continue
        for path, table in tables:
            given = list(getattr(table, "eps", []))
            if eps in given:
                key = f"{part.task}.{path}.eps[{given.index(eps)}]"
                problems[f"{key}: {too_large(eps, norm, largest)}"] = None
    return list(problems)
