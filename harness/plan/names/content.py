"""What a model of a user's holds before it is trained: weights that it brings, and whatever else decides its outputs.

The file that a factory loads, the cache that a library reads, a table that a module keeps as a plain attribute: none of
it stands in the code. So the model is built, and what was built goes into the id of its cells. It is built under two
seeds. What differs between the two is its random initialisation, which the cell's seed decides. What is the same is the
model's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epsbench.harness.isolation import isolated
from epsbench.harness.plan.cell import Named
from epsbench.harness.plan.data import DataDescription
from epsbench.harness.plan.names.registry import make

if TYPE_CHECKING:
    from torch import Tensor, nn

_LARGEST_SHARE = 0.5  # of a model's numbers that may be fixed without its being a model that brings weights


@dataclass(frozen=True)
class Content:
    """What a model holds as it is built."""

    digest: str
    """A digest of its parameters, buffers and plain attributes, apart from what is drawn at random."""

    brings_weights: bool
    """Whether most of its parameters come from somewhere else than a random initialisation."""


def content_of(model: Named, base: Path, data: DataDescription) -> Content | None:
    """What the model of this name holds as it is built for ``data``.

    None for a built-in architecture, which holds nothing of its own, and for a model that cannot be built: the run says
    why before it trains anything.
    """
    from epsbench.models.catalogue import Custom, FromFile

    architecture = make("model", model, base)
    if isinstance(architecture, FromFile):
        return Content("", True)  # the digest of its file is part of the id already
    pretrained = bool(getattr(architecture, "pretrained", False))
    if not isinstance(architecture, Custom) and not pretrained:
        return None
    seeds = (0,) if pretrained else (0, 1)
    try:
        networks = [_built(lambda: architecture.build(data), seed) for seed in seeds]
    except (Exception, SystemExit):  # noqa: BLE001 - the user's code may raise anything; see above
        return None
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


def _built(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    with isolated(seed):
        return build()


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
