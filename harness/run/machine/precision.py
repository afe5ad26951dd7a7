"""Mixed precision, for the network only."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "float32": torch.float32}


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """A context in which networks compute in "bf16" or "fp16"; for "float32" it changes nothing."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=DTYPES[precision])
