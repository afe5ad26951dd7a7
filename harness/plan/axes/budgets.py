"""The axis ``queries``: how many queries an attack by scores or decisions has. Other attacks have one cell for all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from epsbench.harness.plan.axes.tables import Point
from epsbench.harness.plan.names.registry import resolve

UNSET = 0


def with_budget(point: Point, base: Path) -> Point:
    """A point whose attack has the queries of the axis as its ``steps``; `UNSET` where it takes gradients."""
    if not point.get("queries"):
        return point
    attack = point["attack"]
    kind = resolve("attack", attack.name, base).factory
    if getattr(kind, "query", None) != "logits" or "steps" not in dict(attack.params):
        return point | {"queries": UNSET}
    params = tuple(sorted((dict(attack.params) | {"steps": point["queries"]}).items()))
    changed = tuple(sorted({*attack.changed, "steps"}))
    return point | {"attack": replace(attack, params=params, changed=changed)}
