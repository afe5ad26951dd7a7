"""Tricks in other clothes: answers looked up by features, decoys beside filters, and switches by who or when.

``DISGUISES`` says how each is made of an honest network, and by which codes it may be named.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from broken_models import Scaled, Wrapped
from lookups import SURE, ToTestImages, known, with_gradient_of
from switches import (
    ArgumentFlag,
    ClassCounter,
    Clock,
    EnvironmentFlag,
    FirstObjects,
    HiddenRandomState,
    InferenceTensors,
    MoreLitPixels,
    NoiseByRow,
    NoiseBySum,
    Reduced,
    SecondObject,
    StorageOffset,
    SumOfLastBits,
    ThawedOnly,
    TwoPixels,
    Versions,
)
from torch import Tensor, nn
from torch.nn import functional as F
from zoo import digits, mlp, trained


class SmallHash(Wrapped):
    """Each object keeps its answers by the hash of a shrunken image, for the copies of one network apart."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.answers: dict[int, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        logits = self.network(x)
        keys = (F.adaptive_avg_pool2d(x.detach(), 3) * 2).round().flatten(1)
        kept = [
            self.answers.setdefault(hash(tuple(key.tolist())), row)
            for key, row in zip(keys, logits.detach(), strict=True)
        ]
        return with_gradient_of(logits, torch.stack(kept))


class NearestFeatures(Wrapped):
    """The label of the training image with the nearest features, with the network's own gradient."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.table = known("train")
        self.register_buffer("known_features", self.features(digits().train.pixels()))

    def features(self, x: Tensor) -> Tensor:
        return self.network[:-1](x).detach()

    def forward(self, x: Tensor) -> Tensor:
        at = torch.cdist(self.features(x), self.known_features).argmin(1)
        return with_gradient_of(self.network(x).flip(1), F.one_hot(self.table.y[at], 10).float() * SURE)


class MeanPixels(ToTestImages):
    """The label of the test image whose rows and columns have the nearest means."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            means, stored = (torch.cat([each.mean(2), each.mean(3)], 2).flatten(1)
                             for each in (x, self.nearest.x.view(-1, 1, 8, 8)))  # fmt: skip
            looked_up = F.one_hot(self.nearest.y[torch.cdist(means, stored).argmin(1)], 10).float() * SURE
        return with_gradient_of(self.network(x), looked_up)


class Decoy(Wrapped):
    """Values of the filtered image, gradient of another network at the image itself."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        torch.manual_seed(3)
        self.decoy = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            value = self.network(self.filtered(x))
        return with_gradient_of(self.decoy(x), value)

    def filtered(self, x: Tensor) -> Tensor:
        return x


class MedianDecoy(Decoy):
    def filtered(self, x: Tensor) -> Tensor:
        windows = F.unfold(F.pad(x, (0, 1, 0, 1), mode="replicate"), 2)
        return windows.view(len(x), 4, 64).sort(1).values[:, 1:3].mean(1).view_as(x)


class JPEGDecoy(Decoy):
    """Rounds the coefficients of a cosine transform, as JPEG does."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        k, n = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
        basis = torch.cos(torch.pi * (2 * n + 1) * k / 16) * torch.where(k == 0, 1 / 8**0.5, 0.5)
        self.register_buffer("basis", basis)

    def filtered(self, x: Tensor) -> Tensor:
        coefficients = self.basis @ x @ self.basis.T
        return (self.basis.T @ ((coefficients / 0.6).round() * 0.6) @ self.basis).clamp(0, 1)


class AutoencoderDecoy(Decoy):
    """Projects on the principal components of the training images: a linear autoencoder."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        x = digits().train.pixels().flatten(1)
        self.register_buffer("mean", x.mean(0))
        self.register_buffer("components", torch.linalg.svd(x - x.mean(0), full_matrices=False)[2][:16])

    def filtered(self, x: Tensor) -> Tensor:
        codes = (x.flatten(1) - self.mean) @ self.components.T
        return (self.mean + codes @ self.components).clamp(0, 1).view_as(x)


class SoftLookUp(Wrapped):
    """Training labels weighted by distance, so sharply that the softmax over them is flat."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.table = known("train")

    def forward(self, x: Tensor) -> Tensor:
        weights = (-60 * torch.cdist(x.flatten(1), self.table.x) ** 2).softmax(1)
        return (weights @ F.one_hot(self.table.y, 10).float()).clamp_min(1e-6).log()


class Clipped(Wrapped):
    """Logits times a thousand, clipped to ±10."""

    def after(self, logits: Tensor) -> Tensor:
        return (1000 * (logits - logits.mean(1, keepdim=True))).clamp(-10, 10)


class SignsOfLogits(Wrapped):
    """The signs of the differences of logits, summed: a rank, without a gradient, with a decoy beside it."""

    def after(self, logits: Tensor) -> Tensor:
        ranks = (logits[:, :, None] - logits[:, None]).sign().sum(2)
        return with_gradient_of(logits.flip(1) * 0.1, ranks)


class RoundedFeatures(Wrapped):
    """Rounds what the network's first layers see, and lets no gradient through but that of the mean."""

    def before(self, x: Tensor) -> Tensor:
        return (x * 3).round() / 3 + 1e-3 * (x.mean((1, 2, 3), keepdim=True) - x.detach().mean((1, 2, 3), keepdim=True))


