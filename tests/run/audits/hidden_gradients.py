"""Models whose gradient is not that of their outputs, or is 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from broken_models import Wrapped
from lookups import SURE
from torch import Tensor, nn


class Spoiled(torch.autograd.Function):
    """The identity, with a gradient of one's own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, spoil: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.spoil = spoil
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.spoil(gradient), None


class SpoiledGradient(Wrapped):
    """``spoil`` changes the gradient on its way back to the pixels."""

    def __init__(self, network: nn.Module, spoil: Callable[[Tensor], Tensor]) -> None:
        super().__init__(network)
        self.spoil = spoil

    def before(self, x: Tensor) -> Tensor:
        return Spoiled.apply(x, self.spoil)


def flipped(gradient: Tensor) -> Tensor:
    return -gradient


def zeroed(gradient: Tensor) -> Tensor:
    return gradient * 0


def clipped(gradient: Tensor) -> Tensor:
    return torch.where(gradient.abs() > 1e3, gradient, 0 * gradient)


def scrambled(gradient: Tensor) -> Tensor:
    return gradient.flatten(1)[:, torch.randperm(64, generator=torch.Generator().manual_seed(0))].view_as(gradient)


def corner(gradient: Tensor) -> Tensor:
    kept = torch.zeros_like(gradient)
    kept[:, :, 0, 0] = 1.0
    return kept * (gradient + 1e-3)


class Hooked(Wrapped):
    """A hook on the input's gradient."""

    def before(self, x: Tensor) -> Tensor:
        x = x * 1
        if x.requires_grad:
            x.register_hook(flipped)
        return x


class Levels(Wrapped):
    """A few grey levels, whose derivative is 0."""

    def before(self, x: Tensor) -> Tensor:
        return (x * 4).round() / 4


class Thermometer(Wrapped):
    """Counts thresholds below a pixel: not differentiable."""

    def before(self, x: Tensor) -> Tensor:
        steps = torch.arange(1, 5, device=x.device) / 4 - 0.01
        return (x[..., None] >= steps).float().mean(-1)


class Frequencies(Wrapped):
    """Rounds the coefficients of a discrete cosine transform, as JPEG does."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        place, order = torch.arange(8.0), torch.arange(8.0)[:, None]
        basis = torch.cos(torch.pi / 8 * (place + 0.5) * order) * 0.5
        basis[0] /= 2**0.5
        self.register_buffer("basis", basis)

    def before(self, x: Tensor) -> Tensor:
        spectrum = self.basis @ x @ self.basis.T
        return self.basis.T @ ((spectrum * 2.5).round() / 2.5) @ self.basis


class Saturated(Wrapped):
    """Every logit is at one of two ends."""

    def after(self, logits: Tensor) -> Tensor:
        return torch.tanh(20 * (logits - logits.amax(1, keepdim=True) + 0.05)) * 30


class OneHot(Wrapped):
    """The class as an answer, without scores or gradient."""

    def after(self, logits: Tensor) -> Tensor:
        return nn.functional.one_hot(logits.argmax(1), 10).float() * SURE + 0 * logits


class Ripple(Wrapped):
    """A ripple on the logits, too fine to see, that decides the gradient."""

    def forward(self, x: Tensor) -> Tensor:
        ripple = torch.sin(2e4 * x).flatten(1) @ torch.ones(64, 10, device=x.device).tril_()
        return self.network(x) + 1e-2 * ripple


class RandomWithGradients(Wrapped):
    """Noise only where a gradient is taken."""

    def before(self, x: Tensor) -> Tensor:
        return x + 0.5 * torch.randn_like(x) if x.requires_grad else x
