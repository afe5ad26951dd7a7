"""Honest networks of unusual make, and of unusual outputs; none may be remarked on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from broken_models import Wrapped
from honest_models import plain, small
from lookups import with_gradient_of
from odd_models import robust
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune
from zoo import cnn, digits, mlp, trained

from epsbench.models.defenses import FGSMLoss, PGDBatch


class SoftNeighbours(nn.Module):
    """Votes of the nearest training images, weighted smoothly by the distance of learned features."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.features = network[:-1]
        train = digits().train
        with torch.no_grad():
            self.register_buffer("known", F.normalize(self.features(train.pixels()), dim=1))
        self.register_buffer("votes", F.one_hot(train.labels, 10).float())

    def forward(self, x: Tensor) -> Tensor:
        close = F.normalize(self.features(x), dim=1) @ self.known.T
        return ((8 * close).softmax(1) @ self.votes + 1e-3).log()


class EightBits(nn.Module):
    """Weights and activations rounded to 8 bits; the gradient is that of the network without rounding."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        with torch.no_grad():
            for weight in network.parameters():
                step = weight.abs().max() / 127 + 1e-12
                weight.copy_((weight / step).round() * step)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.network:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                x = with_gradient_of(x, (x / 0.04).round() * 0.04)
        return x


class StochasticDepth(nn.Module):
    """Residual layers that are left out at random in training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 64)
        self.blocks = nn.ModuleList(nn.Linear(64, 64) for _ in range(3))
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x.flatten(1)))
        for block in self.blocks:
            kept = 0.8 if not self.training else float(torch.rand(()) < 0.8)
            x = x + kept * F.relu(block(x))
        return self.head(x)


class Faint(Wrapped):
    """Nearly constant: a thousandth of the logits, around a large constant."""

    def after(self, logits: Tensor) -> Tensor:
        return 5.0 + 1e-3 * logits


class Loud(Wrapped):
    """Large logits: ten times a small network's, with weight decay enough that none saturates."""

    def after(self, logits: Tensor) -> Tensor:
        return 100.0 + 3 * logits


class Maxout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 64 * 4), nn.Linear(64, 10 * 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.flatten(1)).view(len(x), 64, 4).amax(2)
        return self.second(x).view(len(x), 10, 4).amax(2)


class Spectrum(nn.Module):
    """Reads the amplitudes of the image's Fourier transform beside its pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64 + 40, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        waves = torch.fft.rfft2(x)
        amplitudes = (waves.real**2 + waves.imag**2 + 1e-3).sqrt()
        return self.layers(torch.cat([x.flatten(1), 0.2 * amplitudes.flatten(1)], 1))


class MeanOfProbabilities(nn.Module):
    """The logarithm of the mean probabilities of two networks."""

    def __init__(self, *networks: nn.Module) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([network(x).log_softmax(1) for network in self.networks]).logsumexp(0)


class Patches(nn.Module):
    """Sees patches of 4 × 4 pixels on their own, and adds up what each votes."""

    def __init__(self) -> None:
        super().__init__()
        self.votes = nn.Sequential(nn.Conv2d(1, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 10, 1))
        self.weights = nn.Parameter(torch.ones(9, 10))

    def forward(self, x: Tensor) -> Tensor:
        return (self.votes(x).flatten(2) * self.weights.T).sum(2)


def pools() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.MaxPool2d(3, 1, 1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1), nn.MaxPool2d(3, 1, 1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip


def pruned() -> nn.Module:
    network = trained(lambda: mlp(nn.ReLU, 128), epochs=6)
    for layer in network:
        if isinstance(layer, nn.Linear):
            prune.remove(prune.l1_unstructured(layer, "weight", 0.7), "weight")
    return network


ODD_NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "pools": lambda: trained(pools, epochs=5),
    "smooth neighbours": lambda: SoftNeighbours(trained(lambda: mlp(nn.ReLU), epochs=6)),
    "smooth neighbours, robust": lambda: SoftNeighbours(
        trained(lambda: mlp(nn.ReLU), PGDBatch(eps=0.15, steps=4), epochs=8)
    ),
    "eight bits": lambda: EightBits(trained(lambda: mlp(nn.ReLU), epochs=6)),
    "eight bits, robust": lambda: EightBits(trained(lambda: mlp(nn.ReLU), PGDBatch(eps=0.15, steps=4), epochs=8)),
    "stochastic depth": lambda: trained(StochasticDepth, epochs=8),
    "nearly constant": lambda: Faint(plain()),
    "nearly constant, robust": lambda: Faint(robust()),
    "large logits": lambda: Loud(trained(small)),
    "large logits, robust": lambda: Loud(robust()),
    "maxout": lambda: trained(Maxout, epochs=6),
    "spectrum": lambda: trained(Spectrum, epochs=8),
    "mean of probabilities": lambda: MeanOfProbabilities(plain(), trained(lambda: mlp(nn.Tanh), epochs=6)),
    "patches": lambda: trained(Patches, epochs=10),
    "pruned": pruned,
    "low accuracy": lambda: trained(small, epochs=1, learning_rate=1e-3),
    "robust, tanh": lambda: trained(lambda: mlp(nn.Tanh), PGDBatch(eps=0.15, steps=4), epochs=10),
    "robust, pools": lambda: trained(pools, PGDBatch(eps=0.2, steps=4), epochs=8),
    "robust, batch norm": lambda: trained(
        lambda: cnn(nn.BatchNorm2d, nn.MaxPool2d(2)), PGDBatch(eps=0.2, steps=4), epochs=8
    ),
    "robust, hardly trained": lambda: trained(small, PGDBatch(eps=0.2, steps=4), epochs=2),
    "robust, deep and linear": lambda: trained(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Linear(64, 10)), FGSMLoss(eps=0.1), epochs=6
    ),
}
