"""More models that look robust and are not: by who asks, by what they know, by where their gradient is spoiled.

``MORE_TRICKS`` says how each is made of an honest network, and by which codes it may be named.
"""

from __future__ import annotations

from collections.abc import Callable

from broken_models import Scaled
from callers import (
    ByAutocast,
    ByCaller,
    ByJudge,
    ByLayout,
    BySumOfBatch,
    ByThread,
    ByTracing,
    ByView,
)
from halos import Halo, HaloOfAll, HaloOfLabels, HaloOfLater, KernelMachine, SoftPurifier
from hidden_gradients import flipped, scrambled, zeroed
from late_gradients import (
    BackwardHook,
    FlipsCrossEntropy,
    FlipsSome,
    FlipsUnsure,
    HotOffGrid,
    Members,
    NotANumberOffGrid,
    NotANumberSomewhere,
    OneHotOffGrid,
    Outward,
    Sawtooth,
    SmoothedByImage,
    SpoiledOffGrid,
    Steep,
    StraightThermometer,
    Winners,
    Wobbles,
)
from stateful import (
    Adapts,
    ByAddress,
    Keeps,
    KeepsCoarsely,
    KeepsGradients,
    KeepsInFile,
    NewNoise,
    RemembersLast,
    Tires,
)
from torch import nn
from zoo import cnn, mlp, trained

ASKS = {"caller-changes-output", "copy-differs-under-attack", "verdict-not-repeated"}
STATE = {"answers-by-call-order", "verdict-not-repeated", "copy-differs-under-attack"}
KNOWS = {"knows-test-images"}
SEARCH = {"score-search-beats-gradient"}


def unfolded() -> nn.Module:
    """A network without batch norm: no fast form sees through what is wrapped around it."""
    return trained(lambda: cnn(nn.Identity, nn.MaxPool2d(2), nn.LeakyReLU))


def winners(_: nn.Module) -> nn.Module:
    return trained(
        lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(64, 256), Winners(0.1), nn.Linear(256, 256), Winners(0.1), nn.Linear(256, 10)
        ),
        epochs=10,
    )


def members(network: nn.Module) -> nn.Module:
    return Members(network, trained(lambda: mlp(nn.Tanh), epochs=6))


MORE_TRICKS: dict[str, tuple[Callable[[nn.Module], nn.Module], set[str]]] = {
    "layout in memory": (ByLayout, ASKS),
    "a slice of more": (ByView, ASKS),
    "mixed precision": (ByAutocast, ASKS),
    "tracing": (ByTracing, ASKS | {"decoy-gradient"}),
    "function that calls": (ByCaller, {"verdict-not-repeated"}),
    "file that calls": (ByJudge, ASKS),
    "sum of the batch": (BySumOfBatch, {"batch-dependent"}),
    "thread": (ByThread, ASKS),
    "halo": (Halo, KNOWS),
    "halo of labels": (HaloOfLabels, KNOWS),
    "halo but for the first images": (HaloOfLater, KNOWS),
    "halo of all stored images": (HaloOfAll, KNOWS),
    "kernels of test images": (KernelMachine, KNOWS),
    "soft purifier": (SoftPurifier, SEARCH | KNOWS),
    "flipped off the grid": (lambda network: SpoiledOffGrid(network, flipped), {"decoy-gradient"}),
    "scrambled off the grid": (lambda network: SpoiledOffGrid(network, scrambled), {"decoy-gradient"}),
    "zeroed off the grid": (lambda network: SpoiledOffGrid(network, zeroed), {"zero-gradient"}),
    "no number off the grid": (NotANumberOffGrid, {"gradient-not-finite"}),
    "no number": (NotANumberSomewhere, {"gradient-not-finite"}),
    "flipped by a hash": (FlipsSome, {"decoy-gradient"}),
    "flipped where unsure": (FlipsUnsure, {"decoy-gradient"}),
    "flipped for flat losses": (FlipsCrossEntropy, {"margin-beats-cross-entropy", "shattered"}),
    "one-hot off the grid": (OneHotOffGrid, {"off-grid", "discontinuous"}),
    "temperature off the grid": (HotOffGrid, {"off-grid", "discontinuous"}),
    "backward hook": (BackwardHook, {"decoy-gradient"}),
    "straight-through thermometer": (StraightThermometer, {"decoy-gradient", "discontinuous"}),
    "smoothing by the image": (SmoothedByImage, {"off-grid", "discontinuous"}),
    "members by a hash": (members, {"off-grid", "discontinuous"}),
    "winners take all": (winners, SEARCH | {"discontinuous"}),
    "outwards": (Outward, {"decoy-gradient"}),
    "wobbles": (Wobbles, SEARCH),
    "sawtooth": (Sawtooth, SEARCH | {"discontinuous"}),
    "steep": (Steep, SEARCH | {"masked"}),
    "kept in a file": (KeepsInFile, STATE),
    "kept coarsely in globals": (KeepsCoarsely, {"decoy-gradient", "discontinuous"}),
    "kept where gradients are asked for": (KeepsGradients, STATE),
    "kept by one object": (Keeps, STATE),
    "the last call": (RemembersLast, {"batch-dependent"}),
    "tires": (Tires, STATE),
    "cached by address": (ByAddress, {"batch-dependent", "gradient-mode-changes-output", *ASKS}),
    "adapts": (Adapts, {"not-deterministic"}),
    "new noise now and then": (NewNoise, ASKS | {"batch-dependent"}),
    "huge logits": (lambda network: Scaled(network, 1e25), {"zero-gradient"}),
    "temperature 40": (lambda network: Scaled(network, 40.0), {"zero-gradient", "masked"}),
}
# At a larger ε attacks fool these, and what looks weak is not looked at closer.
ROBUST_AT_A_SMALL_EPS = {
    "smoothing by the image", "members by a hash", "cached by address", "new noise now and then",
}  # fmt: skip
