"""Images drawn from a generative model, and the images of a data set on the same grey levels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from epsbench.harness.run.data.examples import Examples
from epsbench.harness.run.machine.memory import in_chunks
from epsbench.harness.run.noise import KeyedNoise
from epsbench.models.vae import VAENetwork, quantise

BATCH = 256
# Of the decoder's logits at once; 256 grey levels of a colour image are 786,432 numbers an image.
MOST_NUMBERS = 1 << 25


def draw_levels(vae: VAENetwork, n: int, seed: int) -> Tensor:
    """``n`` images from the model: z from its prior, every pixel from p(x|z). Grey levels, uint8 (n, C, H, W).

    The numbers of image i are keyed by (seed, i) and a pixel is the inverse of its distribution function at a
    uniform number, so that images depend neither on the batch nor on how many are drawn, but for a pixel on the
    edge between two levels that the decoder rounds differently.
    """
    device = next(vae.parameters()).device
    batch = max(1, min(BATCH, MOST_NUMBERS // (vae.levels * math.prod(vae.shape))))

    def drawn(rows: slice) -> Tensor:
        example = torch.arange(rows.start, rows.stop, device=device)
        noise = KeyedNoise(seed, example, torch.zeros_like(example))
        with torch.inference_mode():
            share_below = vae.decoder(vae.prior.draw(noise)).float().softmax(1).cumsum(1)
            level = (share_below <= noise.uniform(*vae.shape).unsqueeze(1)).sum(1)
        # The shares of all levels may sum to just under 1.
        return level.clamp(max=vae.levels - 1).to(torch.uint8)

    return in_chunks(drawn, n, batch)


def levels_of(examples: Examples, n: int, levels: int) -> Tensor:
    """The first ``n`` images on the model's grey levels, as it sees them: uint8 (n, C, H, W)."""
    return in_chunks(lambda rows: quantise(examples.pixels(rows), levels).to(torch.uint8), n, 1024)
