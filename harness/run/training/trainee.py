"""A network in training, as the defenses see it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from epsbench.attacks.base import GradientAttack
from epsbench.harness.run.attack.gradient import input_gradient
from epsbench.harness.run.attack.projection import allowed
from epsbench.harness.run.attack.step import advance
from epsbench.harness.run.machine.precision import autocast
from epsbench.harness.run.speed.compiling import compiled

Forward = Callable[[Tensor], Tensor]


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
    """What a defense sees of the network (see `epsbench.models.defenses.Trainee`), counting what it gets right.

    Compiled, it sees as its state parameters and buffers alone: a plain attribute that changes as the network trains
    stays what it was for what looks for images.
    """

    def __init__(self, network: nn.Module, generator: torch.Generator, precision: str) -> None:
        self.network, self.generator, self.precision = network, generator, precision
        self._trained: Forward = network
        self._crafting: Forward = network
        self._mirror: nn.Module | None = None
        self._right = torch.zeros((), dtype=torch.int64, device=generator.device)
        self._seen = 0

    def compile(self) -> None:
        """Compile both passes: the one that trains the network, and the one that only looks for images.

        The second works on a mirror without gradients of weights, for a compiled pass always takes all gradients.
        """
        self._mirror = mirror(self.network)
        self._trained = compiled(self.network)
        self._crafting = compiled(self._mirror)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The mean float32 cross-entropy of the network in train mode."""
        return F.cross_entropy(self.logits(x, y), y)

    def logits(self, x: Tensor, y: Tensor) -> Tensor:
        """Float32 logits (N, classes) of the network in train mode, held against ``y`` for `accuracy`."""
        logits = self._logits(self._trained, x)
        self._right += (logits.detach().argmax(1) == y).sum()
        self._seen += len(y)
        return logits

    def attack(self, attack: GradientAttack, x: Tensor, y: Tensor, eps: float) -> Tensor:
        """Adversarial images (N, C, H, W), crafted in eval mode."""
        with self._looking() as look:
            radius = x.new_full((len(x), 1, 1, 1), eps)
            x_adv, state, region = x, attack.state(x), allowed(attack.norm, x, radius)
            if attack.random_start:
                x_adv = (x + attack.norm.start(self.noise(len(x)), x, radius)).clamp(0, 1)
            for step in range(attack.steps):
                gradient, _ = input_gradient(look, x_adv, y)
                x_adv, state = advance(attack, region, x_adv, gradient, radius, torch.full_like(radius, step), state)
        return x_adv

    def predict(self, x: Tensor) -> Tensor:
        """Detached float32 logits (N, classes) of the network in eval mode."""
        with self._looking() as look, torch.no_grad():
            return look(x)

    def gradient(self, x: Tensor, objective: Callable[[Tensor], Tensor]) -> Tensor:
        """The gradient (N, C, H, W) at ``x`` of a scalar ``objective`` of the logits (N, classes) in eval mode."""
        x = x.detach().requires_grad_(True)
        with self._looking() as look, torch.enable_grad():
            (gradient,) = torch.autograd.grad(objective(look(x)), x)
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

    def _logits(self, forward: Forward, x: Tensor) -> Tensor:
        with autocast(x.device, self.precision):
            logits = forward(x)
        return logits.float()

    @contextmanager
    def _looking(self) -> Iterator[Forward]:
        """What gives float32 logits in eval mode, as the network now stands; its mode of before is back afterwards.

        Weights ask for no gradients meanwhile: a convolution with a backward pass of its own would compute them all.
        """
        if self._mirror is not None:
            _follow(self._mirror, self.network)
            yield partial(self._logits, self._crafting)
            return
        was_training = self.network.training
        asking = [weight for weight in self.network.parameters() if weight.requires_grad]
        self.network.eval()
        for weight in asking:
            weight.requires_grad_(False)
        try:
            yield partial(self._logits, self._crafting)
        finally:
            for weight in asking:
                weight.requires_grad_(True)
            self.network.train(was_training)


def mirror(network: nn.Module) -> nn.Module:
    """A copy in eval mode that asks for no gradients, and whose parameters and buffers are those of ``network``."""
    copied = copy.deepcopy(network).eval().requires_grad_(False)
    _follow(copied, network)
    return copied


def _follow(mirrored: nn.Module, network: nn.Module) -> None:
    """Share memory again wherever the network has put a new tensor in the place of an old one."""
    mine, theirs = (chain(module.parameters(), module.buffers()) for module in (mirrored, network))
    for one, other in zip(mine, theirs, strict=True):
        if one.data_ptr() != other.data_ptr():
            one.data = other.data
