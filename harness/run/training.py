"""The training loop of classifiers, and what it shares with the loop of VAEs.

Nothing here waits for the device inside an epoch but the check that the loss is still a number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.base import GradientAttack
from harness.run.data import AUGMENTATIONS, Data, Examples
from harness.run.memory import in_chunks
from harness.run.step import advance, autocast, input_gradient
from models.defenses import Defense

Curves = dict[str, list[float]]
Network = TypeVar("Network", bound=nn.Module)

OPTIMIZERS: dict[str, Callable[[list[nn.Parameter], Mapping[str, Any]], torch.optim.Optimizer]] = {
    "adam": lambda weights, recipe: torch.optim.Adam(
        weights, recipe["learning_rate"], weight_decay=recipe["weight_decay"], fused=True
    ),
    "sgd": lambda weights, recipe: torch.optim.SGD(
        weights, recipe["learning_rate"], recipe["momentum"], weight_decay=recipe["weight_decay"], fused=True
    ),
}
EVALUATION_BATCH = 1024
_CHECK_EVERY = 100


class TrainingDiverged(RuntimeError):  # noqa: N818 - it says what happened, as StopIteration does
    """The loss stopped being a finite number."""

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(f"training diverged: the loss is {loss} at step {step}; lower learning_rate")
        self.step = step


class Losses:
    """The losses of one epoch, kept on the device."""

    def __init__(self, steps: int, device: torch.device, first_step: int) -> None:
        self._values = torch.zeros(steps, device=device)
        self._first_step = first_step
        self._kept = 0

    def keep(self, loss: Tensor) -> None:
        """Keep a scalar loss. Every 100 steps, raise `TrainingDiverged` if one so far is not finite."""
        self._values[self._kept] = loss.detach()
        self._kept += 1
        if self._kept % _CHECK_EVERY == 0:
            self.mean()

    def mean(self) -> float:
        """The mean loss so far. Raises `TrainingDiverged` naming the first step that was not finite."""
        values = self._values[: self._kept]
        broken = torch.nonzero(~torch.isfinite(values)).flatten().tolist()
        if broken:
            raise TrainingDiverged(self._first_step + broken[0], values[broken[0]].item())
        return values.mean().item()


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
    """What a defense sees of the network (see `models.defenses.Trainee`), counting what it gets right."""

    def __init__(self, network: nn.Module, generator: torch.Generator, precision: str) -> None:
        self.network, self.generator, self.precision = network, generator, precision
        self._right = torch.zeros((), dtype=torch.int64, device=generator.device)
        self._seen = 0

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The mean float32 cross-entropy of the network in train mode."""
        with autocast(x.device, self.precision):
            logits = self.network(x)
        logits = logits.float()
        self._right += (logits.detach().argmax(1) == y).sum()
        self._seen += len(y)
        return F.cross_entropy(logits, y)

    def attack(self, attack: GradientAttack, x: Tensor, y: Tensor, eps: float) -> Tensor:
        """Adversarial images (N, C, H, W), crafted in eval mode."""
        was_training = self.network.training
        self.network.eval()
        try:
            radius = x.new_full((len(x), 1, 1, 1), eps)
            x_adv, state = x, attack.state(x)
            if attack.random_start:
                x_adv = (x + attack.norm.start(Noise(len(x), self.generator), x, radius)).clamp(0, 1)
            for step in range(attack.steps):
                gradient, _ = input_gradient(self._logits, x_adv, y)
                x_adv, state = advance(attack, x, x_adv, gradient, radius, torch.full_like(radius, step), state)
        finally:
            self.network.train(was_training)
        return x_adv

    def accuracy(self) -> float:
        """The share of the images given to `loss` that was classified right, since the last call."""
        share = self._right.item() / max(self._seen, 1)
        self._right.zero_()
        self._seen = 0
        return share

    def _logits(self, x: Tensor) -> Tensor:
        with autocast(x.device, self.precision):
            return self.network(x)


