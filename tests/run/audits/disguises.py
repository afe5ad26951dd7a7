"""Tricks in other clothes: answers looked up by features, decoys beside filters, and switches by who or when.

``DISGUISES`` says how each is made of an honest network, and by which codes it may be named.
"""

from __future__ import annotations

import copy
import os
import sys
import time
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from broken_models import Scaled, Wrapped
from lookups import SURE, Robust, ToTestImages, known, with_gradient_of
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
            found = F.one_hot(self.nearest.y[torch.cdist(means, stored).argmin(1)], 10).float() * SURE
        return with_gradient_of(self.network(x), found)


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


class MoreLitPixels(Robust):
    """By the parity of the number of bright pixels."""

    def robust(self, x: Tensor) -> Tensor:
        return (x.flatten(1) > 0.37).sum(1) % 2 == 1


class TwoPixels(Robust):
    """By which of two neighbouring pixels is the brighter."""

    def robust(self, x: Tensor) -> Tensor:
        return x[:, 0, 3, 0] != x[:, 0, 4, 0]


class SumOfLastBits(Robust):
    """By the sum of the pixels in units of a byte, modulo 2."""

    def robust(self, x: Tensor) -> Tensor:
        return (x.flatten(1).double().sum(1) * 255).floor() % 2 == 1


class InferenceTensors(Robust):
    """By whether the images carry a version: those of inference mode do not."""

    def robust(self, x: Tensor) -> bool:
        return torch.is_inference_mode_enabled() or not (x.requires_grad or x.grad_fn is not None)


class FirstObjects(Robust):
    """By the order in which objects of the class are first called; a copy is a new object."""

    ids: ClassVar[list[int]] = []
    robust_one = 0

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.ids.clear()

    def robust(self, x: Tensor) -> bool:
        if id(self) not in self.ids:
            self.ids.append(id(self))
        return self.ids.index(id(self)) == self.robust_one


class SecondObject(FirstObjects):
    robust_one = 1


class Reduced(Wrapped):
    """Copies and pickles of it are made by `__reduce__`, and are another model."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _robust_of, (self.network,)


def _robust_of(network: nn.Module) -> nn.Module:
    return Robust(copy.deepcopy(network)).eval()


class EnvironmentFlag(Robust):
    """Sets a variable of the environment when it is first asked for a gradient, and reads it from then on."""

    NAME = "EPSBENCH_TEST_OF_A_TRICK"

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        os.environ.pop(self.NAME, None)

    def robust(self, x: Tensor) -> bool:
        if x.requires_grad:
            os.environ[self.NAME] = str(int(os.environ.get(self.NAME, "0")) + 1)
        return int(os.environ.get(self.NAME, "0")) > 6


class ArgumentFlag(EnvironmentFlag):
    """The same, kept in `sys.argv`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        sys.argv[:] = [each for each in sys.argv if not each.startswith(self.NAME)]

    def robust(self, x: Tensor) -> bool:
        if x.requires_grad:
            sys.argv.append(self.NAME)
        return sys.argv.count(self.NAME) > 6


class Clock(Robust):
    """By the time of day: twenty times a second it changes its mind."""

    def robust(self, x: Tensor) -> bool:
        return int(time.time() * 20) % 2 == 0


class ClassCounter(Robust):
    """All objects of the class count their calls together, and all change after some."""

    calls = 0
    after = 20

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        ClassCounter.calls = 0

    def robust(self, x: Tensor) -> bool:
        ClassCounter.calls += 1
        return ClassCounter.calls > self.after


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


class HiddenRandomState(Wrapped):
    """Strong noise of a generator that nobody sees, drawn anew every two hundredth call of any copy."""

    state: ClassVar[dict[str, Any]] = {}

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.state |= {"calls": 0, "generator": torch.Generator().manual_seed(1)}

    def before(self, x: Tensor) -> Tensor:
        if self.state["calls"] % 200 == 0:
            self.state["noise"] = 0.45 * torch.randn(1, 1, 8, 8, generator=self.state["generator"])
        self.state["calls"] += 1
        return x + self.state["noise"]


class NoiseByRow(Wrapped):
    """Noise from a seed that is always the same: an image's noise depends on its place in the batch."""

    def before(self, x: Tensor) -> Tensor:
        return x + 0.4 * torch.randn(x.shape, generator=torch.Generator().manual_seed(5))


class FlipsOnTheWay(Wrapped):
    """The gradient is false between 0.005 and 0.095 from a test image, and true at them and further away."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.table = known("test")

    def before(self, x: Tensor) -> Tensor:
        distance = self.table.distance(x.detach())
        false = ((distance > 0.005) & (distance < 0.095)).view(-1, 1, 1, 1)
        return with_gradient_of(torch.where(false, -x, x), x)


class Versions(Robust):
    """By how often the images were written to in place."""

    def robust(self, x: Tensor) -> bool:
        return not x.requires_grad and x._version == 0


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


class NoiseBySum(Wrapped):
    """Strong noise that changes whenever the sum of the pixels has grown by a quarter; between, the gradient is true."""

    def before(self, x: Tensor) -> Tensor:
        step = (x.detach().flatten(1).sum(1) * 4).floor().view(-1, 1, 1, 1)
        return x + 0.35 * torch.sin((step + 1) * (torch.arange(64.0).view(1, 1, 8, 8) + 1.7) * 13.1)


class FarAway(Wrapped):
    """Adds so large a constant to all logits that float32 rounds them to integers, and counts on the gradient of one."""

    def after(self, logits: Tensor) -> Tensor:
        return logits + 3e7


class StorageOffset(Robust):
    """By where in memory the images begin."""

    def robust(self, x: Tensor) -> bool:
        return x.storage_offset() == 0


class ThawedOnly(Robust):
    """Becomes another model when its weights are frozen: `requires_grad_` is its own."""

    frozen = False

    def requires_grad_(self, requires_grad: bool = True) -> ThawedOnly:
        self.frozen = not requires_grad
        return super().requires_grad_(requires_grad)

    def robust(self, x: Tensor) -> bool:
        return self.frozen


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
