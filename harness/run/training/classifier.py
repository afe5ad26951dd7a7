"""The training of classifiers: what a defense's loss is on a batch, and what an epoch measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from epsbench.harness.run.data.augmentation import Augmentation, augmentation_of
from epsbench.harness.run.data.examples import Data, Examples
from epsbench.harness.run.machine.copies import copy_of
from epsbench.harness.run.machine.memory import in_chunks, is_out_of_memory
from epsbench.harness.run.machine.precision import autocast
from epsbench.harness.run.speed.convolutions import subpixel_gradients
from epsbench.harness.run.speed.reshaping import reshape_views, views_restored
from epsbench.harness.run.training.loop import Course, Objective
from epsbench.harness.run.training.seeding import random_state, reproducibly, resume_random_state
from epsbench.harness.run.training.settings import Hooks, Method, Settings, Training
from epsbench.harness.run.training.sliced import sliced_convolutions
from epsbench.harness.run.training.smaller import is_small, smaller
from epsbench.harness.run.training.step_form import USUAL, Form, Step, fastest_form
from epsbench.harness.run.training.trainee import ClassifierInTraining
from epsbench.harness.run.training.watch import WATCHED, watch
from epsbench.models.defenses import Defense

EVALUATION_BATCH, EVALUATION_PIXELS = 1024, 2**24  # at most so many images, or numbers in them, at a time


def train_classifier(
    network: nn.Module,
    data: Data,
    method: Method,
    settings: Settings,
    hooks: Hooks = Hooks(),  # noqa: B008 - a frozen value
) -> Training:
    """Train ``network`` in place, on the device of ``data``.

    The curves ``train_loss`` and ``train_accuracy`` are over the images as trained on: augmented, and with their
    adversarial copies. Batches are full; the examples of an epoch that fill no batch are left out. With ``average`` in
    the recipe, the moving average of the weights is validated and kept. With ``keep = "best"``, those of the
    first epoch with the highest accuracy on the clean validation images are kept. In float32, the same seed gives the
    same weights on the same machine, whether or not the training was stopped and resumed. Raises `TrainingDiverged` for
    a loss that is not finite, and `InputError` for a checkpoint that cannot be used.
    """
    device = data.train.device
    quick = subpixel_gradients(network, device) if settings.subpixel else nullcontext(0)
    repeatable = reproducibly(settings.seed, device, settings.precision)
    with repeatable as generator, sliced_convolutions(network, device), quick as count, views_restored(network):
        # For smallcnn, channels-last was 12 % faster than contiguous (two CPU cores; torch version and n not recorded,
        # not measured again). The tensor cores of CUDA devices need channels-last.
        course = Course(network, data, method.recipe, generator, settings, USUAL, {"defense": method.defense})
        augment = augmentation_of(method.augmentation, method.base)
        return course.run(_Classification(course, method.defense, augment), hooks, count > 0)


class _Classification(Objective):
    """A defense's loss, and the accuracy on the validation images."""

    def __init__(self, course: Course, defense: Defense, augmentation: Augmentation) -> None:
        self._course, self._defense, self._augment = course, defense, augmentation
        self._train, self._validation = course.data.train, course.data.validation
        self._generator, self._precision = course.generator, course.settings.precision
        # The watch looks at the network that is kept: the average if there is one.
        self._watched = ClassifierInTraining(course.measured, course.generator, self._precision)
        images = len(self._train)
        self._watch = watch(defense, self._watched, self._validation, images) if course.recipe["epochs"] else None
        self.names = ("train_loss", "train_accuracy", "validation_accuracy", *(WATCHED if self._watch else ()))

    def choose(self, form: Form, wanted: str, steps: int) -> Form:
        """Channels-last if the model takes it, and compiled if that is faster.

        On a CPU "auto" compiles nothing: a gradient of smallcnn at batch 128 took 161 µs an image compiled, 123 µs not
        compiled (two AMD EPYC (Zen 5) cores, torch 2.14 or 2.15, n not recorded, not measured again). As no timing
        decides there, the same seed always gives the same weights.
        """
        if not steps:
            return form
        course = self._course
        index = torch.arange(min(course.recipe["batch_size"], len(self._train)), device=self._generator.device)
        batch = self._train.pixels(index), self._train.labels[index]
        form = self._fitting(form, batch[0])
        if form.layout != USUAL or (wanted == "auto" and self._generator.device.type == "cpu"):
            return form
        buffers = {name: value.clone() for name, value in course.network.named_buffers()}
        state = random_state(self._generator)

        def again() -> None:
            resume_random_state(self._generator, state)
            for name, value in course.network.named_buffers():
                value.copy_(buffers[name])

        def make(form: Form) -> Step:
            self.take(form)
            return partial(self._tried, again)

        form = fastest_form(course.network, make, batch, steps, wanted, layouts=(USUAL,))
        again()
        return form

    def _fitting(self, form: Form, x: Tensor) -> Form:
        """The form, or contiguous weights for a model that cannot take channels-last ones.

        Where it says ``x.view``, that may copy. Tried on copies, so that nothing the model keeps is changed.
        """
        state = random_state(self._generator)
        try:
            copy_of(self._course.network).train()(x).float().sum().backward()
        except Exception as error:
            if is_out_of_memory(error):
                raise
            if self._fits_with_copied_views(x):
                self._course.copy_views()
                return form
            reason = " ".join(str(error).split())[:300]
            self._course.lay_out("contiguous")
            return Form("contiguous", refused=[f"{form.layout}: {reason}"])
        finally:
            resume_random_state(self._generator, state)
        return form

    def _fits_with_copied_views(self, x: Tensor) -> bool:
        """Whether the network computes the same with channels-last weights and views that copy, and trains so.

        The gradients of its weights are compared in evaluation mode, where no random number decides.
        """
        plain, other = copy_of(self._course.network), copy_of(self._course.network)
        plain.to(memory_format=torch.contiguous_format)
        if not reshape_views(other):
            return False
        try:
            expected, actual = (weight_gradient(each.eval(), x) for each in (plain, other))
            other.train()(x).float().sum().backward()
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            return False
        return float((actual - expected).norm()) <= 1e-3 * float(expected.norm())

    def trial(self, index: Tensor) -> Callable[[], object]:
        network, x = copy_of(self._course.network).train(), self._train.pixels(index)

        def call() -> None:
            with autocast(x.device, self._precision):
                logits = network(x)
            logits.float().sum().backward()

        return call

    def take(self, form: Form) -> None:
        self._trainee = ClassifierInTraining(self._course.network, self._generator, self._precision)
        if form.compiled:
            self._trainee.compile()

    def step(self, index: Tensor) -> tuple[Tensor, Tensor]:
        x, y = self._augment(self._train.pixels(index), self._generator), self._train.labels[index]
        if is_small(self._course.epochs, self._course.recipe):
            x = smaller(x, self._course.recipe)
        self._trainee.label_smoothing = label_smoothing(self._course.epochs, self._course.recipe)
        loss = self._defense.loss(self._trainee, x, y)
        return loss, loss.detach()

    def measure(self, network: nn.Module, loss: float, tracked: Sequence[float]) -> dict[str, float]:
        return {
            "train_loss": loss,
            "train_accuracy": self._trainee.accuracy(),
            "validation_accuracy": accuracy(network, self._validation, self._precision),
        }

    def score(self, values: Mapping[str, float]) -> float:
        return values["validation_accuracy"]

    def watch(self, network: nn.Module) -> dict[str, float]:
        return self._watch.measure(self._watched) if self._watch else {}

    def _tried(self, again: Callable[[], None], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of a batch, after ``again`` has reset buffers and random states: all trials see the same numbers."""
        again()
        self._course.network.train()
        loss = self._defense.loss(self._trainee, x, y)
        return loss, loss.detach()


def label_smoothing(epoch: int, recipe: Mapping[str, Any]) -> float:
    """The label smoothing in an epoch, counted from 0: that of the recipe, and none in its ``unsmoothed_epochs``.

    A network that learns from smoothed labels to the end has small gradients of the cross-entropy, which misleads
    attacks that follow it.
    """
    ends = epoch >= recipe["epochs"] - recipe.get("unsmoothed_epochs", 0)
    return 0.0 if ends else recipe.get("label_smoothing", 0.0)


def weight_gradient(network: nn.Module, x: Tensor) -> Tensor:
    """The gradient of the summed squares of its outputs with respect to all weights, as one vector."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad(network(x).float().square().sum(), weights, allow_unused=True)
    return torch.cat([each.float().flatten() for each in gradients if each is not None])


def accuracy(network: nn.Module, examples: Examples, precision: str) -> float:
    """The share of ``examples`` that the network classifies correctly, in evaluation mode, where it is left."""
    network.eval()

    def correct(rows: slice) -> Tensor:
        with torch.no_grad(), autocast(examples.device, precision):
            return network(examples.pixels(rows)).argmax(1) == examples.labels[rows]

    batch = min(EVALUATION_BATCH, max(1, EVALUATION_PIXELS // max(1, examples.pixels(slice(0, 1)).numel())))
    return in_chunks(correct, len(examples), batch).float().mean().item()
