"""What the loss of a defense may ask of the network in training: logits, losses, gradients and attacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from epsbench.attacks.base import Attack
from epsbench.attacks.losses import Loss
from epsbench.attacks.plain import path
from epsbench.harness.run.attack.gradient import loss_gradient
from epsbench.harness.run.machine.copies import copy_of
from epsbench.harness.run.machine.precision import autocast
from epsbench.harness.run.speed.compiling import compiled
from epsbench.models.priors import GeneratorNoise

Forward = Callable[[Tensor], Tensor]


class ClassifierInTraining:
    """The network as a defense uses it (see `epsbench.models.defenses.Trainee`); it also measures the accuracy.

    When compiled, the passes that craft images see changes of parameters and buffers only. A plain attribute that
    changes during training keeps its first value there.
    """

    def __init__(
        self, network: nn.Module, generator: torch.Generator, precision: str, label_smoothing: float = 0.0
    ) -> None:
        self.label_smoothing = label_smoothing
        self.network, self.generator, self.precision = network, generator, precision
        self._trained: Forward = network
        self._crafting: Forward = network
        self._mirror: nn.Module | None = None
        self._correct = torch.zeros((), dtype=torch.int64, device=generator.device)
        self._seen = 0

    def compile(self) -> None:
        """Compile both passes: the one that trains the network, and the one that crafts images.

        The second uses a mirror whose weights need no gradients, because a compiled pass always computes all gradients.
        """
        self._mirror = mirror(self.network)
        self._trained = compiled(self.network)
        self._crafting = compiled(self._mirror)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The mean float32 cross-entropy of the network in train mode."""
        return self.cross_entropy(self.logits(x, y), y)

    def cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        """The mean cross-entropy of logits (N, classes), with the label smoothing of the recipe."""
        return F.cross_entropy(logits, y, label_smoothing=self.label_smoothing)

    def logits(self, x: Tensor, y: Tensor) -> Tensor:
        """Float32 logits (N, classes) of the network in train mode. They are compared with ``y`` for `accuracy`."""
        logits = self._logits(self._trained, x)
        self._correct += (logits.detach().argmax(1) == y).sum()
        self._seen += len(y)
        return logits

    def attack(self, attack: Attack, x: Tensor, y: Tensor, eps: float) -> Tensor:
        """Adversarial images (N, C, H, W), crafted in eval mode: where one attempt of the attack ends."""
        with self._looking() as look:

            def ask(point: Tensor, loss: Loss, *inputs: Tensor) -> tuple[Tensor, Tensor]:
                return loss_gradient(look, point, loss, inputs)

            def clean() -> Tensor:
                with torch.no_grad():
                    return look(x)

            radius, first = x.new_full((len(x), 1, 1, 1), eps), torch.zeros_like(y)
            x_adv = x
            for x_adv in path(attack, ask, x, y, radius, first, lambda _: self.noise(len(x)), clean):  # noqa: B007
                pass
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

    def noise(self, n: int) -> GeneratorNoise:
        """Random numbers for ``n`` images. They are not keyed by image: the order of the images is random too."""
        return GeneratorNoise(n, self.generator)

    def accuracy(self) -> float:
        """The share of the images passed to `loss` and `logits` since the last call that was classified correctly."""
        share = self._correct.item() / max(self._seen, 1)
        self._correct.zero_()
        self._seen = 0
        return share

    def _logits(self, forward: Forward, x: Tensor) -> Tensor:
        with autocast(x.device, self.precision):
            logits = forward(x)
        return logits.float()

    @contextmanager
    def _looking(self) -> Iterator[Forward]:
        """A function that gives the network's float32 logits in eval mode. Afterwards its mode is as before.

        Inside, weights need no gradients, because a convolution with its own backward pass would compute them all.
        """
        if self._mirror is not None:
            follow(self._mirror, self.network)
            yield partial(self._logits, self._crafting)
            return
        was_training = self.network.training
        trainable = [weight for weight in self.network.parameters() if weight.requires_grad]
        self.network.eval()
        for weight in trainable:
            weight.requires_grad_(False)
        try:
            yield partial(self._logits, self._crafting)
        finally:
            for weight in trainable:
                weight.requires_grad_(True)
            self.network.train(was_training)


def mirror(network: nn.Module) -> nn.Module:
    """A copy in eval mode without gradients of weights that shares the parameters and buffers of ``network``."""
    copied = copy_of(network).eval().requires_grad_(False)
    follow(copied, network)
    return copied


def follow(mirrored: nn.Module, network: nn.Module) -> None:
    """Let a mirror share memory with its network again where that has replaced a tensor by a new one."""
    mine, theirs = (chain(module.parameters(), module.buffers()) for module in (mirrored, network))
    for one, other in zip(mine, theirs, strict=True):
        if one.data_ptr() != other.data_ptr():
            one.data = other.data