def train_classifier(
    network: nn.Module,
    defense: Defense,
    data: Data,
    augmentation: str,
    recipe: Mapping[str, Any],
    *,
    seed: int,
    precision: str,
    on_epoch: Callable[[int, dict[str, float]], None] = lambda epoch, values: None,
    on_step: Callable[[], None] = lambda: None,
) -> Curves:
    """Train ``network`` in place, on the device of ``data``, and return its curves, one value an epoch.

    ``train_loss`` and ``train_accuracy`` are those of the batches as trained on: augmented, adversarial copies
    included. Batches are full; the rest of an epoch's shuffled examples waits for the next epoch. The same seed
    gives the same weights on the same machine in float32. Raises `TrainingDiverged`.
    """
    curves: Curves = {"train_loss": [], "train_accuracy": [], "validation_accuracy": []}
    device = data.train.device
    # Measured on smallcnn: on two CPU cores 12 % faster than contiguous; on CUDA tensor cores want it.
    network.to(device).to(memory_format=torch.channels_last)
    augment = AUGMENTATIONS[augmentation]
    with reproducibly(seed, device, precision) as generator:
        trainee = ClassifierInTraining(network, generator, precision)
        optimizer = OPTIMIZERS[recipe["optimizer"]](list(network.parameters()), recipe)
        scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16" and device.type == "cuda")
        steps = steps_per_epoch(len(data.train), recipe["batch_size"])
        schedule = SCHEDULES[recipe["schedule"]]
        for epoch in range(recipe["epochs"]):
            losses = Losses(steps, device, epoch * steps)
            for step, index in enumerate(shuffled(len(data.train), recipe["batch_size"], generator)):
                rate = recipe["learning_rate"] * schedule(epoch + step / steps, recipe)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                network.train()
                loss = defense.loss(trainee, augment(data.train.pixels(index), generator), data.train.labels[index])
                optimizer.zero_grad(set_to_none=True)
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
                losses.keep(loss)
                on_step()
            values = {
                "train_loss": losses.mean(),
                "train_accuracy": trainee.accuracy(),
                "validation_accuracy": accuracy(network, data.validation, precision),
            }
            for name, value in values.items():
                curves[name].append(value)
            on_epoch(epoch + 1, values)
    return finished(network, curves)


def finished(network: nn.Module, curves: Curves) -> Curves:
    """Leave a trained network as one that is loaded from the cache: eval mode, contiguous weights, no gradients.

    Both then measure the same to the last bit.
    """
    network.zero_grad(set_to_none=True)
    network.eval().to(memory_format=torch.contiguous_format)
    return curves


def accuracy(network: nn.Module, examples: Examples, precision: str) -> float:
    """The share of ``examples`` the network classifies right, in eval mode. Leaves the network there."""
    network.eval()

    def right(rows: slice) -> Tensor:
        with torch.inference_mode(), autocast(examples.device, precision):
            return network(examples.pixels(rows)).argmax(1) == examples.labels[rows]

    return in_chunks(right, len(examples), EVALUATION_BATCH).float().mean().item()


def seeded(build: Callable[[], Network], seed: int) -> Network:
    """What ``build`` builds, its initial weights drawn from ``seed``; the global random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def one_cycle(epoch: float, recipe: Mapping[str, Any]) -> float:
    """From 1/25 up to 1 over the first 30 %, then down to almost 0, both along a cosine (Smith & Topin, 2018)."""
    done, warm_up, start = epoch / recipe["epochs"], 0.3, 1 / 25
    if done < warm_up:
        return start + (1 - start) * (1 - math.cos(math.pi * done / warm_up)) / 2
    return max(1e-5, (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up))) / 2)


def in_steps(epoch: float, recipe: Mapping[str, Any]) -> float:
    """``gamma`` to the number of whole ``step_epochs`` that have passed."""
    return recipe["gamma"] ** (int(epoch) // recipe["step_epochs"])


def constant(epoch: float, recipe: Mapping[str, Any]) -> float:
    """Always 1."""
    return 1.0


# The share of learning_rate at a fractional epoch.
SCHEDULES: dict[str, Callable[[float, Mapping[str, Any]], float]] = {
    "one-cycle": one_cycle,
    "step": in_steps,
    "constant": constant,
}


def steps_per_epoch(n: int, batch: int) -> int:
    """The number of full batches among ``n`` examples; one smaller batch where there is no full one."""
    return max(1, n // batch)


def shuffled(n: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices of an epoch's batches, on the generator's device."""
    order = torch.randperm(n, generator=generator, device=generator.device)
    for start in range(0, steps_per_epoch(n, batch) * batch, batch):
        yield order[start : start + batch]


@contextmanager
def reproducibly(seed: int, device: torch.device, precision: str) -> Iterator[torch.Generator]:
    """Seed every source of randomness inside, and put the global ones back afterwards.

    In float32 cuDNN keeps to deterministic algorithms; in low precision speed goes first.
    """
    exact = precision == "float32"
    flags = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = exact, not exact
        try:
            yield torch.Generator(device).manual_seed(seed)
        finally:
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = flags
