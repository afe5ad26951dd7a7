"""Mixed precision, for the network only."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial

import torch
from torch.nn import functional as F

from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.machine.timing import seconds

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "float32": torch.float32}

# A CPU without units for bf16 computes in it all the same. On an AMD EPYC with AVX2 alone a convolution and its
# gradients took 8 to 25 times as long as in float32, an epoch of the small CNN on CIFAR-10 14 times (torch 2.14). Below
# this ratio attacks are timed in both precisions, model by model, where that is worth it; trainings are not.
_NO_UNITS, _TRIALS = 3.0, 3


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """A context in which networks compute in "bf16" or "fp16"; for "float32" it changes nothing."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=DTYPES[precision])


def has_units(device: torch.device, precision: str) -> bool:
    """Whether ``device`` has units for ``precision``: else it computes in it many times slower than in float32."""
    if device.type == "cuda":
        return precision != "bf16" or torch.cuda.is_bf16_supported(including_emulation=False)
    return times_as_long(precision) < _NO_UNITS


def no_units(precision: str) -> Finding:
    """The finding that networks compute in float32, because the machine has no units for ``precision``.

    It does not say how many times as long they took: it is the same finding for all cells, whichever process timed it.
    """
    fact = f"this machine has no units for {precision} and is many times slower in it; float32 is used, in training too"
    return finding("not-mixed", fact)


@cache
def times_as_long(precision: str) -> float:
    """How many times as long as in float32 a CPU takes for a small convolution and its gradients."""
    if precision == "float32":
        return 1.0
    cpu = torch.device("cpu")
    shortest = []
    with torch.inference_mode(False), torch.enable_grad():
        for name in (precision, "float32"):
            call = partial(_convolve, DTYPES[name])
            call()  # the first call chooses kernels
            shortest.append(min(seconds(call, cpu, 1) for _ in range(_TRIALS)))
    return shortest[0] / shortest[1]


def _convolve(dtype: torch.dtype) -> None:
    x = torch.ones(32, 32, 16, 16, dtype=dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.ones(32, 32, 3, 3, dtype=dtype, requires_grad=True)
    torch.autograd.grad(F.conv2d(x, weight, padding=1).sum(), (x, weight))
