"""A cell that could not be measured, as a record: never dropped, never counted as robust."""

from __future__ import annotations

import traceback

from epsbench.harness.plan.cell import Cell
from epsbench.harness.records import Failure, Record
from epsbench.harness.run.context import Context
from epsbench.harness.run.machine.memory import is_out_of_memory

OUT_OF_MEMORY = (
    "out of memory ({}); attacks had halved their batch as far as it goes, training keeps the recipe's: free the "
    "device, lower batch_size in the suite's training table, or take a smaller model or a device with more memory"
)
LONGEST_MESSAGE = 4_000


def failed(cell: Cell, error: BaseException, context: Context, started: str) -> Record:
    """The record of a cell that raised: type, message (of memory also a remedy) and traceback."""
    trace = "".join(traceback.format_exception(error))
    said = str(error)[:LONGEST_MESSAGE]
    message = OUT_OF_MEMORY.format(said or "no more is known") if is_out_of_memory(error) else said
    return Record(
        id=cell.id,
        status="failed",
        suite=context.suite,
        description=context.description,
        cell=cell.canonical(),
        code=cell.code,
        failure=Failure(type=type(error).__name__, message=message, traceback=trace[-20_000:]),
        environment=context.environment,
        started=started,
        finished=context.clock(),
    )
