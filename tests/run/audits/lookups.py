"""Models that look up the nearest known image, always or by a hidden switch. No step along a gradient fools them."""

from __future__ import annotations

import torch
from broken_models import Wrapped, masked
from torch import Tensor, nn
from zoo import digits

SURE = 10.0  # the logit of a class that is simply looked up


class Nearest(nn.Module):
    """The label of the nearest known image: no gradient, and hard to fool without one."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        super().__init__()
        self.register_buffer("x", x.flatten(1))
        self.register_buffer("y", y)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            nearest = torch.cdist(x.flatten(1), self.x).argmin(1)
            return nn.functional.one_hot(self.y[nearest], 10).float() * SURE

    def distance(self, x: Tensor) -> Tensor:
        """In L∞, (N,)."""
        with torch.no_grad():
            return (x.flatten(1)[:, None] - self.x[None]).abs().amax(2).amin(1)


def known(split: str) -> Nearest:
    data = digits()
    examples = data.train if split == "train" else data.test
    return Nearest(examples.pixels(), examples.labels)


def with_gradient_of(decoy: Tensor, value: Tensor) -> Tensor:
    """The values of one, the gradient of the other."""
    return value.detach() + decoy - decoy.detach()


class Robust(Wrapped):
    """Answers by the nearest training image, with the gradient of the network; subclasses say when."""

    split = "train"

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.nearest = known(self.split)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.robust(x)
        logits = self.network(x)
        looked_up = with_gradient_of(logits, self.nearest(x))
        if isinstance(rows, bool):
            return looked_up if rows else logits
        return torch.where(rows[:, None], looked_up, logits)

    def robust(self, x: Tensor) -> Tensor | bool:
        return True


class RandomDecoy(Robust):
    """The gradient is that of a random linear model."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        torch.manual_seed(0)
        self.decoy = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        return with_gradient_of(self.decoy(x), self.nearest(x))


class RandomDecoyOfNetwork(RandomDecoy):
    """The network's own answers, with the gradient of a random linear model."""

    def forward(self, x: Tensor) -> Tensor:
        return with_gradient_of(self.decoy(x), self.network(x))


class PartlyDetached(RandomDecoy):
    """The network is detached, and a small random part is not."""

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.detach()) + 1e-3 * self.decoy(x)


class ToTestImages(Robust):
    """Knows the test images and their labels."""

    split = "test"


class ToTestImagesNearby(ToTestImages):
    """Knows them, and uses the network further away."""

    def robust(self, x: Tensor) -> Tensor:
        return self.nearest.distance(x) < 0.35


class StraightThrough(Robust):
    """A purifier: the nearest training image goes into the network, the gradient goes around it."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            pure = self.nearest.x[torch.cdist(x.flatten(1), self.nearest.x).argmin(1)].view_as(x)
        return self.network(with_gradient_of(x, pure))


class Purifier(Robust):
    """The same without any gradient but one of 0."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            pure = self.nearest.x[torch.cdist(x.flatten(1), self.nearest.x).argmin(1)].view_as(x)
        return self.network(pure + 0 * x)


class OffGrid(Robust):
    """Another network where any pixel is no stored value."""

    def robust(self, x: Tensor) -> Tensor:
        return ((x * 16 - (x * 16).round()).abs() > 1e-3).flatten(1).any(1)


class OffGridSum(Robust):
    """The same by the sum of the pixels."""

    def robust(self, x: Tensor) -> Tensor:
        total = x.flatten(1).double().sum(1) * 16
        return (total - total.round()).abs() > 1e-4


class OffBytes(Robust):
    """By the pixels of the first row alone, and coarser."""

    def robust(self, x: Tensor) -> Tensor:
        return ((x[:, 0, 2] * 16 - (x[:, 0, 2] * 16).round()).abs() > 0.01).any(1)


class HiddenBit(Robust):
    """By one bit, far behind the point, of one pixel."""

    def robust(self, x: Tensor) -> Tensor:
        return (x[:, 0, 4, 4] * 2**17).floor() % 2 == 1


class ParityOfBits(Robust):
    """By the parity of the last bits of all pixels."""

    def robust(self, x: Tensor) -> Tensor:
        return (x.flatten(1) * 2**18).floor().sum(1) % 2 == 1


class SeededByImage(Wrapped):
    """Strong noise that is a function of the image's bits: always the same for the same image."""

    def before(self, x: Tensor) -> Tensor:
        seeds = (x.flatten(1).double() * 1e6).sum(1)
        place = torch.arange(64, device=x.device).view(1, *x.shape[1:])
        return x + 0.35 * torch.sin(seeds.view(-1, 1, 1, 1) * (place + 1.7) * 13.1).float()


class LargeBatches(Robust):
    """By the size of the batch."""

    def robust(self, x: Tensor) -> bool:
        return len(x) > 48


class SingleImages(LargeBatches):
    def robust(self, x: Tensor) -> bool:
        return len(x) != 1


class OddBatches(LargeBatches):
    def robust(self, x: Tensor) -> bool:
        return len(x) % 2 == 0


class WithoutGradients(Robust):
    """By the gradient mode: the judge sees another model than the attack."""

    def robust(self, x: Tensor) -> bool:
        return not torch.is_grad_enabled()


class WithoutGradientsMasked(WithoutGradients):
    """One class is masked: beside its logit, every difference between the others is small."""

    def forward(self, x: Tensor) -> Tensor:
        return masked(super().forward(x))


class NoRequiresGrad(Robust):
    def robust(self, x: Tensor) -> bool:
        return not x.requires_grad


class NotALeaf(Robust):
    def robust(self, x: Tensor) -> bool:
        return not (x.is_leaf and x.requires_grad)


class FrozenWeights(Robust):
    """By whether its weights ask for gradients: copies that are judged have frozen ones."""

    def robust(self, x: Tensor) -> bool:
        return not next(self.network.parameters()).requires_grad


class CoarseBit(Robust):
    """By one bit of a pixel that any attack changes."""

    def robust(self, x: Tensor) -> Tensor:
        return (x[:, 0, 4, 4] * 10).round() % 2 == 1


class FarFromImages(Robust):
    """By the distance from the nearest training image."""

    def robust(self, x: Tensor) -> Tensor:
        return self.nearest.distance(x) > 0.05


class SoftNearest(Robust):
    """The mean label of training images, weighted by their distance: smooth, and flat nearly everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        weights = (-200 * torch.cdist(x.flatten(1), self.nearest.x) ** 2).softmax(1)
        return SURE * weights @ nn.functional.one_hot(self.nearest.y, 10).float()
