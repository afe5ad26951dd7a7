"""The training of VAEs, and the evaluation of their bound."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

from epsbench.harness.run.data.examples import Data, Examples
from epsbench.harness.run.machine.copies import copy_of
from epsbench.harness.run.machine.memory import in_chunks
from epsbench.harness.run.machine.precision import autocast
from epsbench.harness.run.noise import KeyedNoise
from epsbench.harness.run.training.encoder_batches import EncoderBatches, with_noisy_input
from epsbench.harness.run.training.loop import Course, Objective
from epsbench.harness.run.training.moved import WIDE, moved
from epsbench.harness.run.training.recipe import BETA_SCHEDULES, Recipe
from epsbench.harness.run.training.seeding import random_state, reproducibly, resume_random_state
from epsbench.harness.run.training.settings import Hooks, Settings, Training
from epsbench.harness.run.training.sliced import sliced_convolutions
from epsbench.harness.run.training.step_form import Form, Step, fastest_form
from epsbench.models.priors import GeneratorNoise
from epsbench.models.vae import VAENetwork, bits_per_dimension

EVALUATION_BATCH = 256


def train_vae(
    vae: VAENetwork,
    data: Data,
    recipe: Recipe,
    beta: float,
    settings: Settings,
    hooks: Hooks = Hooks(),  # noqa: B008 - a frozen value
) -> Training:
    """Train ``vae`` in place, on the device of ``data``.

    The loss is (distortion + β·rate) in bits per dimension with one sample of z an image (β-VAE: Higgins et al., 2017),
    with what the recipe adds: free bits, a schedule of β, batches for the encoder alone, epochs on images that are
    moved. The curves ``train_bpd`` (over the batches of the epoch, as they were moved) and ``validation_bpd``, with its
    parts ``validation_distortion_bpd`` and ``validation_rate_bpd``, are the bound
    itself, at β = 1, or the distortion of an autoencoder, as the model's own ``elbo`` computes it. With ``average`` in
    the recipe, the moving average of the weights is evaluated, pictured and left in ``vae``. With ``keep = "best"``,
    the weights of the epoch with the lowest ``validation_bpd`` are. A float32 training that is
    resumed from a checkpoint in the same form ends with the same weights, bit for bit. Raises `ValueError` for a
    negative β, `TrainingDiverged` for a loss that is not finite, and `InputError` for a checkpoint that cannot be used.
    """
    if not (beta >= 0 and math.isfinite(beta)):
        raise ValueError(f"beta weights the rate and must not be negative, not {beta}")
    device = data.train.device
    vae.to(device).train()
    with reproducibly(settings.seed, device, settings.precision) as generator, sliced_convolutions(vae, device):
        course = Course(vae, data, recipe, generator, settings, "contiguous")
        return course.run(_Bound(course, vae, beta), hooks, subpixel=False)


class _Bound(Objective):
    """The evidence lower bound with a weighted rate."""

    names = ("train_bpd", "validation_bpd", "validation_distortion_bpd", "validation_rate_bpd")
    parts = MappingProxyType({
        "distortion": "bound the decoder's logits, which overflow",
        "rate": "bound the encoder's log-std (its exp is infinite above 88) and mean, which overflow",
    })  # fmt: skip
    saves_first = True

    def __init__(self, course: Course, vae: VAENetwork, beta: float) -> None:
        self._course, self._vae, self._beta = course, vae, beta
        recipe, precision = course.recipe, course.settings.precision
        self._share = BETA_SCHEDULES[recipe.get("beta_schedule", "constant")]
        noisy = with_noisy_input(vae, recipe.get("encoder_noise", 0.0), course.generator)
        self._eager = bound_step(noisy, precision, recipe.get("free_bits", 0.0))
        further = recipe.get("encoder_batches", "none")
        self._encoder = None if further == "none" else EncoderBatches(vae, further, course.generator, precision)
        # Both are copies of the object that share its modules: what `elbo` counts in itself, it counts there.
        for name, copied in (("noisy", noisy), ("for the encoder", self._encoder and self._encoder.view)):
            if copied is not None and copied is not vae:
                course.own.add(name, copied)

    def choose(self, form: Form, wanted: str, steps: int) -> Form:
        train = self._course.data.train
        index = torch.arange(min(self._course.recipe["batch_size"], len(train)), device=train.device)

        def make(form: Form) -> Step:
            return form.apply(self._vae, self._eager)

        batch = self._example_batch(index)
        state = random_state(self._course.generator)
        try:
            return fastest_form(self._vae, make, batch, steps, wanted)
        finally:
            resume_random_state(self._course.generator, state)

    def trial(self, index: Tensor) -> Callable[[], object]:
        vae = copy_of(self._vae)
        step = bound_step(vae, self._course.settings.precision, 0.0)
        batch = self._example_batch(index)
        return lambda: step(*batch)[0].backward()

    def _example_batch(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What a step takes for these training images, with noise that leaves the run's generator alone."""
        noise = KeyedNoise(0, index, torch.zeros_like(index)).normal(self._vae.z_dim)
        return self._course.data.train.pixels(index), noise, torch.tensor(self._beta, device=index.device)

    def take(self, form: Form) -> None:
        self._step = form.apply(self._vae, self._eager)

    def step(self, index: Tensor) -> tuple[Tensor, Tensor]:
        x = self._course.data.train.pixels(index)
        if self._course.epochs < self._course.recipe.get("moved_epochs", 0):
            x = moved(x, WIDE, self._course.generator)
        noise = GeneratorNoise(len(x), self._course.generator).normal(self._vae.z_dim)
        # Filled on the device: a copy from the host in each step would make the host wait.
        beta = torch.full((), self._beta * self._share(self._course.now, self._course.recipe), device=x.device)
        loss, tracked = self._step(x, noise, beta)
        if self._encoder is not None:
            loss = loss + self._encoder.loss(x, beta)
        return loss, tracked

    def measure(self, network: nn.Module, loss: float, tracked: Sequence[float]) -> dict[str, float]:
        settings, validation = self._course.settings, self._course.data.validation
        assert isinstance(network, VAENetwork)
        bpd = evaluate_vae(network, validation, settings.seed, settings.precision)
        distortion, rate = bpd.mean(0).tolist()
        return {
            "train_bpd": tracked[0],
            "validation_bpd": bpd.sum(1).mean().item(),
            "validation_distortion_bpd": distortion,
            "validation_rate_bpd": rate,
        }

    def score(self, values: Mapping[str, float]) -> float:
        return -values["validation_bpd"]


