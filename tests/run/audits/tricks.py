"""Models that look robust and are not: each hides the weak network that it is made of, or answers by a trick.

``TRICKS`` says by which codes each may be named.
"""

from __future__ import annotations

from collections.abc import Callable

from broken_models import RandomNoise, Scaled, Shattered
from hidden_gradients import (
    Frequencies,
    Hooked,
    Levels,
    OneHot,
    RandomWithGradients,
    Ripple,
    Saturated,
    SpoiledGradient,
    Thermometer,
    clipped,
    corner,
    flipped,
    scrambled,
    zeroed,
)
from lookups import (
    CoarseBit,
    FarFromImages,
    FrozenWeights,
    HiddenBit,
    LargeBatches,
    NoRequiresGrad,
    NotALeaf,
    OddBatches,
    OffBytes,
    OffGrid,
    OffGridSum,
    ParityOfBits,
    PartlyDetached,
    Purifier,
    RandomDecoy,
    RandomDecoyOfNetwork,
    Robust,
    SeededByImage,
    SingleImages,
    SoftNearest,
    StraightThrough,
    ToTestImages,
    ToTestImagesNearby,
    WithoutGradients,
    WithoutGradientsMasked,
)
from memories import CopyOfCopy, CountsCalls, OtherCopy, Remembers, RemembersForAll, RemembersNearby
from torch import nn

UNSTABLE = {"not-deterministic"}
NO_GRADIENT = {"zero-gradient", "not-differentiable"}
DECOY = {"decoy-gradient"}
# Each trick: how it is made of an honest network, and the codes that name it.
TRICKS: dict[str, tuple[Callable[[nn.Module], nn.Module], set[str]]] = {
    "remembers calls": (Remembers, {"answers-by-call-order", "copy-differs-under-attack"}),
    "remembers calls, small ball": (RemembersNearby, {"answers-by-call-order", "copy-differs-under-attack"}),
    "remembers calls, for all copies": (RemembersForAll, {"answers-by-call-order"}),
    "counts calls": (CountsCalls, UNSTABLE | {"batch-dependent", "copy-differs-under-attack"}),
    "nearest training image": (Robust, DECOY),
    "nearest training image, random decoy": (RandomDecoy, DECOY),
    "nearest test image": (ToTestImages, DECOY),
    "nearest test image, nearby": (ToTestImagesNearby, DECOY),
    "straight-through purifier": (StraightThrough, DECOY),
    "purifier": (Purifier, NO_GRADIENT),
    "random decoy": (RandomDecoyOfNetwork, DECOY),
    "partly detached": (PartlyDetached, DECOY),
    "off the grid": (OffGrid, {"off-grid"}),
    "off the grid, by the sum": (OffGridSum, {"off-grid"}),
    "off the grid, by a row": (OffBytes, {"off-grid"}),
    "hidden bit": (HiddenBit, {"off-grid"}),
    "parity": (ParityOfBits, {"off-grid"}),
    "noise by the image": (SeededByImage, {"off-grid"}),
    "coarse bit": (CoarseBit, {"discontinuous"}),
    "far from training images": (FarFromImages, {"discontinuous", "decoy-gradient"}),
    "soft nearest training image": (SoftNearest, {"score-search-beats-gradient", "zero-gradient", "masked"}),
    "large batches": (LargeBatches, {"batch-dependent"}),
    "single images": (SingleImages, {"batch-dependent"}),
    "odd batches": (OddBatches, {"batch-dependent"}),
    "gradient mode": (WithoutGradients, {"gradient-mode-changes-output"}),
    "gradient mode, a masked class": (WithoutGradientsMasked, {"gradient-mode-changes-output"}),
    "requires_grad": (NoRequiresGrad, {"gradient-mode-changes-output"}),
    "is_leaf": (NotALeaf, {"gradient-mode-changes-output"}),
    "random with gradients": (RandomWithGradients, {"gradient-mode-changes-output"}),
    "frozen weights": (FrozenWeights, {"copy-differs-under-attack"}),
    "another copy": (OtherCopy, {"copy-differs-under-attack"}),
    "copy of a copy": (CopyOfCopy, {"copy-differs-under-attack"}),
    "random noise": (RandomNoise, UNSTABLE),
    "flipped gradient": (lambda network: SpoiledGradient(network, flipped), DECOY),
    "zeroed gradient": (lambda network: SpoiledGradient(network, zeroed), NO_GRADIENT),
    "clipped gradient": (lambda network: SpoiledGradient(network, clipped), NO_GRADIENT),
    "scrambled gradient": (lambda network: SpoiledGradient(network, scrambled), DECOY),
    "gradient of a corner": (lambda network: SpoiledGradient(network, corner), {"shattered"}),
    "hook on the input": (Hooked, DECOY),
    "grey levels": (Levels, NO_GRADIENT),
    "thermometer": (Thermometer, NO_GRADIENT),
    "frequencies": (Frequencies, NO_GRADIENT),
    "temperature": (lambda network: Scaled(network, 1000.0), NO_GRADIENT),
    "saturated": (Saturated, NO_GRADIENT | {"margin-beats-cross-entropy"}),
    "one-hot": (OneHot, NO_GRADIENT),
    "shattered": (Shattered, {"shattered"}),
    "ripple on the logits": (Ripple, DECOY | {"shattered"}),
}  # fmt: skip
