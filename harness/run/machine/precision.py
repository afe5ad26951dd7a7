"""Mixed precision: what the network alone computes in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "float32": torch.float32}


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Mixed precision for the network alone: "bf16", "fp16", or nothing at all for "float32"."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=DTYPES[precision])
