"""More honest models: each has something that an audit could take for a trick."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache

import torch
from broken_models import Masked, Wrapped
from torch import Tensor, nn
from torch.nn import functional as F
from zoo import DIGITS, cnn, mlp, trained

from epsbench.models.catalogue import SmallCNN
from epsbench.models.defenses import FGSMLoss, PGDBatch


class Float64(Wrapped):
    """Computes in float64."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network.double())

    def before(self, x: Tensor) -> Tensor:
        return x.double()

    def after(self, logits: Tensor) -> Tensor:
        return logits.float()


class Temperature(Wrapped):
    """Logits times a moderate factor."""

    def __init__(self, network: nn.Module, factor: float) -> None:
        super().__init__(network)
        self.factor = factor

    def after(self, logits: Tensor) -> Tensor:
        return logits * self.factor


class Ensemble(nn.Module):
    """The mean of the logits of several networks."""

    def __init__(self, *networks: nn.Module) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([network(x) for network in self.networks]).mean(0)


class Shifts(Wrapped):
    """The mean over small shifts of the image."""

    def forward(self, x: Tensor) -> Tensor:
        return sum(self.network(x.roll(shift, 3)) for shift in (-1, 0, 1)) / 3


class Blur(Wrapped):
    """Smooths the image first."""

    def before(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)


class LogProbabilities(Wrapped):
    """Returns log-probabilities, for which the cross-entropy is the same."""

    def after(self, logits: Tensor) -> Tensor:
        return logits.log_softmax(1)


class Cosine(nn.Module):
    """A classifier by the angle to a direction for each class."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32))
        self.classes = nn.Parameter(torch.randn(10, 32))

    def forward(self, x: Tensor) -> Tensor:
        return 10 * F.normalize(self.features(x), dim=1) @ F.normalize(self.classes, dim=1).T


class PerImage(nn.Module):
    """Subtracts the image's own mean and divides by its deviation."""

    def __init__(self) -> None:
        super().__init__()
        self.network = mlp(nn.ReLU)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return self.network((flat - flat.mean(1, keepdim=True)) / (flat.std(1, keepdim=True) + 1e-3))


class Residual(nn.Module):
    """Adds a layer's input to its output."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.normal, self.head = nn.BatchNorm2d(16), nn.Linear(16 * 64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        return self.head(F.relu(x + self.normal(self.second(x))).flatten(1))


class Experts(nn.Module):
    """Two networks, mixed by a smooth gate."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList([mlp(nn.ReLU, 32), mlp(nn.Tanh, 32)])
        self.gate = nn.Sequential(nn.Flatten(), nn.Linear(64, 2), nn.Softmax(1))

    def forward(self, x: Tensor) -> Tensor:
        first, second = (expert(x) for expert in self.experts)
        weight = self.gate(x)
        return weight[:, :1] * first + weight[:, 1:] * second


class Caches(Wrapped):
    """Keeps its last features for others to read, and counts its calls."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.calls, self.last = 0, torch.zeros(0)

    def after(self, logits: Tensor) -> Tensor:
        self.calls, self.last = self.calls + 1, logits.detach()
        return logits


def small(width: int = 16) -> nn.Module:
    return SmallCNN(width=width).build(DIGITS)


@cache
def _plain() -> nn.Module:
    return trained(lambda: cnn(nn.BatchNorm2d, nn.MaxPool2d(2)))


def plain() -> nn.Module:
    """A network with batch norm, trained once and copied."""
    return copy.deepcopy(_plain())


def dropped() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 10))


MORE_HONEST: dict[str, Callable[[], nn.Module]] = {
    "float64": lambda: Float64(plain()),
    "temperature 3": lambda: Temperature(trained(lambda: mlp(nn.ReLU), epochs=6), 3.0),
    "temperature 0.2": lambda: Temperature(plain(), 0.2),
    "ensemble": lambda: Ensemble(plain(), trained(lambda: mlp(nn.Tanh), epochs=6)),
    "mean over shifts": lambda: Shifts(trained(small)),
    "masked class": lambda: Masked(trained(small)),
    "blur": lambda: trained(lambda: Blur(small())),
    "log-probabilities": lambda: LogProbabilities(plain()),
    "cosine": lambda: trained(Cosine, epochs=8),
    "normalised by image": lambda: trained(PerImage, epochs=6),
    "residual": lambda: trained(Residual),
    "experts": lambda: trained(Experts, epochs=8),
    "caches": lambda: Caches(plain()),
    "dropout": lambda: trained(dropped, epochs=8),
    "softplus": lambda: trained(lambda: mlp(nn.Softplus), epochs=8),
    "convolution, tanh": lambda: trained(lambda: cnn(nn.BatchNorm2d, nn.MaxPool2d(2), nn.Tanh)),
    "convolution, leaky": lambda: trained(lambda: cnn(nn.Identity, nn.MaxPool2d(2), nn.LeakyReLU)),
    "trained long": lambda: trained(small, epochs=25),
    "few steps of robust training": lambda: trained(small, PGDBatch(eps=0.1, steps=2), epochs=6),
    "robust at a large ε": lambda: trained(small, PGDBatch(eps=0.3, steps=5), epochs=15),
    "robust, wide": lambda: trained(lambda: small(32), PGDBatch(eps=0.15, steps=5), epochs=12),
    "robust, linear": lambda: trained(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
                                      PGDBatch(eps=0.1, steps=3), epochs=10),
    "robust ensemble": lambda: Ensemble(trained(small, PGDBatch(eps=0.2, steps=4), epochs=8),
                                        trained(lambda: mlp(nn.ReLU), PGDBatch(eps=0.2, steps=4), epochs=8)),
    "one-step training": lambda: trained(small, FGSMLoss(eps=0.05), epochs=6),
}  # fmt: skip
