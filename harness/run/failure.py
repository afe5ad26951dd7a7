"""A cell that could not be measured, as a record: never dropped, never counted as robust."""

from __future__ import annotations

import traceback

from harness.records import Failure, Record
from harness.run.context import Context
from harness.spec.cell import Cell


def failed(cell: Cell, error: BaseException, context: Context, started: str) -> Record:
    """The record of a cell that raised: type, message and traceback."""
    trace = "".join(traceback.format_exception(error))
    return Record(
        id=cell.id,
        status="failed",
        suite=context.suite,
        cell=cell.canonical(),
        code=cell.code,
        failure=Failure(type=type(error).__name__, message=str(error), traceback=trace[-20_000:]),
        environment=context.environment,
        started=started,
        finished=context.clock(),
    )
