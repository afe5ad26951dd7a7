"""The training loop of VAEs, and the evaluation of their bound."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from harness.run.data import Data, Examples
from harness.run.memory import in_chunks
from harness.run.noise import KeyedNoise
from harness.run.step import autocast
from harness.run.training import Curves, Losses, Noise, finished, reproducibly, shuffled, steps_per_epoch
from models.vae import VAENetwork, bits_per_dimension

EVALUATION_BATCH = 256
PICTURE_EPOCHS = (0, 10)  # and the last one


def train_vae(
    vae: VAENetwork,
    data: Data,
    recipe: Mapping[str, Any],
    beta: float,
    *,
    seed: int,
    precision: str,
    on_epoch: Callable[[int, dict[str, float]], None] = lambda epoch, values: None,
    on_step: Callable[[], None] = lambda: None,
    on_pictures: Callable[[int], None] = lambda epoch: None,
) -> Curves:
    """Train ``vae`` in place, on the device of ``data``, and return its curves, one value an epoch.

    The loss is (distortion + β·rate) in bits per dimension with one sample of z an image, under Adam with a
    constant learning rate (β-VAE: Higgins et al., 2017). The curves ``train_bpd`` (of the batches as they
    passed) and ``validation_bpd`` are the bound itself, at β = 1. ``on_pictures`` is called before training, after
    epoch 10 and at the end. Raises `ValueError` for a negative β and `TrainingDiverged` for a loss that is none.
    """
    if not (beta >= 0 and math.isfinite(beta)):
        raise ValueError(f"beta weights the rate and must not be negative, not {beta}")
    curves: Curves = {"train_bpd": [], "validation_bpd": []}
    device, shape = data.train.device, data.description.shape
    vae.to(device).to(memory_format=torch.channels_last)
    batch, epochs = recipe["batch_size"], recipe["epochs"]
    steps = steps_per_epoch(len(data.train), batch)
    with reproducibly(seed, device, precision) as generator:
        optimizer = torch.optim.Adam(vae.parameters(), recipe["learning_rate"], fused=True)
        scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16" and device.type == "cuda")
        on_pictures(0)
        for epoch in range(1, epochs + 1):
            vae.train()
            losses, bounds = (Losses(steps, device, (epoch - 1) * steps) for _ in range(2))
            for index in shuffled(len(data.train), batch, generator):
                x = data.train.pixels(index)
                with autocast(device, precision):
                    distortion, rate = vae.elbo(x, Noise(len(x), generator).normal(vae.z_dim))
                loss = bits_per_dimension((distortion + beta * rate).mean(), shape)
                optimizer.zero_grad(set_to_none=True)
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
                losses.keep(loss)
                bounds.keep(bits_per_dimension((distortion + rate).detach().mean(), shape))
                on_step()
            losses.mean()  # names the step if the loss is no number any more
            values = {
                "train_bpd": bounds.mean(),
                "validation_bpd": evaluate_vae(vae, data.validation, seed, precision).sum(1).mean().item(),
            }
            for name, value in values.items():
                curves[name].append(value)
            on_epoch(epoch, values)
            if epoch in PICTURE_EPOCHS and epoch != epochs:
                on_pictures(epoch)
        if epochs:
            on_pictures(epochs)
    return finished(vae, curves)


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
