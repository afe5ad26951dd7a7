"""The judge: the untouched model in float32, which alone decides what is correct."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from epsbench.harness.run.attack.few_rows import alike, with_alike_products
from epsbench.harness.run.machine.copies import copy_of
from epsbench.harness.run.machine.memory import in_chunks


def frozen_copy(model: nn.Module, device: torch.device) -> nn.Module:
    """A copy in evaluation mode whose parameters need no gradient; the caller's model is not touched."""
    return copy_of(model).to(device).eval().requires_grad_(False)


def in_float32(network: nn.Module) -> nn.Module:
    """The network with half-precision weights and buffers made float32, in place; float64 stays float64."""
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.dtype in (torch.float16, torch.bfloat16):
            tensor.data = tensor.data.float()
    return network


class Judge:
    """The untouched model in float32 and evaluation mode. It alone decides whether an example is correct or fooled.

    ``layout`` is how weights and images lie in memory, ``batch`` how many images are judged at a time;
    `epsbench.harness.run.speed.judging` finds the fastest.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.network = with_alike_products(in_float32(frozen_copy(model, device)))
        self.device = device
        self.forwards = 0
        self.layout = torch.contiguous_format
        self.batch = 0

    random = False
    """Whether the model answers at random."""

    votes = 1
    """The passes behind each verdict: more than one where the model is random."""

    def lay(self, layout: torch.memory_format, batch: int) -> None:
        """From now on judge images in this layout in memory, ``batch`` at a time or as many as the caller says."""
        self.layout, self.batch = layout, batch
        self.network.to(memory_format=layout)

    @torch.no_grad()
    def logits(self, x: Tensor, batch: int, examples: Tensor | None = None) -> Tensor:
        """Float32 logits (N, classes) of pixels (N, C, H, W), in batches of ``batch`` or its own, if that is larger.

        ``examples`` (N,) are the images' places in their split; a model that is random draws by them. Default: 0 to N.
        """
        self.forwards += len(x)
        x = x.contiguous(memory_format=self.layout)
        with torch.autocast(self.device.type, enabled=False):
            return in_chunks(lambda rows: alike(self._logits, x[rows]), len(x), max(batch, self.batch))

    def _logits(self, x: Tensor) -> Tensor:
        return self.network(x).float()

    def verdict(self, x: Tensor, y: Tensor, batch: int, examples: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`logits`, and the class (N,) that decides about each image; ``y`` (N,) are the labels."""
        logits = self.logits(x, batch, examples)
        return logits, logits.argmax(1)

    def function(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of pixels, as a function that can be differentiated."""
        logits: Tensor = self.network(x)
        return logits
