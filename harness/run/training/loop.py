"""The training loop, of classifiers and of generative models alike.

An `Objective` says what the loss of a batch is and what an epoch measures. The loop does the rest: order, learning
rate, optimizer, averaging, checkpoints, curves. Nothing here waits for the device inside an epoch, except for the check
that the loss is still a number.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.machine.threads import shape_key, threads_kept, use_fastest
from epsbench.harness.run.speed.reshaping import reshape_views, reshapes
from epsbench.harness.run.training.averaging import MovingAverage
from epsbench.harness.run.training.best import Best
from epsbench.harness.run.training.losses import Losses, TrainingDiverged
from epsbench.harness.run.training.own_state import OwnState
from epsbench.harness.run.training.recipe import OPTIMIZERS, SCHEDULES, Recipe
from epsbench.harness.run.training.seeding import random_state, resume_random_state, shuffled, steps_per_epoch
from epsbench.harness.run.training.settings import Curves, Hooks, Settings, Training, finish
from epsbench.harness.run.training.step_form import LAYOUTS, Form

MANY_STEPS = 200  # as many steps are worth the twenty that trying the number of threads takes
PICTURE_EPOCHS = (0, 10)  # where the recipe names none; and the last one


class Objective(ABC):
    """What a training minimises and measures, for one network."""

    names: tuple[str, ...]
    """The names of the curves that `measure` and `watch` return values of, in this order."""

    parts: Mapping[str, str] = {}
    """What the loss is made of: the names of the last numbers that `step` returns beside it, in their order.

    With each name: what to do where that part alone is not finite.
    """

    saves_first: bool = False
    """Whether a due checkpoint is saved before `Hooks.on_epoch` is called; otherwise it is saved after it."""

    @abstractmethod
    def choose(self, form: Form, wanted: str, steps: int) -> Form:
        """The form for the ``steps`` ahead. Trials start from ``form``; weights and random states stay as they were."""

    @abstractmethod
    def take(self, form: Form) -> None:
        """Compute the following steps in this form."""

    @abstractmethod
    def trial(self, index: Tensor) -> Callable[[], object]:
        """A call that takes about as long as a step on the training examples ``index`` (N,), and changes no weights."""

    @abstractmethod
    def step(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of the training examples ``index`` (N,), a scalar to go backward from.

        Beside it what is averaged over the epoch: a detached scalar or vector.
        """

    @abstractmethod
    def measure(self, network: nn.Module, loss: float, tracked: Sequence[float]) -> dict[str, float]:
        """The values of an epoch, by curve.

        ``network`` is the averaged one if there is one. ``loss`` and ``tracked`` are the means of what `step` returned.
        """

    @abstractmethod
    def score(self, values: Mapping[str, float]) -> float:
        """How good the weights with these values of the curves are: the highest score marks the best epoch."""

    def watch(self, network: nn.Module) -> dict[str, float]:
        """Further values of an epoch. Their time is not part of `Training.seconds`."""
        return {}


