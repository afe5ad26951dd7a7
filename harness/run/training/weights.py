"""Trained weights on disk, in files named by a hash of everything that determines them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from epsbench.harness.errors import InputError
from epsbench.harness.files import keep
from epsbench.harness.records import is_there

_REMEDY = "delete the file and the next run trains these weights anew"


def weights_path(folder: Path, key: str) -> Path:
    """The file of the weights with this key."""
    return folder / f"{key}.safetensors"


def save_weights(folder: Path, key: str, module: nn.Module, info: dict[str, Any]) -> dict[str, Any]:
    """Write the module's state and ``info`` (JSON values: curves, seconds, ...) atomically.

    Returns ``info`` with ``weights_sha256``, the digest of the tensors, added. Raises `InputError` if the file
    cannot be written.
    """
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}
    info = info | {"weights_sha256": digest(state)}
    keep(weights_path(folder, key), save(state, metadata={"epsbench": json.dumps(info)}))
    return info


def load_weights(folder: Path, key: str, module: nn.Module) -> dict[str, Any] | None:
    """Load into ``module`` what `save_weights` wrote, and return its info; None if there is no file.

    Raises `InputError`, naming the file and the remedy, if the file is damaged or belongs to another module.
    """
    path = weights_path(folder, key)
    if not is_there(path):
        return None
    try:
        with safe_open(path, framework="pt") as file:
            info = json.loads((file.metadata() or {})["epsbench"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        if digest(state) != info["weights_sha256"]:
            raise InputError(f"{path}: the weights are not the ones that were saved; {_REMEDY}")
        module.load_state_dict(state)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not the weights of this model ({reason}); {_REMEDY}") from error
    return info


def digest(state: dict[str, Tensor]) -> str:
    """SHA-256 of the tensors of a state dict, names, types and shapes included."""
    return hashlib.sha256(save(state)).hexdigest()
