"""The training of VAEs, and the evaluation of their bound."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

from epsbench.harness.run.data.examples import Data, Examples
from epsbench.harness.run.machine.memory import in_chunks
from epsbench.harness.run.machine.precision import autocast
from epsbench.harness.run.noise import KeyedNoise
from epsbench.harness.run.training.loop import Course, Objective
from epsbench.harness.run.training.recipe import Recipe
from epsbench.harness.run.training.seeding import reproducibly
from epsbench.harness.run.training.settings import Hooks, Settings, Training
from epsbench.harness.run.training.step_form import Form, Step, fastest_form
from epsbench.harness.run.training.trainee import Noise
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

    The loss is (distortion + β·rate) in bits per dimension with one sample of z an image, minimised by Adam (β-VAE:
    Higgins et al., 2017). The curves ``train_bpd`` (over the batches of the epoch) and ``validation_bpd`` are the bound
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
    with reproducibly(settings.seed, device, settings.precision) as generator:
        course = Course(vae, data, recipe, generator, settings, "contiguous")
        return course.run(_Bound(course, vae, beta), hooks, subpixel=False)


class _Bound(Objective):
    """The evidence lower bound with a weighted rate."""

    names = ("train_bpd", "validation_bpd")
    parts = MappingProxyType({
        "distortion": "bound the decoder's logits, which overflow",
        "rate": "bound the encoder's log-std (its exp is infinite above 88) and mean, which overflow",
    })  # fmt: skip
    saves_first = True

    def __init__(self, course: Course, vae: VAENetwork, beta: float) -> None:
        self._course, self._vae = course, vae
        self._eager = bound_step(vae, beta, course.settings.precision)

    def choose(self, form: Form, wanted: str, steps: int) -> Form:
        train = self._course.data.train
        index = torch.arange(min(self._course.recipe["batch_size"], len(train)), device=train.device)
        noise = KeyedNoise(0, index, torch.zeros_like(index)).normal(self._vae.z_dim)

        def make(form: Form) -> Step:
            return form.apply(self._vae, self._eager)

        return fastest_form(self._vae, make, (train.pixels(index), noise), steps, wanted)

    def take(self, form: Form) -> None:
        self._step = form.apply(self._vae, self._eager)

    def step(self, index: Tensor) -> tuple[Tensor, Tensor]:
        x = self._course.data.train.pixels(index)
        return self._step(x, Noise(len(x), self._course.generator).normal(self._vae.z_dim))

    def measure(self, network: nn.Module, loss: float, tracked: Sequence[float]) -> dict[str, float]:
        settings, validation = self._course.settings, self._course.data.validation
        assert isinstance(network, VAENetwork)
        bpd = evaluate_vae(network, validation, settings.seed, settings.precision)
        return {"train_bpd": tracked[0], "validation_bpd": bpd.sum(1).mean().item()}

    def score(self, values: Mapping[str, float]) -> float:
        return -values["validation_bpd"]


def bound_step(vae: VAENetwork, beta: float, precision: str) -> Step:
    """Maps pixels (N, C, H, W) and noise (N, z_dim) to the loss, a scalar, and to detached values (3,).

    These are the bound, its distortion and its rate. All are in bits per dimension.
    """

    def step(x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        with autocast(x.device, precision):
            distortion, rate = vae.elbo(x, noise)
        loss, bound = ((distortion + weight * rate).mean() for weight in (beta, 1.0))
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