class Course:
    """A running training: everything that changes from step to step, which is what a checkpoint holds."""

    def __init__(
        self,
        network: nn.Module,
        data: Data,
        recipe: Recipe,
        generator: torch.Generator,
        settings: Settings,
        layout: str,
        beside: Mapping[str, object] | None = None,
    ) -> None:
        """``layout`` is the memory format that the training begins in.

        ``beside`` are objects beside the network, by name, whose `OwnState` the next step depends on.
        """
        device = generator.device
        self.network = network.to(device).to(memory_format=LAYOUTS[layout])
        self.generator, self.data, self.recipe, self.settings = generator, data, recipe, settings
        weights = list(network.parameters())
        self._optimizer = OPTIMIZERS[recipe.get("optimizer", "adam")](weights, recipe) if recipe["epochs"] else None
        self._schedule = SCHEDULES[recipe.get("schedule", "constant")]
        self._scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16" and device.type == "cuda")
        decay = recipe.get("average", 0.0)
        self._average = MovingAverage(network, decay) if decay else None
        self._best = Best() if recipe.get("keep") == "best" else None
        self.own = OwnState(network, beside)
        self.curves: Curves = {}
        self.form = Form(layout)
        self.epochs = self.resumed = 0
        self.now = 0.0  # epochs done, with the share of the running one
        self.seconds = self.watch_seconds = 0.0

    @property
    def measured(self) -> nn.Module:
        """The network that is the result: the average, where there is one."""
        return self._average.network if self._average else self.network

    @property
    def steps(self) -> int:
        """The number of steps of an epoch."""
        return steps_per_epoch(len(self.data.train), self.recipe["batch_size"])

    def lay_out(self, layout: str) -> None:
        """Bring the weights, and their average, into another memory format."""
        for network in {id(each): each for each in (self.network, self.measured)}.values():
            network.to(memory_format=LAYOUTS[layout])

    def copy_views(self) -> None:
        """Let views of the network, and of its average, copy where the memory format wants it."""
        reshape_views(self.network)
        reshape_views(self.measured)

    def run(self, objective: Objective, hooks: Hooks, subpixel: bool) -> Training:
        """Train to the end of the recipe, from the checkpoint if there is one, and leave the result in ``network``.

        ``subpixel`` says whether `subpixel_gradients` replaced any layers; it goes into the record.
        """
        settings, epochs = self.settings, self.recipe["epochs"]
        pictured = self.recipe.get("sample_epochs", PICTURE_EPOCHS)
        self.curves = {name: [] for name in objective.names}
        if settings.checkpoint.resume(self._resume):
            hooks.on_resume(self.epochs)
        else:
            self.form = objective.choose(self.form, settings.compile, epochs * self.steps)
            if 0 in pictured:
                hooks.on_pictures(0, self.network)
            self._choose_threads(objective, epochs * self.steps)
            self.own.load_state_dict({})  # what the trials counted or drew
        if settings.compile == "off":
            self.form.compiled = False
        self.form.subpixel, self.form.views_copied = subpixel, reshapes(self.network)
        objective.take(self.form)
        with threads_kept():
            if self.form.threads:
                torch.set_num_threads(self.form.threads)
            self._train(objective, hooks, epochs, pictured)
        kept = self._best.epoch if self._best else None
        if self._best and kept is not None:
            self.network.load_state_dict(self._best.state)
        elif self._average:
            self.network.load_state_dict(self._average.network.state_dict())
        finish(self.network)
        return Training(self.curves, self.seconds, self.watch_seconds, self.resumed, kept, self.form)

    def _choose_threads(self, objective: Objective, steps: int) -> None:
        """Try how many threads a step is fastest with, where there are enough steps to make up for it."""
        most, device = self.settings.most_threads, self.generator.device
        if most <= 1 or steps < MANY_STEPS or device.type != "cpu":
            return
        state = random_state(self.generator)
        began = time.perf_counter()
        index = torch.arange(min(self.recipe["batch_size"], len(self.data.train)), device=device)
        shape = tuple(self.data.train.pixels(index[:1]).shape)
        key = f"training {shape_key(self.network, shape, len(index), self.settings.precision)}"
        with threads_kept():
            self.form.threads = use_fastest(objective.trial(index), device, most, key)
        resume_random_state(self.generator, state)
        self.form.seconds += time.perf_counter() - began

    def _train(self, objective: Objective, hooks: Hooks, epochs: int, pictured: Collection[int]) -> None:
        while self.epochs < epochs:
            values = self._epoch(objective, hooks)
            if self._best:
                self._best.consider(self.measured, self.epochs, objective.score(values))
            if self.epochs in pictured or self.epochs == epochs:
                hooks.on_pictures(self.epochs, self.measured)
            if objective.saves_first:
                self._save_if_due()
            hooks.on_epoch(self.epochs, values)
            if not objective.saves_first:
                self._save_if_due()

    def _epoch(self, objective: Objective, hooks: Hooks) -> dict[str, float]:
        began = time.perf_counter()
        losses = self._steps(objective, hooks)
        values = objective.measure(self.measured, losses.mean(), losses.tracked())
        for name, value in values.items():
            if not math.isfinite(value):  # the weights after the last step have had no loss computed yet
                raise TrainingDiverged((self.epochs + 1) * self.steps, value, self.settings.precision, name)
        ended = time.perf_counter()
        values |= objective.watch(self.measured)
        self.seconds += ended - began
        self.watch_seconds += time.perf_counter() - ended
        self.epochs += 1
        for name, value in values.items():
            self.curves[name].append(value)
        return values

    def _steps(self, objective: Objective, hooks: Hooks) -> Losses:
        first, device = self.epochs * self.steps, self.generator.device
        losses = Losses(self.steps, device, first, self.settings.precision, objective.parts)
        batches = list(shuffled(len(self.data.train), self.recipe["batch_size"], self.generator))
        for step, index in enumerate(batches):
            if step + 1 < len(batches):
                self.data.train.expect(batches[step + 1])
            self.now = self.epochs + step / self.steps
            share = self._schedule(self.now, self.recipe)
            self.network.train()
            loss, value = self._descend(objective, index, self.recipe["learning_rate"] * share)
            losses.keep(loss, value)
            hooks.on_step()
        return losses

    def _descend(self, objective: Objective, index: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        assert self._optimizer is not None
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        loss, value = objective.step(index)
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        if clip := self.recipe.get("clip", 0.0):
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._average:
            self._average.update(self.network)
        return loss, value

    def _save_if_due(self) -> None:
        if self.settings.checkpoint.due():
            self.settings.checkpoint.save(self._state())

    def _state(self) -> dict[str, Any]:
        """Everything that a resumed training needs to continue as if it had never stopped."""
        assert self._optimizer is not None
        return {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "average": self._average.state_dict() if self._average else None,
            "best": self._best.state_dict() if self._best else None,
            "random": random_state(self.generator),
            "own": self.own.state_dict(),
            "curves": self.curves,
            "form": asdict(self.form),
            "epochs": self.epochs,
            "seconds": self.seconds,
            "watch_seconds": self.watch_seconds,
            "resumed": self.resumed,
        }

    def _resume(self, state: dict[str, Any]) -> None:
        """Continue from what `_state` returned. Raises `ValueError`, or as torch does, for another training's state."""
        if state["curves"].keys() != self.curves.keys() or self._optimizer is None:
            raise ValueError("its curves have other names")
        self.form = Form(**state.get("form", {}))
        self.network.to(memory_format=LAYOUTS[self.form.layout])  # first: the optimizer's state is laid out like it
        if self.form.layout == "contiguous":
            self.lay_out("contiguous")
        if self.form.views_copied:
            self.copy_views()
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        if self._average:
            self._average.load_state_dict(state["average"])
        if self._best:
            self._best.load_state_dict(state["best"])
        resume_random_state(self.generator, state["random"])
        self.own.load_state_dict(state.get("own", {}))
        self.curves = {name: list(values) for name, values in state["curves"].items()}
        self.epochs, self.resumed = state["epochs"], state["resumed"] + 1
        self.seconds, self.watch_seconds = state["seconds"], state["watch_seconds"]
