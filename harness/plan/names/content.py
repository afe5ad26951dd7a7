"""What a model of a user's holds before it is trained: weights that it brings, and whatever else decides its outputs.

The file that a factory loads, the cache that a library reads, a table that a module keeps as a plain attribute: none of
it stands in the code. So the model is built, and what was built goes into the id of its cells. It is built under two
seeds. What differs between the two is its random initialisation, which the cell's seed decides. What is the same is the
model's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from traceback import walk_tb
from typing import TYPE_CHECKING, Any

from epsbench.harness.errors import InputError
from epsbench.harness.isolation import isolated
from epsbench.harness.plan.cell import Cell, Named
from epsbench.harness.plan.data import DATASETS, DataDescription
from epsbench.harness.plan.names.registry import make
from epsbench.harness.plan.names.repository import raised_at

if TYPE_CHECKING:
    from torch import Tensor, nn

_FACTS = "; a model of your own gets the data's shape, classes or num_classes where its signature names them"
_LONGEST = 300  # characters of an exception's message
_LARGEST_SHARE = 0.5  # of a model's numbers that may be fixed without its being a model that brings weights


@dataclass(frozen=True)
class Content:
    """What a model holds as it is built."""

    digest: str
    """A digest of its parameters, buffers and plain attributes, apart from what is drawn at random."""

    brings_weights: bool
    """Whether most of its parameters come from somewhere else than a random initialisation."""


def content_of(model: Named, base: Path, data: DataDescription, z_dim: int | None = None) -> Content | None:
    """What the model of this name holds as it is built for ``data``, a generative one with ``z_dim`` latent dimensions.

    None for a built-in architecture, which holds nothing of its own. Raises `InputError`, with what to change, for a
    model that cannot be built.
    """
    from epsbench.models.catalogue import FromFile

    architecture = make("model", model, base)
    if isinstance(architecture, FromFile):
        return Content("", True)  # the digest of its file is part of the id already
    pretrained = bool(getattr(architecture, "pretrained", False))
    if type(architecture) in _built_ins() and not pretrained:
        return None
    shape = (data,) if z_dim is None else (data, z_dim)
    networks = [_built(model, base, shape, seed) for seed in ((0,) if pretrained else (0, 1))]
    first, last = _state(networks[0]), _state(networks[-1])
    fixed = {name: entry for name, entry in first.items() if last.get(name) == entry}
    numbers = sum(entry.numbers for entry in first.values())
    own = sum(entry.numbers for entry in fixed.values())
    text = "\n".join(f"{name} {entry.digest}" for name, entry in sorted(fixed.items()))
    brings = pretrained or (numbers > 0 and own > _LARGEST_SHARE * numbers)
    return Content(hashlib.sha256(text.encode()).hexdigest()[:16], brings)


@dataclass(frozen=True)
class _Entry:
    """One thing that a module holds. ``numbers`` counts those of a parameter that is not constant."""

    digest: str
    numbers: int = 0


def check_files(cells: Iterable[Cell], base: Path) -> None:
    """Raise `InputError` for every model of these cells whose file of weights does not fit it.

    Such a model has its id without being built, so nothing else builds it before the run does.
    """
    from epsbench.models.catalogue import FromFile

    problems: list[str] = []
    for model, data in dict.fromkeys((cell.model, cell.data) for cell in cells):
        try:
            if isinstance(make("model", model, base), FromFile):
                _built(model, base, (DATASETS[data],), 0)
        except InputError as error:
            problems += error.messages
    if problems:
        raise InputError(problems)


def why_not_built(name: str, data: str, error: BaseException) -> str:
    """The message for a model whose building raised: what was raised and where, and what to change."""
    text = " ".join(str(error).split())
    module, function = _raiser(error)
    if isinstance(error, InputError) or (isinstance(error, ValueError) and module.startswith("epsbench.models.")):
        return f"model {name!r} cannot be built for {data}: {text}{_FACTS if function == 'verified' else ''}"
    missing = str(error.filename) if isinstance(error, FileNotFoundError) and error.filename else ""
    if missing and not Path(missing).is_absolute():
        remedy = (
            f"a relative path begins at the folder that epsbench is run in: write "
            f"Path(__file__).parent / {missing!r} for a file beside the code"
        )
    else:
        remedy = "correct the code, or the parameters that the suite gives it"
    return f"model {name!r} cannot be built for {data}: {what_was_raised(error)}; {remedy}"


def what_was_raised(error: BaseException) -> str:
    """``KeyError: 3 (victim.py, line 12)``: type, message and the place in the user's code, on one line."""
    text = " ".join(str(error).split())[:_LONGEST]
    return f"{type(error).__name__}{': ' if text else ''}{text}{raised_at(error)}"


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
    except (Exception, SystemExit) as error:
        raise InputError(why_not_built(model.label(), shape[0].name, error)) from error
    return network


def _state(network: nn.Module) -> dict[str, _Entry]:
    """Everything in a network that can decide an output, by name."""
    from torch import Tensor, nn

    parameters = {name for name, _ in network.named_parameters()}
    entries: dict[str, _Entry] = {}
    for name, value in {**dict(network.named_buffers()), **network.state_dict()}.items():
        learnt = name in parameters and isinstance(value, Tensor) and value.numel() > 1
        varied = learnt and bool((value != value.flatten()[0]).any())
        entries[name] = _Entry(_digest(value) or "", value.numel() if varied else 0)
    usual = set(vars(nn.Module()))
    for path, module in network.named_modules():
        for key, value in vars(module).items():
            if key not in usual and (digest := _digest(value)) is not None:
                entries[f"{path}.{key} (attribute)"] = _Entry(digest)
    return entries


def _digest(value: Any) -> str | None:
    """A digest of a tensor, an array, a number, a text, or of lists and tables of them; None for anything else."""
    import numpy as np
    from torch import Tensor

    if isinstance(value, Tensor):
        return _hash(f"{value.dtype} {tuple(value.shape)}".encode() + _bytes(value))
    if isinstance(value, np.ndarray):
        known = value.dtype != object
        return _hash(f"{value.dtype} {value.shape}".encode() + np.ascontiguousarray(value).tobytes()) if known else None
    if isinstance(value, np.generic | str | bytes | bool | int | float | complex | None):
        return _hash(f"{type(value).__name__} {value!r}".encode())
    if isinstance(value, Mapping):
        items = {str(key): _digest(item) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        items = {str(key): _digest(item) for key, item in enumerate(value)}
    else:
        return None
    return _hash(repr(sorted(items.items(), key=lambda item: item[0])).encode())


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