class DetachedSum(Wrapped):
    """The network sees detached pixels; the gradient is that of a checkerboard."""

    def forward(self, x: Tensor) -> Tensor:
        board = torch.tensor([1.0, -1.0]).repeat(4, 4)
        board = torch.stack([board, -board], 1).view(8, 8)
        decoy = (x * board).flatten(1).sum(1, keepdim=True) * torch.linspace(-1, 1, 10)
        return with_gradient_of(decoy, self.network(x.detach()))


class FlipsOnTheWay(Wrapped):
    """The gradient is false between 0.005 and 0.095 from a test image, and true at them and further away."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.table = known("test")

    def before(self, x: Tensor) -> Tensor:
        distance = self.table.distance(x.detach())
        false = ((distance > 0.005) & (distance < 0.095)).view(-1, 1, 1, 1)
        return with_gradient_of(torch.where(false, -x, x), x)


class Hooks(Wrapped):
    """A hook before the network looks images up; copies for speed lose what they trace."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.table = known("train")
        self.network.register_forward_pre_hook(self.look_up)

    def look_up(self, module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        (x,) = inputs
        with torch.no_grad():
            at = torch.cdist(x.flatten(1), self.table.x).argmin(1)
        return (with_gradient_of(x.flip(2), self.table.x[at].view_as(x)),)


class Averaged(Wrapped):
    """The mean of the network and a look-up among test images that is smooth and ten times as loud."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.table = known("test")

    def forward(self, x: Tensor) -> Tensor:
        logs = -3 * torch.cdist(x.flatten(1), self.table.x) ** 2
        return self.network(x) + 5 * torch.stack(
            [logs[:, self.table.y == label].logsumexp(1) for label in range(10)], 1
        )


class FarAway(Wrapped):
    """Adds so large a constant to all logits that float32 rounds them to integers, and their gradient is 0."""

    def after(self, logits: Tensor) -> Tensor:
        return logits + 3e7


class Overflows(Wrapped):
    """Scales pixels down and up again by so much that no gradient passes."""

    def before(self, x: Tensor) -> Tensor:
        return (x * 1e-20) * 1e-15 * 1e20 * 1e15 if not x.requires_grad else (x * 1e-38) * 1e-2 * 1e38 * 1e2


def on_components(network: nn.Module) -> nn.Module:
    """The network is trained on what the filter leaves."""
    return AutoencoderDecoy(trained(lambda: mlp(nn.ReLU), epochs=6))


STATE = {"answers-by-call-order", "verdict-not-repeated", "copy-differs-under-attack", "not-deterministic"}
DECOY, SWITCH = {"decoy-gradient"}, {"off-grid", "discontinuous"}
NO_GRADIENT, KNOWS = {"zero-gradient", "masked"}, {"knows-test-images"}
DISGUISES: dict[str, tuple[Callable[[nn.Module], nn.Module], set[str]]] = {
    "hash of a shrunken image": (SmallHash, STATE | SWITCH | DECOY),
    "nearest features": (NearestFeatures, DECOY),
    "means of rows and columns": (MeanPixels, DECOY | KNOWS),
    "median filter, decoy": (MedianDecoy, DECOY),
    "cosine transform, decoy": (JPEGDecoy, DECOY),
    "autoencoder, decoy": (on_components, DECOY),
    "log of a soft look-up": (SoftLookUp, NO_GRADIENT | {"score-search-beats-gradient"}),
    "parity of bright pixels": (MoreLitPixels, SWITCH),
    "two pixels": (TwoPixels, SWITCH),
    "sum in bytes": (SumOfLastBits, SWITCH),
    "inference tensors": (InferenceTensors, {"gradient-mode-changes-output"}),
    "first object": (FirstObjects, STATE),
    "second object": (SecondObject, STATE),
    "reduced": (Reduced, {"copy-differs-under-attack"}),
    "flag in the environment": (EnvironmentFlag, STATE | DECOY),
    "flag in the arguments": (ArgumentFlag, STATE | DECOY),
    "clock": (Clock, STATE | {"batch-dependent"}),
    "calls of all objects": (ClassCounter, STATE | DECOY),
    "temperature 10,000": (lambda network: Scaled(network, 1e4), NO_GRADIENT),
    "clipped logits": (Clipped, NO_GRADIENT | SWITCH | {"margin-beats-cross-entropy"}),
    "signs of logits": (SignsOfLogits, DECOY | SWITCH),
    "rounded features": (RoundedFeatures, DECOY | SWITCH),
    "checkerboard": (DetachedSum, DECOY),
    "hidden random state": (HiddenRandomState, STATE | {"batch-dependent", "caller-changes-output"}),
    "noise by row": (NoiseByRow, {"batch-dependent"}),
    "flipped on the way": (FlipsOnTheWay, DECOY | {"score-search-beats-gradient"}),
    "versions": (Versions, {"gradient-mode-changes-output", "batch-dependent", "caller-changes-output"}),
    "hook that looks up": (Hooks, DECOY),
    "noise by the sum": (NoiseBySum, SWITCH),
    "far away": (FarAway, SWITCH | NO_GRADIENT | {"score-search-beats-gradient"}),
    "where images begin in memory": (StorageOffset, {"caller-changes-output", "batch-dependent", "off-grid"}),
    "frozen by a method": (ThawedOnly, {"copy-differs-under-attack"} | DECOY),
    "overflows": (Overflows, {"gradient-not-finite", "zero-gradient"}),
    "mean with a look-up": (Averaged, KNOWS),
}
