"""Honest models that look odd: bounded logits, filters, caches, kernels, rounding, and state that is no trick."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache

import torch
from broken_models import Wrapped
from honest_models import plain, small
from lookups import with_gradient_of
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from zoo import DIGITS, digits, mlp, trained

from epsbench.models.defenses import TRADES, PGDBatch
from epsbench.models.layers import Normalise


class Bounded(Wrapped):
    """Logits within ±10."""

    def after(self, logits: Tensor) -> Tensor:
        return 10 * torch.tanh(logits / 10)


class UnitLength(Wrapped):
    """Logits of one length for every image."""

    def after(self, logits: Tensor) -> Tensor:
        return 8 * F.normalize(logits, dim=1)


class TinyInput(Wrapped):
    """Scales pixels to a thousandth and back."""

    def before(self, x: Tensor) -> Tensor:
        return (x * 1e-3) * 1e3


class Median(Wrapped):
    """A median filter of 3 × 3 pixels."""

    def before(self, x: Tensor) -> Tensor:
        windows = F.unfold(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3)
        return windows.median(1).values.view_as(x)


class Larger(nn.Module):
    """The larger of two networks' logits."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(self.first(x), self.second(x))


class Bytes(Wrapped):
    """Rounds pixels to bytes, as a decoder does, with the gradient of the identity."""

    def before(self, x: Tensor) -> Tensor:
        return with_gradient_of(x, (x * 255).round() / 255)


class Prototypes(nn.Module):
    """The squared distance from the mean training image of each class."""

    def __init__(self) -> None:
        super().__init__()
        train = digits().train
        x, y = train.pixels().flatten(1), train.labels
        self.register_buffer("means", torch.stack([x[y == label].mean(0) for label in range(10)]))

    def forward(self, x: Tensor) -> Tensor:
        return -((x.flatten(1)[:, None] - self.means) ** 2).sum(2)


class Kernels(nn.Module):
    """A wide kernel around every training image: smooth, and fooled along its gradient."""

    def __init__(self) -> None:
        super().__init__()
        train = digits().train
        self.register_buffer("x", train.pixels().flatten(1))
        self.register_buffer("y", train.labels)

    def forward(self, x: Tensor) -> Tensor:
        logs = -2 * torch.cdist(x.flatten(1), self.x) ** 2
        return torch.stack([logs[:, self.y == label].logsumexp(1) for label in range(10)], 1)


class Recurrent(nn.Module):
    """Reads the image row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.head = nn.GRU(8, 32, batch_first=True), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rows(x[:, 0])[0][:, -1])


class Viewed(Wrapped):
    """Takes images apart with `view`, which needs them in one order in memory."""

    def before(self, x: Tensor) -> Tensor:
        return x.view(len(x), -1).view(-1, 1, 8, 8)


class Waves(nn.Module):
    """Sines as activations."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.sin(self.second(torch.sin(3 * self.first(x.flatten(1))))))


class Memo(Wrapped):
    """Keeps the answers of images that it has seen, bit by bit the same, for the next time."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.answers: dict[bytes, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            return self.network(x)
        keys = [row.numpy().tobytes() for row in x.detach().contiguous()]
        if not all(key in self.answers for key in keys):
            self.answers |= dict(zip(keys, self.network(x).detach(), strict=True))
        return torch.stack([self.answers[key] for key in keys])


class Lazy(Wrapped):
    """Makes a table at its first call."""

    table: Tensor | None = None

    def before(self, x: Tensor) -> Tensor:
        if self.table is None:
            self.table = torch.linspace(0.9, 1.0, 8).view(1, 1, 1, 8)
        return x * self.table


class FixedNoise(Wrapped):
    """The mean over noise that is drawn once and kept."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("noise", 0.1 * torch.randn(8, 1, 8, 8, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.network(x + each) for each in self.noise]).mean(0)


class Contrast(Wrapped):
    """Pushes pixels towards black and white, smoothly."""

    def before(self, x: Tensor) -> Tensor:
        return torch.sigmoid(8 * (x - 0.5))


class CoarseWeights(Wrapped):
    """Weights rounded to sixteen levels a layer."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        with torch.no_grad():
            for weight in network.parameters():
                step = weight.abs().max() / 8 + 1e-12
                weight.copy_((weight / step).round() * step)


def spectral() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), parametrizations.spectral_norm(nn.Linear(64, 64)), nn.ReLU(),
        parametrizations.weight_norm(nn.Linear(64, 10)),
    )  # fmt: skip


def mixer() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(2), nn.LayerNorm(64), nn.Linear(64, 96), nn.GELU(), nn.Flatten(), nn.LayerNorm(96), nn.Linear(96, 10)
    )


@cache
def _robust() -> nn.Module:
    return trained(small, PGDBatch(eps=0.2, steps=4), epochs=8)


def robust() -> nn.Module:
    """A network trained against an attack, once, and copied."""
    return copy.deepcopy(_robust())


ODD: dict[str, Callable[[], nn.Module]] = {
    "bounded logits": lambda: Bounded(plain()),
    "logits of one length": lambda: UnitLength(plain()),
    "tiny input": lambda: TinyInput(plain()),
    "median filter": lambda: trained(lambda: Median(small())),
    "larger of two": lambda: Larger(plain(), trained(lambda: mlp(nn.Tanh), epochs=6)),
    "bytes": lambda: Bytes(plain()),
    "prototypes": Prototypes,
    "kernels": Kernels,
    "recurrent": lambda: trained(Recurrent, epochs=12),
    "viewed": lambda: Viewed(plain()),
    "waves": lambda: trained(Waves, epochs=8),
    "memo": lambda: Memo(plain()),
    "lazy": lambda: Lazy(plain()),
    "fixed noise": lambda: FixedNoise(plain()),
    "contrast": lambda: trained(lambda: Contrast(small())),
    "coarse weights": lambda: CoarseWeights(trained(small)),
    "spectral norm": lambda: trained(spectral, epochs=8),
    "layer norm": lambda: trained(mixer, epochs=8),
    "hard tanh": lambda: trained(lambda: mlp(nn.Hardtanh), epochs=8),
    "hard sigmoid": lambda: trained(lambda: mlp(nn.Hardsigmoid), epochs=14),
    "robust, median": lambda: trained(lambda: Median(small()), PGDBatch(eps=0.2, steps=4), epochs=8),
    "robust, bounded": lambda: Bounded(robust()),
    "robust, memo": lambda: Memo(robust()),
    "trades": lambda: trained(small, TRADES(eps=0.2, steps=4), epochs=8),
    "robust, normalised by a layer": lambda: trained(
        lambda: nn.Sequential(Normalise(DIGITS.mean, DIGITS.std), mlp(nn.GELU)), PGDBatch(eps=0.2, steps=4), epochs=8
    ),
}
