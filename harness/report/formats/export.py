"""The records for other programs: CSV with one line a record, JSON with one list of whole records."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import Any

from epsbench.harness.frames import flatten
from epsbench.harness.records import Record
from epsbench.harness.records.tables import canonical, flat
from epsbench.harness.report.results.loading import Results


def to_json(results: Results) -> str:
    """Every record of the folder, as docs/records.md describes it, in one list."""
    records = [*results.current, *results.superseded]
    return json.dumps([_dumped(record) for record in records], indent=1, ensure_ascii=False) + "\n"


def _dumped(record: Record) -> dict[str, Any]:
    """The fields of a record; those of ensembles of attacks only where there are any."""
    absent = {name for name in ("parts", "adapted", "distances", "predictions") if not getattr(record, name)}
    return record.model_dump(mode="json", exclude=absent)


def to_csv(results: Results) -> str:
    """The current records, one line each; a value that a record lacks is empty.

    The parameters of a model, defense, attack or training are columns of their own, such as ``attack.steps``.
    """
    rows = [row(record) for record in results.current]
    columns = dict.fromkeys(key for values in rows for key in values)
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, fieldnames=list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def row(record: Record) -> dict[str, Any]:
    """A record as one level of plain values."""
    values = flat(flatten(record))
    for key, value in record.cell.items():
        if isinstance(value, Mapping) and "name" in value:
            values |= flat({name: parameter for name, parameter in value.items() if name != "name"}, f"{key}.")
    if record.failure is not None:
        values["failure"] = record.failure.text
    return {key: canonical(value) if isinstance(value, list | tuple) else value for key, value in values.items()}
