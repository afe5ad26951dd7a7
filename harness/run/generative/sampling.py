"""Images drawn from a generative model, and the images of a data set on the same grey levels."""

from __future__ import annotations

import torch
from torch import Tensor

from epsbench.harness.run.data.examples import Examples
from epsbench.harness.run.generative.bounds import latents_at_once
from epsbench.harness.run.machine.memory import in_chunks
from epsbench.harness.run.noise import KeyedNoise
from epsbench.models.vae import VAENetwork, quantise

BATCH = 256


def draw_levels(vae: VAENetwork, n: int, seed: int) -> Tensor:
    """``n`` images from the model, z from its prior and every pixel from p(x|z): grey levels, uint8 (n, C, H, W).

    The random numbers of image i are keyed by (seed, i), and a pixel is the inverse of its distribution function at a
    uniform number. So an image does not depend on the batch or on ``n``, except that a pixel between two levels may
    change if the decoder rounds differently in another batch.
    """
    device = next(vae.parameters()).device

    def drawn(rows: slice) -> Tensor:
        example = torch.arange(rows.start, rows.stop, device=device)
        noise = KeyedNoise(seed, example, torch.zeros_like(example))
        with torch.no_grad():
            share_below = vae.logits(vae.prior.draw(noise)).float().softmax(1).cumsum(1)
            level = (share_below <= noise.uniform(*vae.shape).unsqueeze(1)).sum(1)
        # The probabilities of all levels may sum to slightly less than 1.
        return level.clamp(max=vae.levels - 1).to(torch.uint8)

    return in_chunks(drawn, n, latents_at_once(vae, BATCH))


def mode_levels(vae: VAENetwork, n: int, seed: int) -> Tensor:
    """The most likely grey level of every pixel under the codes that `draw_levels` draws: uint8 (n, C, H, W)."""
    device = next(vae.parameters()).device

    def modes(rows: slice) -> Tensor:
        example = torch.arange(rows.start, rows.stop, device=device)
        with torch.no_grad():
            return vae.logits(vae.prior.draw(KeyedNoise(seed, example, torch.zeros_like(example)))).argmax(1)

    return in_chunks(modes, n, latents_at_once(vae, BATCH)).to(torch.uint8)


class Levels:
    """The first images of streamed data on a model's grey levels, uint8 (n, C, H, W), read when they are indexed."""

    def __init__(self, examples: Examples, n: int, levels: int) -> None:
        self._examples, self._n, self._levels = examples, n, levels

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index: slice | Tensor) -> Tensor:
        """The images at these positions, as `levels_of` gives them."""
        index = slice(*index.indices(self._n)) if isinstance(index, slice) else index
        return quantise(self._examples.pixels(index), self._levels).to(torch.uint8)

    def first(self, n: int) -> Levels:
        """Only so many."""
        return Levels(self._examples, min(n, self._n), self._levels)


def whole_levels_of(examples: Examples, levels: int) -> Tensor | Levels:
    """All images on the model's grey levels: in memory, or where they are streamed, read when they are needed."""
    return (
        Levels(examples, len(examples), levels) if examples.reads_ahead else levels_of(examples, len(examples), levels)
    )


def levels_of(examples: Examples, n: int, levels: int) -> Tensor:
    """The first ``n`` images on the model's grey levels, as it sees them: uint8 (n, C, H, W)."""
    return in_chunks(lambda rows: quantise(examples.pixels(rows), levels).to(torch.uint8), n, 1024)
