"""The images at which a model is compared with itself: clean ones, and moved ones as attacks make them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from epsbench.harness.run.attack.scale import unmasked
from epsbench.harness.run.audits.probe import Probe
from epsbench.harness.run.data.examples import Examples

FAR = 0.1  # how far images are moved, in L∞
ROUNDING = 2.0**-20  # of a float32 logit
TRAINING = 4096  # images that pairs are chosen from


def random_signs(x: Tensor, seed: int) -> Tensor:
    """-1 or 1 for every pixel, (N, C, H, W); the same on every device."""
    # A byte a pixel: whole numbers of eight bytes would take twice the memory of the images.
    signs = torch.randint(0, 2, x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.int8) * 2 - 1
    return signs.to(x.device, x.dtype)


def points(probe: Probe, gradient: Tensor | None) -> Mapping[str, Tensor]:
    """Images (N, C, H, W) by name; ``gradient`` is that of the probe, None where the model has none."""
    made = {"clean": probe.x, "random signs": (probe.x + FAR * random_signs(probe.x, 1)).clamp(0, 1)}
    if gradient is not None:
        made["one step"] = (probe.x + FAR * gradient.sign()).clamp(0, 1)
    return made


def on_the_way(x: Tensor, moved: Tensor) -> Tensor:
    """Images (N, C, H, W) between ``x`` and ``moved``, each at another part of its way; the same on every device."""
    parts = torch.rand(len(x), 1, 1, 1, generator=torch.Generator().manual_seed(2)).to(x.device)
    return x + parts * (moved - x)


def spread(logits: Tensor) -> float:
    """The largest distance of a logit from the mean of its row, masked classes apart; at least a tiny positive
    number."""
    far = (logits - logits.mean(1, keepdim=True)).abs().amax(1)
    return max(float(unmasked(far, logits).max().nan_to_num()), 1e-12)


def differences(a: Tensor, b: Tensor, share: float = ROUNDING) -> Tensor:
    """The largest difference of each row's logits (N, classes), (N,), less what rounding may explain: a ``share`` of
    each logit. So a masked class's constant of -10⁹ may differ by hundreds."""
    return ((a - b).abs() - share * b.abs()).amax(1)


def changed(a: Tensor, b: Tensor, limit: float, share: float = ROUNDING) -> int:
    """In how many rows two sets of logits (N, classes) have `differences` of more than ``limit``."""
    return int((differences(a, b, share).nan_to_num(torch.inf) > limit).sum())


def pairs_of_one_class(train: Examples, most: int) -> Tensor:
    """Pairs of training images of one class, (n, 2), at most so many, classes mixed; no image is in two pairs."""
    labels = train.labels[:TRAINING]
    pairs = [
        at[: len(at) // 2 * 2].view(-1, 2)
        for label in labels.unique().tolist()
        for at in [(labels == label).nonzero().flatten()]
    ]
    if not pairs:
        return labels.new_zeros(0, 2)
    joined = torch.cat(pairs)
    return joined[some_of(len(joined), most, joined.device)]


def some_of(n: int, most: int, device: torch.device) -> Tensor:
    """At most ``most`` different positions below ``n`` at random, the same each time: not the first ones, which a model
    may treat better."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(0))[:most].to(device)
