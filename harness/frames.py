"""Records as a flat table."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from epsbench.harness.records import Record

if TYPE_CHECKING:
    import pandas as pd


def flatten(record: Record, wide: bool = False) -> dict[str, Any]:
    """A record as one flat row: cell, status, every metric with its interval, every cost.

    With ``wide``, each parameter of a name is one more column, such as ``attack.steps``, ``eps_value`` is ε as a
    number, and what the training took has columns too, such as ``training_seconds``. Without, the columns are those
    of the CSV export.
    """
    row: dict[str, Any] = {"id": record.id, "status": record.status, "suite": record.suite}
    for key, value in record.cell.items():
        columns = _columns(key, value)
        row |= columns if wide else {key: columns.get(key, value)}
    if wide and isinstance(eps := record.cell.get("eps"), str):
        row["eps_value"] = float(Fraction(eps))
    for name, metric in record.metrics.items():
        row |= {name: metric.value, f"{name}_low": metric.low, f"{name}_high": metric.high, f"{name}_n": metric.n}
    row |= {f"cost_{name}": value for name, value in record.cost.items()}
    if wide:
        row |= {f"training_{name}": value for name, value in record.training.items() if isinstance(value, int | float)}
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
    """Records as a pandas table, one row each (see `flatten`), with every parameter as a column."""
    import pandas as pd

    return pd.DataFrame([flatten(record, wide=True) for record in records])
