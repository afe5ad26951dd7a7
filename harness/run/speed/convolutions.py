"""Strided convolutions whose input gradient is fast on a CPU.

An attack needs only the gradient with respect to the image. On a CPU the library's kernels for strided convolutions
take the largest part of it: more than half of smallcnn's gradient on MNIST, most of it in the first layer, where the
image has one channel (two AMD EPYC cores, torch 2.15, batch 128).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Pair = tuple[int, int]

SUBPIXEL = "sub-pixel gradients"
"""What the form of a victim or of a training is called where some of its layers are `SubpixelConv2d`."""

# Channels of the input, times what the zeros among the taps add (1 for a 4×4 kernel of stride 2, 1.8 for a 3×3). Up to
# this value it was 1.4 to 6 times as fast; with 64 channels the library's kernel is up to twice as fast (one AMD EPYC
# core, torch 2.15, layers of smallcnn and ResNet-18).
MOST_INPUTS = 24


class SubpixelConv2d(nn.Conv2d):
    """A strided convolution that goes backward as `subpixel_gradient`; forward it is what it was."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or not torch.is_grad_enabled():  # one image without a batch, or nothing to go back from
            return super().forward(x)
        # In training no columns: their sums round in another way, and weights are reproducible to the bit.
        result: Tensor = _Strided.apply(x, self.weight, self.bias, self.stride, self.padding, False)
        return result


def subpixel(network: nn.Module) -> int:
    """Turn those convolutions of ``network`` into `SubpixelConv2d`, in place, that gain by it; return their number."""
    chosen = [module for module in network.modules() if _gains(module)]
    for module in chosen:
        _become(module, SubpixelConv2d)
    return len(chosen)


@contextmanager
def subpixel_gradients(network: nn.Module, device: torch.device) -> Iterator[int]:
    """`subpixel`, on a CPU, and undone afterwards: what is left is the network that was given. Yields how many."""
    chosen = [module for module in network.modules() if _gains(module)] if device.type == "cpu" else []
    with layers_as(SubpixelConv2d, chosen):
        yield len(chosen)


@contextmanager
def layers_as(kind: type[nn.Conv2d], layers: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, these convolutions are of another class; afterwards they are `nn.Conv2d` again."""
    for layer in layers:
        _become(layer, kind)
    try:
        yield
    finally:
        for layer in layers:
            _become(layer, nn.Conv2d)


def subpixel_gradient(gradient: Tensor, weight: Tensor, size: Pair, stride: Pair, padding: Pair) -> Tensor:
    """The gradient (N, C, H, W) of a convolution's input of ``size`` (H, W), by a convolution of stride 1.

    ``gradient`` is that of the output, (N, K, h, w), ``weight`` the convolution's, (K, C, k, l). Input pixels whose
    places differ by a multiple of the stride meet the same taps of the kernel: each of these sets is a channel of one
    convolution without stride, and the image is those channels interleaved (Shi et al., 2016, section 2).
    """
    outputs, inputs, *kernel = weight.shape
    taps = [-(-k // s) for k, s in zip(kernel, stride, strict=True)]
    missing = [t * s - k for t, s, k in zip(taps, stride, kernel, strict=True)]
    split = F.pad(weight, (0, missing[1], 0, missing[0])).reshape(
        outputs, inputs, taps[0], stride[0], taps[1], stride[1]
    )
    phases = split.flip(2, 4).permute(3, 5, 1, 0, 2, 4).reshape(-1, outputs, *taps)
    image = F.conv2d(gradient, phases, padding=(taps[0] - 1, taps[1] - 1)).permute(0, 2, 3, 1)
    n, rows, columns, _ = image.shape
    image = image.reshape(n, rows, columns, *stride, inputs).transpose(2, 3)
    image = image.reshape(n, rows * stride[0], columns * stride[1], inputs).permute(0, 3, 1, 2)
    # Rows and columns at the end may be in no output; the padding comes off.
    beyond = [max(0, p + s - have) for p, s, have in zip(padding, size, image.shape[2:], strict=True)]
    if any(beyond):
        image = F.pad(image, (0, beyond[1], 0, beyond[0]))
    return image[:, :, padding[0] : padding[0] + size[0], padding[1] : padding[1] + size[1]]


def column_gradient(gradient: Tensor, weight: Tensor, size: Pair, stride: Pair, padding: Pair) -> Tensor:
    """As `subpixel_gradient`: what each output position adds to its window of the image, in one product, then summed.

    For images of one channel, where a sub-pixel convolution has too few channels to fill the processor's registers: 0.4
    to 0.6 times its time, kernels of 3 to 5 and stride 2 (one AMD EPYC core, torch 2.14). For three channels, and in
    bf16, it gains nothing.
    """
    columns = weight.flatten(1).t() @ gradient.flatten(2)
    return F.fold(columns, size, weight.shape[2:], padding=padding, stride=stride)


def _become(module: nn.Module, kind: type[nn.Conv2d]) -> None:
    """Change a layer's class: its parameters, hooks and names stay, for the optimizer and for checkpoints."""
    module.__class__ = kind


def gains(inputs: int, kernel: Sequence[int], stride: Sequence[int]) -> bool:
    """Whether a plain convolution of so many input channels is known to gain by `subpixel_gradient`."""
    if max(stride) == 1:
        return False
    taps: float = inputs
    for size, step in zip(kernel, stride, strict=True):
        taps *= -(-size // step) * step / size
    return taps <= MOST_INPUTS


def _gains(module: nn.Module) -> bool:
    """Whether the input gradient of this module is a strided convolution's that is known to gain."""
    if type(module) is not nn.Conv2d or module.groups != 1 or module.dilation != (1, 1):
        return False
    if module.weight.is_complex() or module.padding_mode != "zeros" or isinstance(module.padding, str):
        return False
    return gains(module.in_channels, module.kernel_size, module.stride)


def strided_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair) -> Tensor:
    """A convolution of images (N, C, H, W) that goes backward as `subpixel_gradient`.

    For float32 images of one channel, as `column_gradient`.
    """
    columns = weight.shape[1] == 1 and weight.dtype == torch.float32
    result: Tensor = _Strided.apply(x, weight, bias, stride, padding, columns)
    return result


class _Strided(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, columns: bool) -> Tensor:
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None, Pair, Pair, bool], output: Tensor) -> None:
        x, weight, bias, ctx.stride, ctx.padding, ctx.columns = inputs
        ctx.size, ctx.bias = x.shape[2:], None if bias is None else list(bias.shape)
        # An attack asks for no gradient of weights: the layer's input need not be kept.
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None, None]:
        x, weight = ctx.saved_tensors
        wanted, low = ctx.needs_input_grad, weight.to(gradient.dtype)  # autocast has left when gradients come back
        of_input = column_gradient if ctx.columns else subpixel_gradient
        of_x = of_input(gradient, low, ctx.size, ctx.stride, ctx.padding) if wanted[0] else None
        of_weight = of_bias = None
        if wanted[1]:
            _, of_weight, of_bias = torch.ops.aten.convolution_backward(
                gradient, x.to(gradient.dtype), low, ctx.bias, ctx.stride, ctx.padding, (1, 1), False, (0, 0), 1,
                (False, True, wanted[2]),
            )  # fmt: skip
            of_weight = of_weight.to(weight.dtype)
        elif wanted[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_x, of_weight, of_bias, None, None, None
