"""The record of a cell that could not be measured. Such a cell is reported as failed and never counts as robust."""

from __future__ import annotations

import traceback

from epsbench.harness.plan.cell import Cell
from epsbench.harness.records import Failure, Record
from epsbench.harness.run.context import Context
from epsbench.harness.run.machine.memory import is_out_of_memory

OUT_OF_MEMORY = (
    "out of memory ({}); attacks had already halved their batch to one row, training keeps the recipe's batch size: "
    "free the device, lower batch_size in the suite's training table, or use a smaller model or more memory"
)
LONGEST_MESSAGE, LONGEST_TRACEBACK = 4_000, 20_000  # characters


def failed(cell: Cell, error: BaseException, context: Context, started: str) -> Record:
    """The record of a cell that raised: type, message and traceback. Out of memory, the message says what to do."""
    trace = "".join(traceback.format_exception(error))
    message = str(error)[:LONGEST_MESSAGE]
    if is_out_of_memory(error):
        message = OUT_OF_MEMORY.format(message or "no details")
    failure = Failure(type=type(error).__name__, message=message, traceback=trace[-LONGEST_TRACEBACK:])
    return context.record(cell, "failed", started, failure=failure)
