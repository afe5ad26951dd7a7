"""The training of classifiers."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from epsbench.harness.run.data.augmentation import AUGMENTATIONS
from epsbench.harness.run.data.examples import Data, Examples
from epsbench.harness.run.machine.memory import in_chunks
from epsbench.harness.run.machine.precision import autocast
from epsbench.harness.run.speed.convolutions import subpixel_gradients
from epsbench.harness.run.training.averaging import MovingAverage
from epsbench.harness.run.training.checkpoint import Checkpoint
from epsbench.harness.run.training.losses import Losses
from epsbench.harness.run.training.recipe import OPTIMIZERS, SCHEDULES, Recipe
from epsbench.harness.run.training.seeding import (
    random_state,
    reproducibly,
    resume_random_state,
    shuffled,
    steps_per_epoch,
)
from epsbench.harness.run.training.step_form import USUAL, Form, Objective, fastest_form
from epsbench.harness.run.training.trainee import ClassifierInTraining
from epsbench.harness.run.training.watch import WATCHED, watch
from epsbench.models.defenses import Defense

Curves = dict[str, list[float]]

Network = TypeVar("Network", bound=nn.Module)

EVALUATION_BATCH = 1024


@dataclass(frozen=True)
class Training:
    """What a training gave and what it took.

    ``curves`` have one value an epoch. ``seconds`` add up the steps and validations of every sitting, of those epochs
    that count; ``watch_seconds`` are those of `epsbench.harness.run.audits.overfitting`, and no part of them, nor is what
    finding the ``form`` of the steps took. ``resumed`` is the number of times it went on from a checkpoint.
    """

    curves: Curves
    seconds: float
    watch_seconds: float
    resumed: int
    form: Form


def train_classifier(
    network: nn.Module,
    defense: Defense,
    data: Data,
    augmentation: str,
    recipe: Recipe,
    *,
    seed: int,
    precision: str,
    compile: str = "off",
    subpixel: bool = True,
    checkpoint: Checkpoint = Checkpoint(None),  # noqa: B008 - one that keeps nothing holds no state
    on_epoch: Callable[[int, dict[str, float]], None] = lambda epoch, values: None,
    on_step: Callable[[], None] = lambda: None,
    on_resume: Callable[[int], None] = lambda epoch: None,
) -> Training:
    """Train ``network`` in place, on the device of ``data``.

    Its curves ``train_loss`` and ``train_accuracy`` are those of the batches as trained on: augmented, adversarial
    copies included. Batches are full; the rest of an epoch's shuffled examples waits for the next epoch. With
    ``average`` in the recipe, what is validated and kept is the moving average of the weights. The same seed gives
    the same weights on the same machine in float32, in one sitting or, by way of ``checkpoint``, in several;
    ``on_resume`` is told how many epochs are done already. ``subpixel`` lets strided convolutions go backward on a CPU
    as `epsbench.harness.run.speed.convolutions` has it; without it every layer is the library's own. Raises `TrainingDiverged`, and
    `InputError` for a checkpoint that cannot be used.
    """
    device = data.train.device
    quick = subpixel_gradients(network, device) if subpixel else nullcontext(0)
    with reproducibly(seed, device, precision) as generator, quick as count:
        course = _Course(network, defense, data, augmentation, recipe, precision, generator)
        if checkpoint.resume(course.resume):
            on_resume(course.epochs)
        else:
            course.choose(compile)
        if compile == "off":
            course.form.compiled = False
        course.form.subpixel = count > 0
        course.take(course.form)
        while course.epochs < recipe["epochs"]:
            values = course.epoch(on_step)
            on_epoch(course.epochs, values)
            if checkpoint.due():
                checkpoint.save(course.state())
    network.load_state_dict(course.measured.state_dict())
    curves = finished(network, course.curves)
    return Training(curves, course.seconds, course.watch_seconds, course.resumed, course.form)


class _Course:
    """A training under way: everything that changes from step to step, so that it can be kept and taken up again."""

    def __init__(
        self,
        network: nn.Module,
        defense: Defense,
        data: Data,
        augmentation: str,
        recipe: Recipe,
        precision: str,
        generator: torch.Generator,
    ) -> None:
        device = data.train.device
        # Measured on smallcnn: on two CPU cores 12 % faster than contiguous; on CUDA tensor cores want it.
        self.network = network.to(device).to(memory_format=torch.channels_last)
        self._defense, self._data, self._recipe, self._precision = defense, data, recipe, precision
        self._augment, self._schedule = AUGMENTATIONS[augmentation], SCHEDULES[recipe["schedule"]]
        self._generator = generator
        self._optimizer = OPTIMIZERS[recipe["optimizer"]](list(network.parameters()), recipe)
        self._scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16" and device.type == "cuda")
        decay = recipe.get("average", 0.0)
        self._average = MovingAverage(network, decay) if decay else None
        self._watched = ClassifierInTraining(self.measured, generator, precision)
        self._watch = watch(defense, self._watched, data.validation, len(data.train))
        names = ["train_loss", "train_accuracy", "validation_accuracy", *(WATCHED if self._watch else ())]
        self.curves: Curves = {name: [] for name in names}
        self.form = Form()
        self.epochs = self.resumed = 0
        self.seconds = self.watch_seconds = 0.0

    @property
    def measured(self) -> nn.Module:
        """The network that is the result: the average, where there is one."""
        return self._average.network if self._average else self.network

    def choose(self, wanted: str) -> None:
        """Find the fastest form of the step: see `fastest_form`. Nothing that training depends on is changed.

        On a CPU nothing is tried but on demand: a small network's step took longer compiled (a gradient of smallcnn at
        batch 128 161 µs an image against 123), and with no trial the same seed gives the same weights every time.
        """
        device = self._generator.device
        if device.type == "cpu" and wanted == "auto":
            return
        batch, count = self._recipe["batch_size"], len(self._data.train)
        index = torch.arange(min(batch, count), device=device)
        x, y = self._data.train.pixels(index), self._data.train.labels[index]
        steps = self._recipe["epochs"] * steps_per_epoch(count, batch)
        buffers = {name: value.clone() for name, value in self.network.named_buffers()}
        state = random_state(self._generator)

        def again() -> None:
            resume_random_state(self._generator, state)
            for name, value in self.network.named_buffers():
                value.copy_(buffers[name])

        def make(form: Form) -> Objective:
            self.take(form)
            return partial(self._tried, again)

        self.form = fastest_form(self.network, make, (x, y), steps, wanted, layouts=(USUAL,))
        again()

    def take(self, form: Form) -> None:
        """Compute steps in this form from now on."""
        self._trainee = ClassifierInTraining(self.network, self._generator, self._precision)
        if form.compiled:
            self._trainee.compile()

    def _tried(self, again: Callable[[], None], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of a batch, from where ``again`` goes back to: every trial then sees the same numbers."""
        again()
        self.network.train()
        loss = self._defense.loss(self._trainee, x, y)
        return loss, loss.detach()

    def epoch(self, on_step: Callable[[], None]) -> dict[str, float]:
        """Train for one epoch more and return its values of every curve."""
        began = time.perf_counter()
        losses = self._steps(on_step)
        values = {
            "train_loss": losses.mean(),
            "train_accuracy": self._trainee.accuracy(),
            "validation_accuracy": accuracy(self.measured, self._data.validation, self._precision),
        }
        ended = time.perf_counter()
        if self._watch:
            values |= self._watch.measure(self._watched)
        self.seconds += ended - began
        self.watch_seconds += time.perf_counter() - ended
        self.epochs += 1
        for name, value in values.items():
            self.curves[name].append(value)
        return values

    def _steps(self, on_step: Callable[[], None]) -> Losses:
        train, batch = self._data.train, self._recipe["batch_size"]
        steps = steps_per_epoch(len(train), batch)
        losses = Losses(steps, train.device, self.epochs * steps)
        for step, index in enumerate(shuffled(len(train), batch, self._generator)):
            rate = self._recipe["learning_rate"] * self._schedule(self.epochs + step / steps, self._recipe)
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            self.network.train()
            x, y = self._augment(train.pixels(index), self._generator), train.labels[index]
            loss = self._defense.loss(self._trainee, x, y)
            self._optimizer.zero_grad(set_to_none=True)
            self._scaler.scale(loss).backward()
            self._scaler.step(self._optimizer)
            self._scaler.update()
            if self._average:
                self._average.update(self.network)
            losses.keep(loss)
            on_step()
        return losses

    def state(self) -> dict[str, Any]:
        """All that a training needs to go on from here as if it had never stopped."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "average": self._average.state_dict() if self._average else None,
            "random": random_state(self._generator),
            "curves": self.curves,
            "form": asdict(self.form),
            "epochs": self.epochs,
            "seconds": self.seconds,
            "watch_seconds": self.watch_seconds,
            "resumed": self.resumed,
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave. Raises what torch does where it is another training's."""
        if state["curves"].keys() != self.curves.keys():
            raise ValueError("its curves are others")
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        if self._average:
            self._average.load_state_dict(state["average"])
        resume_random_state(self._generator, state["random"])
        self.curves, self.form = state["curves"], Form(**state.get("form", {}))
        self.epochs, self.resumed = state["epochs"], state["resumed"] + 1
        self.seconds, self.watch_seconds = state["seconds"], state["watch_seconds"]


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
