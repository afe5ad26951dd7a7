"""Weights in files, as this and other tools leave them. No code from a file is run.

The rule: a file may hold several sets of weights under keys, such as ``state_dict`` and ``state_dict_ema``, and all
names of a set may begin with one prefix, such as ``module.``. A set is loaded when, without a prefix, it has every
tensor of the network in its shape and nothing else. When two different sets fit, the suite has to name one.
"""

from __future__ import annotations

import argparse
import datetime
import pathlib
import pickle
import re
import types
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from epsbench.models.file_kinds import FileKind, kind_of
from epsbench.models.layers import Normalise

State = dict[str, Tensor]

_DEEPEST = 4
# Of batch norm and of averaged models: absent from some files, and used by nobody in evaluation mode.
_COUNTER = ("num_batches_tracked", "n_averaged")
_MOST_NAMES = 4  # of missing and of unknown tensors in a message
_MOST_PARTS = 8  # of a tuple in a file that may hold weights; an optimiser's lists are longer
_PLAIN: tuple[Any, ...] = (
    argparse.Namespace, types.SimpleNamespace, np.dtype, np.ndarray, pathlib.PosixPath,
    pathlib.PurePosixPath, datetime.datetime, datetime.date, datetime.timedelta,
)  # fmt: skip
_READ = ("torch", "safetensors", "")  # the last: unknown, such as what old versions of torch saved
ACCEPTED = "what torch.save or safetensors made of a state dict"
_MEANS, _STDS = {"mean", "mu", "new_mean", "_mean"}, {"std", "sigma", "new_std", "_std"}


def load_state(path: Path) -> dict[str, State]:
    """The sets of weights in a safetensors file or in one that torch saved, by their keys; ``""`` is the whole file.

    Raises `ValueError` where the file cannot be read, holds no weights, or would have to run code.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        kind = kind_of(path)
        if kind.code not in _READ:
            raise _NoWeightsError(_no_weights(kind, path))
        content = load_file(path) if kind.code == "safetensors" else _unpickled(path)
    except _NoWeightsError:
        raise
    except OSError as error:
        raise ValueError(
            f"weights {path}: cannot be read ({error.strerror or error}); give the path of a file"
        ) from error
    except pickle.UnpicklingError as error:
        other = re.search(r"GLOBAL ([\w.]+)", str(error))
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


class _NoWeightsError(ValueError):
    """A file is something else than weights."""


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
        "packed": f"unpack it, and give the file inside: {ACCEPTED}",
        "zip": f"unpack it, and give the file inside: {ACCEPTED}",
        "shards": f"give one file with all of them: {ACCEPTED}",
    }.get(code, f"give {ACCEPTED} of a torch module")


def load_checkpoint(network: nn.Module, path: Path, key: str = "") -> str:
    """Load the set of weights in a file that fits ``network``, or the one under ``key``; returns which one that was.

    Raises `ValueError` as `load_state`, and where no set fits, or two that differ.
    """
    sets = load_state(path)
    if key:
        if key not in sets:
            raise ValueError(f"weights {path}: there are no weights under {key!r}; there are: {_listed(sets)}")
        sets = {key: sets[key]}
    return _load(network, sets, str(path))


def load_into(network: nn.Module, state: State, where: str) -> None:
    """Copy ``state`` into ``network``. Raises `ValueError`, naming ``where``, when their tensors differ."""
    _load(network, {"": state}, where)


@dataclass(frozen=True)
class _Fit:
    """A set of weights that fits a network: its tensors by the network's names, and the prefix they had."""

    key: str
    prefix: str
    state: State


def _load(network: nn.Module, sets: Mapping[str, State], where: str) -> str:
    from epsbench.models.hub import HubNetwork

    # A network of timm or torchvision lies inside our own preparation; files with and without it load.
    target = network
    while isinstance(target, HubNetwork):
        target = target.network
    own = {name: value for name, value in target.state_dict().items() if isinstance(value, Tensor)}
    fits, problems = [], []
    for key, state in sets.items():
        try:
            fits += [_Fit(key, prefix, tensors) for prefix, tensors in _without_prefix(own, state, network)]
        except ValueError as error:
            problems.append((len(own.keys() & state.keys()), str(error)))
    if not fits:
        raise ValueError(f"weights {where}: {max(problems)[1]}")
    first = fits[0]
    if any(not _equal(first.state, other.state) for other in fits[1:]):
        choices = ", ".join(dict.fromkeys(_called(fit) for fit in fits))
        remedy = f'name one, such as key = "{fits[-1].key}"' if first.key != fits[-1].key else "keep one in the file"
        raise ValueError(f"weights {where}: {len(fits)} sets of weights fit this model ({choices}); {remedy}")
    if any(value.is_meta for value in first.state.values()):
        raise ValueError(f"weights {where}: the tensors have no data: they were on the device 'meta' when saved")
    for name, value in first.state.items():
        if own[name].is_floating_point() and not value.is_floating_point():
            raise ValueError(
                f"weights {where}: {name} is {value.dtype} in the file and {own[name].dtype} here; save the weights as "
                "floats: what is quantised loses its scale"
            )
    with torch.no_grad():
        target.load_state_dict(first.state, strict=False)  # `_fit` has compared every name
    return _called(first)


