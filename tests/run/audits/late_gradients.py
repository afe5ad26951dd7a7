"""Models whose gradient is true at clean images and spoiled where an attack goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from broken_models import Wrapped
from hidden_gradients import flipped, scrambled
from lookups import SURE, with_gradient_of
from torch import Tensor, nn


def off_grid(x: Tensor) -> Tensor:
    """Which images (N,) have pixels that are no stored values of the digits."""
    return ((x * 16 - (x * 16).round()).abs() > 1e-3).flatten(1).any(1)


class SpoiledWhere(torch.autograd.Function):
    """The identity; the gradient of some rows is spoiled."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, spoil: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.rows, ctx.spoil = rows, spoil
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        rows = ctx.rows.view(-1, *[1] * (gradient.dim() - 1))
        return torch.where(rows, ctx.spoil(gradient), gradient), None, None


class SpoiledOffGrid(Wrapped):
    """The gradient is spoiled off the grid of stored pixels."""

    def __init__(self, network: nn.Module, spoil: Callable[[Tensor], Tensor]) -> None:
        super().__init__(network)
        self.spoil = spoil

    def before(self, x: Tensor) -> Tensor:
        return SpoiledWhere.apply(x, off_grid(x), self.spoil)


class FlipsSome(SpoiledOffGrid):
    """The sign of every second gradient is flipped, by a hash of the image."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network, flipped)

    def before(self, x: Tensor) -> Tensor:
        rows = (x.flatten(1).double() * 1e5).floor().sum(1) % 2 == 1
        return SpoiledWhere.apply(x, rows, self.spoil)


class FlipsUnsure(Wrapped):
    """The gradient is flipped where the network is no longer sure."""

    def before(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            unsure = self.network(x.detach()).softmax(1).amax(1) < 0.9
        return SpoiledWhere.apply(x, unsure, flipped)


class FlipsCrossEntropy(Wrapped):
    """Flips the gradient of a loss that is nearly flat, as the cross-entropy of a confident answer is."""

    def after(self, logits: Tensor) -> Tensor:
        return FlatFlipped.apply(logits)


class FlatFlipped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        return logits.view_as(logits)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.where(gradient.abs().amax(1, keepdim=True) < 0.9, -gradient, gradient)


class OneHotOffGrid(Wrapped):
    """Off the grid it tells its class alone, without a gradient."""

    def forward(self, x: Tensor) -> Tensor:
        logits = self.network(x)
        hard = nn.functional.one_hot(logits.argmax(1), 10).float() * SURE
        return torch.where(off_grid(x)[:, None], hard, logits)


class HotOffGrid(Wrapped):
    """Off the grid its logits are multiplied: the cross-entropy is flat."""

    def forward(self, x: Tensor) -> Tensor:
        logits = self.network(x)
        return torch.where(off_grid(x)[:, None], 1000 * logits, logits)


class NotANumberOffGrid(Wrapped):
    """The gradient is no number off the grid."""

    def before(self, x: Tensor) -> Tensor:
        return SpoiledWhere.apply(x, off_grid(x), lambda gradient: gradient * torch.nan)


class NotANumberSomewhere(Wrapped):
    """One pixel in a corner has no gradient: the square root at 0."""

    def before(self, x: Tensor) -> Tensor:
        corner = torch.zeros_like(x)
        corner[:, :, 0, 0] = 1
        return x + corner * ((x * 0).abs()).sqrt()


class BackwardHook(Wrapped):
    """A hook on the network's backward pass returns another gradient."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.identity = nn.Identity()
        self.identity.register_full_backward_hook(_scramble)

    def before(self, x: Tensor) -> Tensor:
        return self.identity(x)


def _scramble(module: nn.Module, inputs: tuple[Tensor], outputs: tuple[Tensor]) -> tuple[Tensor]:
    return (scrambled(inputs[0]),)


class Winners(nn.Module):
    """Keeps the largest activations of each image alone."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        least = flat.topk(max(1, int(self.share * flat.shape[1])), 1).values[:, -1:]
        return torch.where(flat >= least, flat, 0 * flat).view_as(x)


class StraightThermometer(Wrapped):
    """A thermometer code; the gradient goes to another pixel."""

    def before(self, x: Tensor) -> Tensor:
        steps = torch.arange(1, 5, device=x.device) / 4 - 0.01
        return with_gradient_of(x.flip(2), (x[..., None] >= steps).float().mean(-1))


class SmoothedByImage(Wrapped):
    """The mean over noise that is drawn from the image's bits."""

    def forward(self, x: Tensor) -> Tensor:
        seeds = (x.flatten(1).double() * 1e6).sum(1).view(-1, 1, 1, 1)
        place = torch.arange(64, device=x.device).view(1, *x.shape[1:])
        noise = [0.5 * torch.sin(seeds.detach() * (place + 1.7) * k).float() for k in (13.1, 5.3, 7.9)]
        return torch.stack([self.network(x + each) for each in noise]).mean(0)


class Members(nn.Module):
    """An ensemble that asks one member, by a hash of the image."""

    def __init__(self, *networks: nn.Module) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        number = (x.flatten(1).double() * 1e4).floor().sum(1).long() % len(self.networks)
        logits = torch.stack([network(x) for network in self.networks], 1)
        return logits[torch.arange(len(x), device=x.device), number]


class Outward(Wrapped):
    """The gradient moves only pixels at the ends of their range, and outwards."""

    def before(self, x: Tensor) -> Tensor:
        outwards = (x.detach() >= 1).float() - (x.detach() <= 0).float()
        return with_gradient_of(x * outwards * 1.0 if x.requires_grad else x, x)


class Wobbles(Wrapped):
    """A continuous ripple, too small to matter, turns the true derivative round at most places."""

    def before(self, x: Tensor) -> Tensor:
        return x + 0.03 * torch.sin(150 * x + 1)


class Sawtooth(Wrapped):
    """Steps that rise, with slopes between them that fall: the derivative is true, and points the wrong way."""

    def before(self, x: Tensor) -> Tensor:
        level = (x * 10 + 0.3).round() / 10
        return level - 0.5 * (x - level)


class Steep(Wrapped):
    """Nearly black and white: the derivative is true, and 0 at most pixels."""

    def before(self, x: Tensor) -> Tensor:
        return torch.sigmoid(400 * (x - 0.47))