def bound_step(vae: VAENetwork, precision: str, free_bits: float = 0.0) -> Step:
    """Maps pixels (N, C, H, W), noise (N, z_dim) and β, a scalar, to the loss, a scalar, and to detached values (3,).

    These are the bound, its distortion and its rate. All are in bits per dimension. A mean rate of the batch below
    ``free_bits`` bits an image costs as much as that (Kingma et al., 2016, eq. 15, with all latent dimensions as one
    group).
    """
    free = free_bits * math.log(2)

    def step(x: Tensor, noise: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        with autocast(x.device, precision):
            distortion, rate = vae.elbo(x, noise)
        bound = (distortion + rate).mean()
        loss = distortion.mean() + beta * rate.mean().clamp(min=free) if free else (distortion + beta * rate).mean()
        tracked = torch.stack([bound, distortion.mean(), rate.mean()]).detach()
        return bits_per_dimension(loss, vae.shape), bits_per_dimension(tracked, vae.shape)

    return step


def evaluate_vae(vae: VAENetwork, examples: Examples, seed: int, precision: str) -> Tensor:
    """Distortion and rate of every example in bits per dimension: float64 (n, 2). Their sum bounds the likelihood.

    One sample of z an image, keyed by (seed, example), so the batch size does not matter; running out of memory
    halves it. ``vae`` is left in evaluation mode.
    """
    vae.eval()

    def parts(rows: slice) -> Tensor:
        example = torch.arange(rows.start, rows.stop, device=examples.device)
        noise = KeyedNoise(seed, example, torch.zeros_like(example)).normal(vae.z_dim)
        with torch.no_grad(), autocast(examples.device, precision):
            distortion, rate = vae.elbo(examples.pixels(rows), noise)
            return torch.stack([distortion, rate], dim=1)

    # The mean of 10,000 float32 numbers loses digits that the standard error still shows.
    return bits_per_dimension(in_chunks(parts, len(examples), EVALUATION_BATCH).double(), vae.shape)
