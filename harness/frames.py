"""Records as a flat table."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from epsbench.harness.records import Record

if TYPE_CHECKING:
    import pandas as pd


NAMES = ("id", "status", "data", "model", "defense", "attack", "norm", "eps")
MEASURES = ("clean_accuracy", "robust_accuracy", "test_bpd")


def flatten(record: Record, wide: bool = False) -> dict[str, Any]:
    """A record as one flat row: cell, status, every metric with its interval, every cost.

    A metric that is called as a parameter, such as the precision of samples, is the column ``metric.precision``.
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
        column = f"metric.{name}" if name in row else name
        row |= {column: metric.value, f"{column}_low": metric.low, f"{column}_high": metric.high}
        row |= {f"{column}_n": metric.n}
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


def overview(records: list[Record]) -> pd.DataFrame:
    """What a reader asks first of records, one row each: names, the parameters that differ, the main measures."""
    table = frame(records)
    parameters = dict.fromkeys(name for each in records for key in each.cell for name in _columns(key, each.cell[key]))
    differ = [name for name in parameters if name not in NAMES and table[name].astype(str).nunique() > 1]
    return table[[name for name in (*NAMES, *differ, *MEASURES) if name in table]]
