"""Records as a flat table."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from epsbench.harness.records import Record

if TYPE_CHECKING:
    import pandas as pd


def flatten(record: Record) -> dict[str, Any]:
    """A record as one flat row: cell, status, every metric with its interval, every cost.

    A name is a column, and each of its parameters one more, such as ``attack.steps``; ``eps`` is text, and
    ``eps_value`` the number.
    """
    row: dict[str, Any] = {"id": record.id, "status": record.status, "suite": record.suite}
    for key, value in record.cell.items():
        row |= _columns(key, value)
    if isinstance(eps := record.cell.get("eps"), str):
        row["eps_value"] = float(Fraction(eps))
    for name, metric in record.metrics.items():
        row |= {name: metric.value, f"{name}_low": metric.low, f"{name}_high": metric.high, f"{name}_n": metric.n}
    row |= {f"cost_{name}": value for name, value in record.cost.items()}
    row["findings"] = ", ".join(finding.code for finding in record.findings)
    return row | {"started": record.started, "finished": record.finished}


def _columns(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {key: value}
    row = {key: value["name"]} if "name" in value else {}
    for name, inner in value.items():
        if name != "name":
            row |= _columns(f"{key}.{name}", inner)
    return row


def frame(records: list[Record]) -> pd.DataFrame:
    """Records as a pandas table, one row each (see `flatten`)."""
    import pandas as pd

    return pd.DataFrame([flatten(record) for record in records])
