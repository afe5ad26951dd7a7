"""What a model of a user's holds before it is trained: weights that it brings, and whatever else decides its outputs.

The file that a factory loads, the cache that a library reads, a table that a module keeps as a plain attribute: none of
it stands in the code. So the model is built, and what was built goes into the id of its cells. It is built under two
seeds. What differs between the two is its random initialisation, which the cell's seed decides. What is the same is the
model's own.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from traceback import walk_tb
from types import CellType, FunctionType, MethodType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from epsbench.harness.errors import FAILURES, InputError
from epsbench.harness.isolation import isolated
from epsbench.harness.plan.cell import Cell
from epsbench.harness.plan.data import DataDescription, describe
from epsbench.harness.plan.named import Named
from epsbench.harness.plan.names.packages import package_of, without_package
from epsbench.harness.plan.names.raised import what_was_raised
from epsbench.harness.plan.names.reads import noted
from epsbench.harness.plan.names.registry import in_memory, make
from epsbench.harness.plan.names.roots import project_of
from epsbench.harness.plan.names.versions import file_digest
from epsbench.models.parts import has_own_parts

if TYPE_CHECKING:
    from torch import Tensor, nn

_FACTS = "; a model of your own gets the data's shape, classes or num_classes where its signature names them"
_BATCHES = "; it was asked about 2 images: forward() must take any number of them, of this shape"
_TYPES = "; let forward() convert the images, which are float32, to the type of its weights, or call .float() on it"
_DEVICES = "; keep every tensor of the model in a parameter or a buffer, and make new ones on x.device in forward()"
_GREY = "; if its images are grey, say channels = 1 of a folder, as in folder:path=photos,channels=1"
_ONE_CHANNEL = re.compile(r"to have 1 channels?, but got 3 channels")
_ELSEWHERE = re.compile(r"(same|expected) device")
_LOW = ("Half", "BFloat16", "double")
_LARGEST_SHARE = 0.5  # of a model's numbers that may be fixed without its being a model that brings weights


@dataclass(frozen=True)
class Content:
    """What a model holds as it is built."""

    digest: str
    """A digest of its parameters, buffers and plain attributes, apart from what is drawn at random."""

    brings_weights: bool
    """Whether most of its parameters come from somewhere else than a random initialisation."""

    unclear: bool = False
    """Whether its parameters are constants beside other tensors: weights that it brings, or features to train on."""


def content_of(model: Named, base: Path, data: DataDescription, z_dim: int | None = None) -> Content | None:
    """What the model of this name holds as it is built for ``data``, a generative one with ``z_dim`` latent dimensions.

    None for a built-in architecture without parts of the user's own. Raises `InputError`, with what to change, for a
    model that cannot be built.
    """
    from epsbench.models.catalogue import FromFile

    architecture = make("model", model, base)
    if isinstance(architecture, FromFile):
        return Content("", True)  # the digest of its file is part of the id already
    pretrained = bool(getattr(architecture, "pretrained", False))
    if type(architecture) in _built_ins() and not pretrained and not has_own_parts(architecture):
        return None
    shape = (data,) if z_dim is None else (data, z_dim)
    with noted() as reads:
        # An object of this process is copied, whatever the seed.
        alike = pretrained or in_memory("model", model.name) is not None
        networks = [_built(model, base, shape, seed) for seed in ((0,) if alike else (0, 1))]
    # Ids of models of timm and torchvision, whose code has a version, stay as they were.
    first, last = (_state(network, deep=not pretrained) for network in (networks[0], networks[-1]))
    fixed = {name: entry for name, entry in first.items() if last.get(name) == entry}
    numbers = sum(entry.numbers for entry in first.values())
    own = sum(entry.numbers for entry in fixed.values())
    files = {data for source, data in reads if data.is_file() and data.resolve().is_relative_to(project_of(source))}
    text = "\n".join([*(f"{name} {entry.digest}" for name, entry in sorted(fixed.items())),
                      *sorted(f"{data.name} {file_digest(data)}" for data in files)])  # fmt: skip
    brings = pretrained or (numbers > 0 and own > _LARGEST_SHARE * numbers)
    unclear = not numbers and any(entry.others for entry in fixed.values())
    return Content(hashlib.sha256(text.encode()).hexdigest()[:16], brings, unclear)


@dataclass(frozen=True)
class _Entry:
    """One thing that a module holds."""

    digest: str

    numbers: int = 0
    """Those of a parameter that is not constant."""

    others: int = 0
    """Those of other tensors that are not constant."""


def check_files(cells: Iterable[Cell], base: Path) -> None:
    """Raise `InputError` for every model of these cells whose file of weights does not fit it.

    Such a model has its id without being built, so nothing else builds it before the run does.
    """
    from epsbench.models.catalogue import FromFile

    problems: list[str] = []
    for model, data in dict.fromkeys((cell.model, cell.data) for cell in cells):
        try:
            if isinstance(make("model", model, base), FromFile):
                _built(model, base, (describe(data),), 0)
        except InputError as error:
            problems += error.messages
    if problems:
        raise InputError(problems)


def why_not_built(name: str, data: str, error: BaseException) -> str:
    """The message for a model whose building raised: what was raised and where, and what to change."""
    text = " ".join(str(error).split())
    module, function = _raiser(error)
    if isinstance(error, InputError) or (isinstance(error, ValueError) and module.startswith("epsbench.models.")):
        remedy, fails = "", "built for"
        if function == "verified" and data in text:  # it does not take the images of this data, or gives other outputs
            given = in_memory("model", name) is not None  # an object, which has been built already
            fails, grey = "used on", _GREY if _ONE_CHANNEL.search(text) else ""
            asked = _BATCHES if "does not take" in text and not grey else ""
            if _ELSEWHERE.search(text):
                remedy = _DEVICES
            elif any(each in text for each in _LOW):
                remedy = _TYPES
            else:
                remedy = grey + (asked if given else _FACTS)
        return f"model {name!r} cannot be {fails} {data}: {text}{remedy}"
    missing = str(error.filename) if isinstance(error, FileNotFoundError) and error.filename else ""
    if missing and not Path(missing).is_absolute():
        remedy = (
            f"a relative path begins at the folder that epsbench is run in: write "
            f"Path(__file__).parent / {missing!r} for a file beside the code"
        )
    else:
        remedy = "correct the code, or the parameters that the suite gives it"
    return f"model {name!r} cannot be built for {data}: {what_was_raised(error)}; {remedy}"


def _raiser(error: BaseException) -> tuple[str, str]:
    """The names of the module and of the function that raised an error."""
    *_, (frame, _) = walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__", "")), frame.f_code.co_name


def _built_ins() -> tuple[type, ...]:
    from epsbench.models.catalogue import BUILT_IN, PREFIXES
    from epsbench.models.generative import VAE, Autoencoder, ResidualVAE

    return (*BUILT_IN.values(), *PREFIXES.values(), VAE, Autoencoder, ResidualVAE)


def _built(model: Named, base: Path, shape: tuple[Any, ...], seed: int) -> nn.Module:
    """The model, built under this seed with the arguments ``shape``. Raises `InputError` where it cannot be."""
    try:
        with isolated(seed):
            network: nn.Module = make("model", model, base).build(*shape)
    # The user's code may raise anything, or even try to exit.
    except FAILURES as error:
        raise InputError(why_not_built(model.label(), shape[0].name, error)) from error
    return network


def _state(network: nn.Module, *, deep: bool = True, above: frozenset[int] = frozenset()) -> dict[str, _Entry]:
    """Everything in a network that can decide an output, by name; ``deep``: with classes, functions and objects.

    ``above`` is as in `_digest`: a method of the network may close over the network itself.
    """
    from torch import nn

    above |= {id(network)}
    parameters = {name for name, _ in network.named_parameters()}
    entries: dict[str, _Entry] = {}
    for name, value in {**dict(network.named_buffers()), **network.state_dict()}.items():
        varied, learnt = _varied(value), name in parameters
        entries[name] = _Entry(_digest(value) or "", varied * learnt, varied * (not learnt))
    usual = set(vars(nn.Module()))
    for path, module in network.named_modules():
        for key, value in vars(module).items():
            if key not in usual and (deep or _is_plain(value)) and (digest := _digest(value, above)) is not None:
                entries[f"{path}.{key} (attribute)"] = _Entry(digest, others=_varied(value))
        if not deep:
            continue
        kind = type(module)
        entries[f"{path} (class)"] = _Entry(_hash(f"{without_package(kind.__module__)}.{kind.__qualname__}".encode()))
        for each in kind.__mro__:
            if each.__module__.partition(".")[0] not in {"torch", "builtins", "abc", "typing"}:
                for key, value in vars(each).items():
                    if (
                        not key.startswith("__")
                        and not callable(value)
                        and (digest := _digest(value, above)) is not None
                    ):
                        entries[f"{path}.{each.__name__}.{key} (of the class)"] = _Entry(digest)
    return entries


def _digest(value: Any, above: frozenset[int] = frozenset()) -> str | None:
    """A digest of a tensor, an array, a number, a text, or of what consists of such; None for anything else.

    A function consists of the values that it closes over, a plain object of its attributes. ``above`` are the objects
    on the way here.
    """
    import numpy as np
    from torch import Tensor, nn

    if isinstance(value, Tensor):
        return _hash(f"{value.dtype} {tuple(value.shape)}".encode() + _bytes(value))
    if isinstance(value, np.ndarray):
        known = value.dtype != object
        return _hash(f"{value.dtype} {value.shape}".encode() + np.ascontiguousarray(value).tobytes()) if known else None
    if isinstance(value, str) and value.startswith(os.sep) and Path(value).exists():
        return None  # where a file lies on this machine says nothing of the model
    if isinstance(value, np.generic | str | bytes | bool | int | float | complex | None):
        return _hash(f"{type(value).__name__} {value!r}".encode())
    if id(value) in above:
        return None
    if isinstance(value, nn.Module):
        items: dict[str, str | None] = {name: entry.digest for name, entry in _state(value, above=above).items()}
        return _hash(repr(sorted(items.items())).encode())
    parts = _parts(value)
    if parts is None:
        return None
    items = {str(key): _digest(item, above | {id(value)}) for key, item in parts.items()}
    if isinstance(value, set | frozenset):
        return _hash(repr(sorted(map(str, items.values()))).encode())
    return _hash(repr(sorted(items.items(), key=lambda item: item[0])).encode())


def _varied(value: Any) -> int:
    """How many numbers a tensor or an array holds, or those directly in a list or table; 0 if they are all equal."""
    import numpy as np
    from torch import Tensor

    if isinstance(value, Mapping | list | tuple):
        inside = value.values() if isinstance(value, Mapping) else value
        return sum(_varied(each) for each in inside if isinstance(each, Tensor | np.ndarray))
    if isinstance(value, Tensor):
        numbers = np.frombuffer(_bytes(value), np.uint8).reshape(value.numel(), -1) if value.numel() > 1 else None
    else:
        known = isinstance(value, np.ndarray) and value.dtype != object and value.size > 1
        numbers = value.reshape(-1, 1) if known else None
    return len(numbers) if numbers is not None and numbers.size and bool((numbers != numbers[0]).any()) else 0


def _is_plain(value: Any) -> bool:
    """Whether a value is none of those that are digested by their parts, besides lists and tables."""
    return isinstance(value, Mapping | list | tuple) or _parts(value) is None


def _parts(value: Any) -> Mapping[Any, Any] | None:
    """What a value consists of; None for a value of an unknown type."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return dict(enumerate(value))
    if isinstance(value, partial):
        return {"function": value.func, "args": value.args, "keywords": value.keywords}
    if isinstance(value, MethodType):
        return {"function": value.__func__}
    if isinstance(value, FunctionType):
        cells = dict(zip(value.__code__.co_freevars, value.__closure__ or (), strict=True))
        closed = {name: cell.cell_contents for name, cell in cells.items() if cell != CellType()}
        return {"name": value.__qualname__, "closure": closed, "defaults": value.__defaults__ or ()}
    if package_of(type(value).__module__) or isinstance(value, SimpleNamespace):
        return {"class": type(value).__qualname__} | getattr(value, "__dict__", {})
    return None


def _bytes(tensor: Tensor) -> bytes:
    import torch

    if tensor.is_meta:
        return b""
    tensor = tensor.detach().cpu()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
