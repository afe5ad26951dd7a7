"""Labels for records that look the same in the columns of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from epsbench.harness.records import Record
from epsbench.harness.records.tables import varying
from epsbench.harness.report.results.starts import StartLabels
from epsbench.harness.report.results.units import scalar

DEFAULTS = {"subset": "all", "start": "scratch"}
"""The value of these keys in a cell that lacks them; a label leaves it out."""


def differences(records: Sequence[Record], shown: frozenset[str]) -> list[str]:
    """For each record, the settings of its cell that differ between the records: ``"epochs 10, subset first-half"``.

    ``shown`` names the keys that the reader sees elsewhere.
    """
    cells: list[dict[str, Any]] = []
    starts = StartLabels(record.cell for record in records)
    for record in records:
        items: dict[str, Any] = {}
        start = starts(record.cell) if "start" in record.cell else "scratch"
        for key, value in (DEFAULTS | record.cell | {"start": start}).items():
            if key not in shown:
                items |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
        cells.append(items)
    differing = varying(cells)
    labels = []
    for items in cells:
        kept = [key for key in differing if key in items and items[key] != DEFAULTS.get(key, ...)]
        labels.append(", ".join(f"{scalar(key)} {scalar(items[key])}" for key in kept))
    return labels
