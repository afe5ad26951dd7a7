"""Every private or experimental name of torch that epsbench uses, looked up in one place.

Torch may move such a name in any release. That costs speed and gives a finding, and changes no number: each use
catches `Moved`, which is a `RuntimeError`, and takes the slower path.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch

NAMES: dict[str, str] = {
    # Tracing a function to a flat graph (harness.run.speed.program.tracing).
    "make_fx": "torch.fx.experimental.proxy_tensor.make_fx",
    "FakeTensorMode": "torch._subclasses.fake_tensor.FakeTensorMode",
    "enable_python_dispatcher": "torch._dispatch.python.enable_python_dispatcher",
    "ConstantSource": "torch._dynamo.source.ConstantSource",
    "DimDynamic": "torch.fx.experimental.symbolic_shapes.DimDynamic",
    "ShapeEnv": "torch.fx.experimental.symbolic_shapes.ShapeEnv",
    "StatelessSymbolicContext": "torch.fx.experimental.symbolic_shapes.StatelessSymbolicContext",
    "OpOverload": "torch._ops.OpOverload",
    "to_copy": "torch.ops.aten._to_copy.default",
    "unsafe_view": "torch.ops.aten._unsafe_view.default",
    # Convolutions with packed weights on a CPU (harness.run.speed.program.packing).
    "reorder_convolution_weight": "torch.ops.mkldnn._reorder_convolution_weight",
    "convolution_pointwise": "torch.ops.mkldnn._convolution_pointwise.default",
    "convolution_pointwise_binary": "torch.ops.mkldnn._convolution_pointwise.binary",
    # Products of bytes (harness.run.generative.neighbours).
    "int_mm": "torch._int_mm",
    # How many compiled forms of a function torch keeps (harness.run.speed.compiling).
    "dynamo_config": "torch._dynamo.config",
}
"""What epsbench calls a private name, and where torch 2.11 to 2.14 keep it."""


class Moved(RuntimeError):  # noqa: N818 - it says what happened
    """Torch has no such private name, or has it somewhere else."""


def private(name: str) -> Any:
    """The object behind one of `NAMES`. Raises `Moved` where this torch does not have it."""
    place = NAMES[name]
    try:
        return _resolve(place)
    except (ImportError, AttributeError) as error:
        raise Moved(f"torch {torch.__version__} has no {place}") from error


def schema(operation: Any) -> Any:
    """The schema of one of torch's operations: its name, its overload, and whether it writes into an argument.

    Raises `Moved` where this torch does not have it.
    """
    try:
        return operation._schema
    except AttributeError as error:
        raise Moved(f"torch {torch.__version__} has no {type(operation).__name__}._schema") from error


def _resolve(place: str) -> Any:
    """The object at a dotted place, with the modules on the way imported."""
    top, *parts = place.split(".")
    value: Any = importlib.import_module(top)
    for position, part in enumerate(parts, start=1):
        if not hasattr(value, part):
            importlib.import_module(".".join([top, *parts[:position]]))
        value = getattr(value, part)
    return value
