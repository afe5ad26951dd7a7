"""Strided 1 × 1 convolutions of few channels, trained without a fault of oneDNN."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from epsbench.harness.run.speed.convolutions import layers_as

# With channels last in memory and fewer input channels than a register has numbers (8 with AVX2, 16 with AVX-512),
# oneDNN 3.12 computes the gradient of such a layer's weights beyond the memory that it has: the weights are wrong, or
# the process hangs or is aborted (uxlfoundation/oneDNN, issue 6035; seen with torch 2.14 on AVX2).
_REGISTER = 16


class SlicedConv2d(nn.Conv2d):
    """A strided 1 × 1 convolution as one without stride, of the pixels that its kernel meets: the same function."""

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.stride
        return F.conv2d(x[..., ::rows, ::columns], self.weight, self.bias)


@contextmanager
def sliced_convolutions(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Turn convolutions of ``network`` that could meet the fault, on a CPU, into `SlicedConv2d`; back at the end."""
    chosen = [module for module in network.modules() if _meets_the_fault(module)] if device.type == "cpu" else []
    with layers_as(SlicedConv2d, chosen):
        yield


def _meets_the_fault(module: nn.Module) -> bool:
    if type(module) is not nn.Conv2d or module.groups > 1 or module.padding not in ("valid", (0, 0)):
        return False
    return module.kernel_size == (1, 1) and max(module.stride) > 1 and module.in_channels < _REGISTER
