"""The training loop of VAEs, and the evaluation of their bound."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from epsbench.harness.run.data.examples import Data, Examples
from epsbench.harness.run.machine.memory import in_chunks
from epsbench.harness.run.machine.precision import autocast
from epsbench.harness.run.noise import KeyedNoise
from epsbench.harness.run.training.averaging import MovingAverage
from epsbench.harness.run.training.checkpoint import Checkpoint
from epsbench.harness.run.training.classifier import Curves, finished
from epsbench.harness.run.training.losses import Losses, TrainingDiverged
from epsbench.harness.run.training.recipe import SCHEDULES, Recipe
from epsbench.harness.run.training.seeding import (
    random_state,
    reproducibly,
    resume_random_state,
    shuffled,
    steps_per_epoch,
)
from epsbench.harness.run.training.step_form import LAYOUTS, Form, Objective, fastest_form
from epsbench.harness.run.training.trainee import Noise
from epsbench.models.vae import VAENetwork, bits_per_dimension

EVALUATION_BATCH = 256
PICTURE_EPOCHS = (0, 10)  # and the last one


@dataclass(frozen=True)
class Trained:
    """What a training leaves behind besides the weights: curves, seconds over all its resumptions, and its form."""

    curves: Curves
    seconds: float
    form: Form
    resumed: int


def train_vae(
    vae: VAENetwork,
    data: Data,
    recipe: Recipe,
    beta: float,
    *,
    seed: int,
    precision: str,
    compile: str = "off",
    checkpoint: Checkpoint | None = None,
    on_epoch: Callable[[int, dict[str, float]], None] = lambda epoch, values: None,
    on_step: Callable[[], None] = lambda: None,
    on_pictures: Callable[[int, VAENetwork], None] = lambda epoch, vae: None,
) -> Trained:
    """Train ``vae`` in place, on the device of ``data``, and return its curves, one value an epoch, and what it took.

    The loss is (distortion + β·rate) in bits per dimension with one sample of z an image, under Adam (β-VAE: Higgins
    et al., 2017). The curves ``train_bpd`` (of the batches as they passed) and ``validation_bpd`` are the bound
    itself, at β = 1; of an autoencoder, its distortion. With ``average`` in the recipe, what is evaluated, pictured
    and left in ``vae`` is the moving average of the weights. ``on_pictures`` is called before training, after epoch 10
    and at the end. ``checkpoint`` is restored from, kept up and left for the caller to remove: a float32 training
    that goes on from it, in the form it had, ends at the same weights to the bit.
    Raises `ValueError` for a negative β, `TrainingDiverged` for a loss that is no number, and `InputError` for a
    checkpoint that cannot be used.
    """
    if not (beta >= 0 and math.isfinite(beta)):
        raise ValueError(f"beta weights the rate and must not be negative, not {beta}")
    device = data.train.device
    batch, epochs = recipe["batch_size"], recipe["epochs"]
    steps = steps_per_epoch(len(data.train), batch)
    vae.to(device).train()
    checkpoint = checkpoint or Checkpoint(None)
    with reproducibly(seed, device, precision) as generator:
        objective = objective_of(vae, beta, precision)
        state = _State(vae, recipe, generator, precision)
        if not checkpoint.resume(state.restore):
            state.form = fastest_form(
                vae, lambda form: form.apply(vae, objective), _batch(vae, data, batch), epochs * steps, compile
            )
            on_pictures(0, vae)
        elif compile == "off":
            state.form.compiled = False
        quick = state.form.apply(vae, objective)
        for epoch in range(state.epoch + 1, epochs + 1):
            began = time.perf_counter()
            vae.train()
            losses, bounds = (Losses(steps, device, (epoch - 1) * steps) for _ in range(2))
            for step, index in enumerate(shuffled(len(data.train), batch, generator)):
                state.set_rate(epoch - 1 + step / steps)
                x = data.train.pixels(index)
                loss, bound = quick(x, Noise(len(x), generator).normal(vae.z_dim))
                state.descend(loss)
                losses.keep(loss)
                bounds.keep(bound)
                on_step()
            losses.mean()  # names the step if the loss is no number any more
            evaluated = state.evaluated()
            values = {
                "train_bpd": bounds.mean(),
                "validation_bpd": evaluate_vae(evaluated, data.validation, seed, precision).sum(1).mean().item(),
            }
            if not math.isfinite(values["validation_bpd"]):  # of weights that no loss has seen yet
                raise TrainingDiverged(epoch * steps, values["validation_bpd"])
            state.passed(epoch, values, time.perf_counter() - began)
            if epoch in PICTURE_EPOCHS or epoch == epochs:
                on_pictures(epoch, evaluated)
            if checkpoint.due():
                checkpoint.save(state.kept())
            on_epoch(epoch, values)
        state.finish()
    return Trained(finished(vae, state.curves), state.seconds, state.form, state.resumed)


def objective_of(vae: VAENetwork, beta: float, precision: str) -> Objective:
    """Pixels (N, C, H, W) and noise (N, z_dim) to the loss and, detached, the bound: bits per dimension."""

    def objective(x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        with autocast(x.device, precision):
            distortion, rate = vae.elbo(x, noise)
        loss, bound = ((distortion + weight * rate).mean() for weight in (beta, 1.0))
        return bits_per_dimension(loss, vae.shape), bits_per_dimension(bound.detach(), vae.shape)

    return objective


def _batch(vae: VAENetwork, data: Data, batch: int) -> tuple[Tensor, Tensor]:
    """A batch to try forms of the step on."""
    index = torch.arange(min(batch, len(data.train)), device=data.train.device)
    return data.train.pixels(index), KeyedNoise(0, index, torch.zeros_like(index)).normal(vae.z_dim)


class _State:
    """All that changes while a VAE is trained, and so all that a checkpoint holds."""

    def __init__(self, vae: VAENetwork, recipe: Recipe, generator: torch.Generator, precision: str) -> None:
        self.vae, self.recipe, self.generator = vae, recipe, generator
        self.device = generator.device
        self.optimizer = torch.optim.Adam(vae.parameters(), recipe["learning_rate"], fused=True)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16" and self.device.type == "cuda")
        decay = recipe.get("average", 0.0)
        self.average = MovingAverage(vae, decay) if decay else None
        self.curves: Curves = {"train_bpd": [], "validation_bpd": []}
        self.form = Form()
        self.epoch, self.seconds, self.resumed = 0, 0.0, 0

    def set_rate(self, epoch: float) -> None:
        """The learning rate at a fractional epoch."""
        share = SCHEDULES[self.recipe.get("schedule", "constant")](epoch, self.recipe)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe["learning_rate"] * share

    def descend(self, loss: Tensor) -> None:
        """One step of Adam, and of the average."""
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.vae)

    def evaluated(self) -> VAENetwork:
        """The network that is judged: the average, where there is one."""
        return self.vae if self.average is None else self.average.network

    def passed(self, epoch: int, values: Mapping[str, float], seconds: float) -> None:
        """Take down what an epoch gave."""
        self.epoch = epoch
        self.seconds += seconds
        for name, value in values.items():
            self.curves[name].append(value)

    def finish(self) -> None:
        """Leave the judged weights in the network."""
        if self.average is not None:
            self.vae.load_state_dict(self.average.network.state_dict())

    def kept(self) -> dict[str, Any]:
        """For `Checkpoint.save`."""
        return {
            "vae": self.vae.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "random": random_state(self.generator),
            "curves": self.curves,
            "form": asdict(self.form),
            "epoch": self.epoch,
            "seconds": self.seconds,
            "resumed": self.resumed,
        }

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Go back to what a checkpoint kept. Raises what torch does where it is another training's."""
        self.form = Form(**kept["form"])
        self.vae.to(memory_format=LAYOUTS[self.form.layout])  # first, for Adam's state is laid out like the weights
        self.vae.load_state_dict(kept["vae"])
        self.optimizer.load_state_dict(kept["optimizer"])
        self.scaler.load_state_dict(kept["scaler"])
        if self.average is not None:
            self.average.load_state_dict(kept["average"])
        resume_random_state(self.generator, kept["random"])
        self.curves = {name: list(values) for name, values in kept["curves"].items()}
        self.epoch, self.seconds, self.resumed = kept["epoch"], kept["seconds"], kept["resumed"] + 1


def evaluate_vae(vae: VAENetwork, examples: Examples, seed: int, precision: str) -> Tensor:
    """Distortion and rate of every example in bits per dimension: float64 (n, 2). Their sum bounds the likelihood.

    One sample of z an image, keyed by (seed, example), so the batch size does not matter; running out of memory
    halves it. The mode of ``vae`` is left at eval.
    """
    vae.eval()

    def parts(rows: slice) -> Tensor:
        example = torch.arange(rows.start, rows.stop, device=examples.device)
        noise = KeyedNoise(seed, example, torch.zeros_like(example)).normal(vae.z_dim)
        with torch.inference_mode(), autocast(examples.device, precision):
            distortion, rate = vae.elbo(examples.pixels(rows), noise)
            return torch.stack([distortion, rate], dim=1)

    # The mean of 10,000 float32 numbers loses digits that the standard error still shows.
    return bits_per_dimension(in_chunks(parts, len(examples), EVALUATION_BATCH).double(), vae.shape)
