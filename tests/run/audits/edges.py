"""Models that do something at pixels of exactly 0 or 1, where most pixels of digits are."""

from __future__ import annotations

from collections.abc import Callable

import torch
from broken_models import Wrapped
from honest_models import plain
from torch import Tensor, nn
from torch.nn import functional as F
from zoo import cnn, mlp, trained


class Before(Wrapped):
    """Changes pixels by a function first."""

    def __init__(self, network: nn.Module, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__(network)
        self.function = function

    def before(self, x: Tensor) -> Tensor:
        return self.function(x)


def clamp_is_flat_at_its_ends() -> bool:
    """Whether torch's clamp has the derivative 0 at its ends, as it has from some version on."""
    x = torch.zeros(1, requires_grad=True)
    (slope,) = torch.autograd.grad(x.clamp(0, 1).sum(), x)
    return float(slope) == 0


# They change no pixel in [0, 1], so the network is as robust as without them. PGD leaves 24 points more of its images.
STUCK: dict[str, Callable[[Tensor], Tensor]] = {
    "hardtanh": lambda x: (F.hardtanh(2 * x - 1) + 1) / 2,
    "relu6": lambda x: F.relu6(6 * x) / 6,
    "relu": F.relu,
    "abs": torch.abs,
}
CLAMPED: dict[str, Callable[[Tensor], Tensor]] = {"clamped": lambda x: x.clamp(0, 1)}
EDGES: dict[str, tuple[Callable[[nn.Module], nn.Module], set[str]]] = {
    name: (lambda network, function=function: Before(network, function), {"stuck-at-bounds"})
    for name, function in (STUCK | (CLAMPED if clamp_is_flat_at_its_ends() else {})).items()
}
"""How each is made of an honest network, and the codes that fit."""


def convolution(bias: bool) -> nn.Module:
    """Without a bias, the first layer's ReLU is at its kink wherever the image is black."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=bias), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip


def padded() -> nn.Module:
    return nn.Sequential(nn.ZeroPad2d(2), nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1600, 10))


def between(x: Tensor) -> Tensor:
    """A clamp to [0, 1] whose derivative at the ends is ½."""
    return x.maximum(x.new_zeros(())).minimum(x.new_ones(()))


HONEST_EDGES: dict[str, Callable[[], nn.Module]] = {
    "clamped by minimum and maximum": lambda: Before(plain(), between),
    "clamped further out": lambda: Before(plain(), lambda x: x.clamp(-0.1, 1.1)),
    "squared": lambda: Before(plain(), torch.square),
    "gamma": lambda: Before(plain(), lambda x: (x + 1e-3) ** 0.8),
    "bytes, straight through": lambda: Before(plain(), lambda x: x + ((x * 255).round() / 255 - x).detach()),
    "no bias": lambda: trained(lambda: convolution(bias=False), epochs=8),
    "padded": lambda: trained(padded, epochs=8),
    "relu6 inside": lambda: trained(lambda: mlp(nn.ReLU6), epochs=6),
    "hardtanh inside": lambda: trained(lambda: mlp(nn.Hardtanh), epochs=6),
    "hardswish": lambda: trained(lambda: cnn(nn.BatchNorm2d, nn.MaxPool2d(2), nn.Hardswish)),
} | {name: (lambda function=function: Before(plain(), function)) for name, function in CLAMPED.items()
     if not clamp_is_flat_at_its_ends()}  # fmt: skip
