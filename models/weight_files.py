"""Weights in files, as this and other tools leave them. No code from a file is run.

A file may hold several sets of weights under keys, such as ``state_dict`` and ``state_dict_ema``. Which of them fits a
network is for `epsbench.models.checkpoints` to say.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import decimal
import fractions
import pathlib
import pickle
import re
import types
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from epsbench.models.file_kinds import FileKind, cannot_read_weights, kind_of

State = dict[str, Tensor]
"""A set of weights: tensors by their names."""

_DEEPEST = 4
_MOST_PARTS = 8  # of a tuple in a file that may hold weights; an optimiser's lists are longer
_PLAIN: tuple[Any, ...] = (
    argparse.Namespace, types.SimpleNamespace, np.dtype, np.ndarray, pathlib.PosixPath, pathlib.PurePosixPath,
    datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone, collections.defaultdict,
    decimal.Decimal, fractions.Fraction, uuid.UUID, frozenset, range, slice, list, dict, int, float, str,
)  # fmt: skip
_READ = ("torch", "safetensors", "")  # the last: unknown, such as what old versions of torch saved
_ACCEPTED = "what torch.save or safetensors made of a state dict"


def load_state(path: Path) -> dict[str, State]:
    """The sets of weights in a safetensors file or in one that torch saved, by their keys; ``""`` is the whole file.

    Raises `ValueError` where the file cannot be read, holds no weights, or would have to run code.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    kind = _kind_of_weights(path)
    try:
        content = load_file(path) if kind == "safetensors" else _unpickled(path)
    except OSError as error:
        raise cannot_read_weights(path, error) from error
    except pickle.UnpicklingError as error:
        other = re.search(r"(?:GLOBAL |got <class ')([\w.]+)", str(error))
        holds = f" (it holds {other.group(1)})" if other else ""
        raise ValueError(
            f"weights {path}: refused: it is no plain state dict{holds}, and loading it could run code from the file; "
            f"where you trust it, save the weights alone: `model = torch.load({path.name!r}, weights_only=False)` and "
            "`torch.save(model.state_dict(), 'weights.pt')`"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ValueError(f"weights {path}: neither safetensors nor a state dict, or damaged ({error})") from error
    sets = _sets(content)
    if not sets:
        raise ValueError(f"weights {path}: not a state dict (names and tensors); save model.state_dict()")
    return sets


def _kind_of_weights(path: Path) -> str:
    """The code of the file's kind, one of `_READ`. Raises `ValueError` for any other, and where it cannot be read."""
    try:
        kind = kind_of(path)
    except (OSError, ValueError) as error:  # a NUL in the name, before Python 3.12
        raise cannot_read_weights(path, error) from error
    if kind.code not in _READ:
        raise ValueError(_no_weights(kind, path))
    return kind.code


def _no_weights(kind: FileKind, path: Path) -> str:
    """The message for a file that is something else than weights."""
    if kind.code in ("empty", "cut"):
        return f"weights {path}: the file is {kind.text}; copy or download it again"
    program = kind.code == "torchscript"  # it has the weights, too
    return f"weights {path}: it is {kind.text}{'' if program else ', not weights'}; {_remedy(kind.code, path.name)}"


def _remedy(code: str, name: str) -> str:
    """What to do with a file of this name that is something else than weights."""
    if code == "npz":
        return (
            "images and labels are data; weights kept as arrays are saved with `arrays = "
            f"numpy.load({name!r})` and `torch.save({{name: torch.from_numpy(arrays[name]) for name in arrays}}, "
            "'weights.pt')`"
        )
    if code == "torchscript":
        return f"save the weights alone: `torch.save(torch.jit.load({name!r}).state_dict(), 'weights.pt')`"
    if code == "distributed":
        return (
            "make one file of it: `torch.distributed.checkpoint.format_utils.dcp_to_torch_save(FOLDER, 'weights.pt')`"
        )
    return {
        "lfs": "fetch them with `git lfs pull`",
        "html": "download the file itself",
        "folder": "give the path of the file in it",
        "packed": f"unpack it, and give the file inside: {_ACCEPTED}",
        "zip": f"unpack it, and give the file inside: {_ACCEPTED}",
        "shards": f"give one file with all of them: {_ACCEPTED}",
    }.get(code, f"give {_ACCEPTED} of a torch module")


def _unpickled(path: Path) -> Any:
    """What torch saved. Beside the weights there may be plain values: arrays, namespaces, paths, times, and
    containers of the standard library.

    Making them runs no code of the file. Nothing else is allowed.
    """
    allowed: list[Any] = [*_PLAIN, *{type(np.dtype(each)) for each in "?bhilqBHILQefdU"}]
    for core in ("numpy._core.multiarray", "numpy.core.multiarray"):  # NumPy 2 and 1 name them so in pickles
        for name in ("scalar", "_reconstruct"):
            with suppress(ImportError, AttributeError):
                function = getattr(__import__(core, fromlist=[name]), name)
                allowed += [function, (function, f"{core}.{name}")]
    # An open file: by the ending of a path, torch would take it for another format.
    with torch.serialization.safe_globals(allowed), path.open("rb") as file:
        return torch.load(file, "cpu", weights_only=True)


def _sets(content: Any, key: str = "", depth: int = 0) -> dict[str, State]:
    """Every table of tensors in what a file holds, by the keys on the way to it."""
    if isinstance(content, tuple | list) and depth < _DEEPEST and len(content) <= _MOST_PARTS:
        content = {str(place): value for place, value in enumerate(content)}  # such as (weights, accuracy)
    if not isinstance(content, Mapping) or depth > _DEEPEST:
        return {}
    weights = {name: _as_tensor(value) for name, value in content.items() if isinstance(name, str)}
    tensors = {name: value for name, value in weights.items() if isinstance(value, Tensor)}
    if tensors and len(tensors) == len(content):
        return {key: tensors}
    nested: dict[str, State] = {}
    for name, value in content.items():
        if isinstance(name, str):
            nested |= _sets(value, f"{key}.{name}" if key else name, depth + 1)
    return nested or ({key: tensors} if tensors else {})  # such as tensors with an epoch beside them


def _as_tensor(value: Any) -> Any:
    """An array of numbers as a tensor; anything else as it is."""
    is_numeric = isinstance(value, np.ndarray) and value.dtype.kind in "fiub" and value.dtype != np.uint16
    return torch.from_numpy(value.copy()) if is_numeric else value
