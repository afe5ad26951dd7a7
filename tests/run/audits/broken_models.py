"""Planted faults: models, most of them wrappers of an honest network."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Wrapped(nn.Module):
    """Subclasses spoil what goes into an honest network, or what comes out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.network(self.before(x)))

    def before(self, x: Tensor) -> Tensor:
        return x

    def after(self, logits: Tensor) -> Tensor:
        return logits


def masked(logits: Tensor) -> Tensor:
    """Logits (N, K) of which the last class never wins, as in code that leaves classes out."""
    return torch.cat([logits[:, :-1], logits[:, -1:] - 1e9], 1)


class Masked(Wrapped):
    """One class is masked. Its logit is a multiple of 64, because of rounding."""

    def after(self, logits: Tensor) -> Tensor:
        return masked(logits)


class AlwaysTraining(Wrapped):
    """Batch norm stays in train mode: eval() does not reach it."""

    def train(self, mode: bool = True) -> nn.Module:
        return super().train(True)


class BatchStatistics(Wrapped):
    """Batch norm by hand, over the batch at hand."""

    def before(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, training=True) * 0.376 + 0.305


class DropoutLayerOn(Wrapped):
    """A dropout layer in train mode."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.dropout = nn.Dropout(0.1)

    def after(self, logits: Tensor) -> Tensor:
        return self.dropout.train()(logits)


class DropoutOn(Wrapped):
    """Dropout by hand, whatever the mode."""

    def before(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.1, training=True)


class RandomShift(Wrapped):
    """A random transform at test time."""

    def before(self, x: Tensor) -> Tensor:
        return x.roll(int(torch.randint(-1, 2, ())), 3)


class RandomNoise(Wrapped):
    """Noise on every image at test time."""

    def before(self, x: Tensor) -> Tensor:
        return x + 0.05 * torch.randn_like(x)


class SameNoiseEachTime(Wrapped):
    """Noise that looks deterministic: seeded anew each call, so it belongs to a place in the batch."""

    def before(self, x: Tensor) -> Tensor:
        generator = torch.Generator(x.device).manual_seed(0)
        return x + 0.1 * torch.randn(x.shape, generator=generator, device=x.device)


class Softmax(Wrapped):
    """Probabilities for logits."""

    def after(self, logits: Tensor) -> Tensor:
        return logits.softmax(1)


class Scaled(Wrapped):
    """Logits of a temperature: gradients underflow."""

    def __init__(self, network: nn.Module, scale: float) -> None:
        super().__init__(network)
        self.scale = scale

    def after(self, logits: Tensor) -> Tensor:
        return logits * self.scale


class Quantised(Wrapped):
    """Eight grey levels: a step function, whose derivative is 0."""

    def before(self, x: Tensor) -> Tensor:
        return (x * 7).round() / 7


class Shattered(Wrapped):
    """Soft quantisation to 16 levels plus a ripple of high frequency, which alone decides the gradient."""

    def before(self, x: Tensor) -> Tensor:
        return x + 0.02 * torch.sin(3000 * x)


class NotFinite(Wrapped):
    """A logarithm of what may be 0."""

    def after(self, logits: Tensor) -> Tensor:
        return (logits - logits.amax(1, keepdim=True)).abs().log() * 0 + logits


class NormalisedOutside(Wrapped):
    """Normalises before a network that does so itself, as arithmetic and not as a layer."""

    def __init__(self, network: nn.Module, mean: float = 0.305, std: float = 0.376) -> None:
        super().__init__(network)
        self.mean, self.std = mean, std

    def before(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class NotNormalised(Wrapped):
    """Undoes the network's own normalisation: weights loaded without it."""

    def before(self, x: Tensor) -> Tensor:
        return x * 0.376 + 0.305