def _without_prefix(own: Mapping[str, Tensor], state: State, network: nn.Module) -> Iterator[tuple[str, State]]:
    """Every prefix under which a set has all of the network's tensors, with those; raises `ValueError` if none does."""
    wanted = [name for name in own if not name.endswith(_COUNTER)]
    probe = wanted[0] if wanted else ""
    ends = (name for name in state if name == probe or name.endswith(f".{probe}"))
    candidates = {name[: len(name) - len(probe)] for name in ends} if wanted else {""}
    complete = [
        prefix
        for prefix in sorted(candidates, key=lambda each: (len(each), each))
        if all(_same(own, state, prefix, n) for n in wanted)
    ]
    if not complete:
        raise ValueError(_misfit(own, state))
    taken = {prefix + name for prefix in complete for name in own}
    rest = {name: value for name, value in state.items() if name not in taken and not name.endswith(_COUNTER)}
    rest = {name: value for name, value in rest.items() if not _is_normalisation(name, value, network)}
    if rest:
        raise ValueError(_differing([], sorted(rest), []))
    for prefix in complete:
        yield prefix, {name: state[prefix + name] for name in own if prefix + name in state}


def _same(own: Mapping[str, Tensor], state: State, prefix: str, name: str) -> bool:
    return prefix + name in state and state[prefix + name].shape == own[name].shape


def _misfit(own: Mapping[str, Tensor], state: State) -> str:
    """Why a set of weights does not fit: a shape, or a name."""
    prefix = _common_prefix(own, state)
    shown = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    shapes = [
        f"{name} is {tuple(shown[name].shape)} in the file and {tuple(own[name].shape)} here"
        for name in sorted(own.keys() & shown.keys())
        if own[name].shape != shown[name].shape
    ]
    if shapes:
        return f"{shapes[0]}; they belong to another architecture, another input shape or another number of classes"
    missing, unknown = sorted(own.keys() - shown.keys()), sorted(shown.keys() - own.keys())
    return _differing(missing, unknown, sorted(state))


def _differing(missing: list[str], unknown: list[str], there: list[str]) -> str:
    """Which tensors a set of weights lacks, each with the nearest of the file, and which belong to no layer.

    ``there`` are the names of the file, shown where none of them is unknown.
    """
    what = f"no tensor {missing[0]!r}" if missing else f"a tensor {unknown[0]!r} that does not belong there"
    lacking = []
    for name in missing[:_MOST_NAMES]:
        near = get_close_matches(name, unknown, n=1)
        lacking.append(f"{name!r} (nearest in the file: {near[0]!r})" if near else repr(name))
    parts = [f"{what} ({len(missing)} missing, {len(unknown)} unknown)"]
    parts += [f"missing: {_some(lacking, len(missing))}"] if missing else []
    parts += [f"unknown: {_some([repr(name) for name in unknown[:_MOST_NAMES]], len(unknown))}"] if unknown else []
    if missing and not unknown:
        parts.append(f"the file has {_some([repr(name) for name in there[:_MOST_NAMES]], len(there))}")
    return "; ".join([*parts, "name the architecture these weights were trained for"])


def _some(names: list[str], of: int) -> str:
    return ", ".join(names) + (f" and {of - len(names)} more" if of > len(names) else "")


def _common_prefix(own: Mapping[str, Tensor], state: State) -> str:
    """The prefix that gives a set the most names in common with the network."""
    prefixes = {name[: len(name) - len(mine)] for mine in own for name in state if name.endswith(f".{mine}")}
    return max(["", *sorted(prefixes)], key=lambda prefix: sum(prefix + name in state for name in own), default="")


def _is_normalisation(name: str, value: Tensor, network: nn.Module) -> bool:
    """Whether a tensor is the mean or the standard deviation that the network normalises with, too.

    Raises `ValueError` where the network normalises with other numbers.
    """
    leaf = name.rpartition(".")[2]
    kind = "mean" if leaf in _MEANS else "std" if leaf in _STDS else ""
    if not kind or value.numel() > 4:
        return False
    layers = [module for module in network.modules() if isinstance(module, Normalise)]
    if not layers:
        raise ValueError(
            f"{name} is {[round(number, 4) for number in value.flatten().tolist()]}: the file's model normalises its "
            "images, and the architecture does not; give mean and std beside architecture, or normalise in the model"
        )
    for layer in layers:
        mine = getattr(layer, kind).flatten().cpu()
        if not torch.allclose(mine, value.flatten().float().expand_as(mine) if value.numel() == 1 else
                              value.flatten().float(), atol=1e-3):  # fmt: skip
            raise ValueError(
                f"{name} is {[round(number, 4) for number in value.flatten().tolist()]}, and the model normalises with "
                f"{[round(number, 4) for number in mine.tolist()]}; give a model of your own that normalises as the "
                "file does: path/to/file.py:Object"
            )
    return bool(layers)


def _unpickled(path: Path) -> Any:
    """What torch saved. Beside the weights there may be plain values: arrays, namespaces, paths and times.

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


def _equal(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


def _called(fit: _Fit) -> str:
    key = f"{fit.key!r}" if fit.key else "the whole file"
    return f"{key} without the prefix {fit.prefix!r}" if fit.prefix else key


def _listed(sets: Mapping[str, State]) -> str:
    return ", ".join(repr(name) if name else "the file itself (leave key out)" for name in sets)
