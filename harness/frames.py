"""Records as a flat table."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from epsbench.harness.records import Record
from epsbench.harness.records.tables import flat, varying

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
    parameters = flat(record.cell, by_name=True)
    row |= parameters if wide else {key: parameters.get(key, value) for key, value in record.cell.items()}
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


def frame(records: list[Record]) -> pd.DataFrame:
    """Records as a pandas table, one row each (see `flatten`), with every parameter as a column."""
    import pandas as pd

    return pd.DataFrame([flatten(record, wide=True) for record in records])


def overview(records: list[Record]) -> pd.DataFrame:
    """What a reader asks first of records, one row each: names, the parameters that differ, the main measures."""
    table, differ = frame(records), varying(flat(each.cell, by_name=True) for each in records)
    return table[[name for name in dict.fromkeys((*NAMES, *differ, *MEASURES)) if name in table]]
