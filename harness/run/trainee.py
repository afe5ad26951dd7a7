"""A network in training, as the defenses see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.base import GradientAttack
from harness.run.step import advance, autocast, input_gradient


class Noise:
    """The random numbers of training: seeded, but not keyed by row, for the order of a batch is random itself."""

    def __init__(self, n: int, generator: torch.Generator) -> None:
        self._n, self._generator = n, generator

    def uniform(self, *shape: int) -> Tensor:
        """(n, *shape) uniform numbers in [0, 1)."""
        return torch.rand(self._n, *shape, generator=self._generator, device=self._generator.device)

    def normal(self, *shape: int) -> Tensor:
        """(n, *shape) standard normal numbers."""
        return torch.randn(self._n, *shape, generator=self._generator, device=self._generator.device)


class ClassifierInTraining:
    """What a defense sees of the network (see `models.defenses.Trainee`), counting what it gets right.

    ``forward`` is what computes the network's logits: a faster form of the same network may take its place.
    """

    def __init__(self, network: nn.Module, generator: torch.Generator, precision: str) -> None:
        self.network, self.generator, self.precision = network, generator, precision
        self.forward: Callable[[Tensor], Tensor] = network
        self._right = torch.zeros((), dtype=torch.int64, device=generator.device)
        self._seen = 0

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The mean float32 cross-entropy of the network in train mode."""
        return F.cross_entropy(self.logits(x, y), y)

    def logits(self, x: Tensor, y: Tensor) -> Tensor:
        """Float32 logits (N, classes) of the network in train mode, held against ``y`` for `accuracy`."""
        logits = self._logits(x)
        self._right += (logits.detach().argmax(1) == y).sum()
        self._seen += len(y)
        return logits

    def attack(self, attack: GradientAttack, x: Tensor, y: Tensor, eps: float) -> Tensor:
        """Adversarial images (N, C, H, W), crafted in eval mode."""
        with evaluating(self.network):
            radius = x.new_full((len(x), 1, 1, 1), eps)
            x_adv, state = x, attack.state(x)
            if attack.random_start:
                x_adv = (x + attack.norm.start(self.noise(len(x)), x, radius)).clamp(0, 1)
            for step in range(attack.steps):
                gradient, _ = input_gradient(self._logits, x_adv, y)
                x_adv, state = advance(attack, x, x_adv, gradient, radius, torch.full_like(radius, step), state)
        return x_adv

    def predict(self, x: Tensor) -> Tensor:
        """Detached float32 logits (N, classes) of the network in eval mode."""
        with evaluating(self.network), torch.no_grad():
            return self._logits(x)

    def gradient(self, x: Tensor, objective: Callable[[Tensor], Tensor]) -> Tensor:
        """The gradient (N, C, H, W) at ``x`` of a scalar ``objective`` of the logits (N, classes) in eval mode."""
        x = x.detach().requires_grad_(True)
        with evaluating(self.network), torch.enable_grad():
            (gradient,) = torch.autograd.grad(objective(self._logits(x)), x)
        return gradient

    def noise(self, n: int) -> Noise:
        """Random numbers for ``n`` images."""
        return Noise(n, self.generator)

    def accuracy(self) -> float:
        """The share of the images given to `loss` and `logits` that was classified right, since the last call."""
        share = self._right.item() / max(self._seen, 1)
        self._right.zero_()
        self._seen = 0
        return share

    def _logits(self, x: Tensor) -> Tensor:
        with autocast(x.device, self.precision):
            logits = self.forward(x)
        return logits.float()


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards the mode of before."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)
