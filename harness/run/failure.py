"""The record of a cell that could not be measured. Such a cell is reported as failed and never counts as robust."""

from __future__ import annotations

import os
import site
import sysconfig
import traceback
from pathlib import Path

from epsbench.harness.plan.cell import Cell
from epsbench.harness.plan.names.packages import without_package
from epsbench.harness.records import Failure, Record
from epsbench.harness.run.context import Context
from epsbench.harness.run.machine.memory import is_out_of_memory

OUT_OF_MEMORY = (
    "out of memory ({}); attacks had already halved their batch to one row, training keeps the recipe's batch size: "
    "free the device, lower batch_size in the suite's training table, or use a smaller model or more memory"
)
NO_GRADIENT = (
    "the model cannot be differentiated, and this attack needs its gradient: remove torch.no_grad(), "
    "torch.inference_mode(), .detach() and NumPy from forward(), attack a differentiable approximation of the model, "
    "or use attacks without gradients, such as square"
)
RAISES_UNDER_GRADIENTS = (
    "this attack needs the model's gradient, and the model raises where its images ask for one: correct that, or use "
    "attacks without gradients, such as square"
)
_OF_AUTOGRAD = ("requires grad", "require grad", "differentia", "derivative", "inference", "graph", "inplace operation")
"""What torch says where operations have no gradient, or lose it."""
LONGEST_MESSAGE, LONGEST_TRACEBACK = 4_000, 20_000  # characters


def without_gradient(error: BaseException) -> str:
    """What to do where a model answers, and raised this when an attack asked for its gradient."""
    return NO_GRADIENT if any(sign in str(error).lower() for sign in _OF_AUTOGRAD) else RAISES_UNDER_GRADIENTS


def failed(cell: Cell, error: BaseException, context: Context, started: str, advice: str = "") -> Record:
    """The record of a cell that raised: type, message and traceback.

    Out of memory, the message says what to do; else ``advice`` does where there is one.
    """
    trace = without_places("".join(traceback.format_exception(error)), context)
    message = without_places(str(error), context)[:LONGEST_MESSAGE]
    if is_out_of_memory(error):
        message = OUT_OF_MEMORY.format(message or "no details")
    elif advice:
        message = f"{message.rstrip('.')}; {advice}"
    failure = Failure(type=type(error).__name__, message=message, traceback=trace[-LONGEST_TRACEBACK:])
    return context.record(cell, "failed", started, failure=failure)


def without_places(text: str, context: Context) -> str:
    """The text without this machine's folders: paths begin at the suite's folder, the package's, or the library's."""
    libraries = [sysconfig.get_paths()[key] for key in ("purelib", "platlib", "stdlib")]
    places = {
        os.path.expanduser("~"): "~",  # noqa: PTH111 - `Path.home` raises for a user without a home
        str(Path.cwd()): ".",
        **dict.fromkeys(map(str, [*libraries, *site.getsitepackages()]), "lib"),
    }
    # A traceback names files as they were imported, which may be through a symbolic link.
    for folder, name in ((context.results, "results"), (Path(__file__).parents[2], "epsbench"), (context.base, ".")):
        places |= dict.fromkeys((str(folder.absolute()), str(folder.resolve())), name)
    for place in sorted(places, key=len, reverse=True):
        if len(place) > 1:
            text = text.replace(f"{place}/", f"{places[place]}/")
    return without_package(text)
