"""Whether the likelihood of one code sums to one over the grey levels of a pixel."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.data.examples import Examples
from epsbench.harness.run.generative.bounds import latents_at_once
from epsbench.harness.run.generative.parts import is_built_in_likelihood
from epsbench.harness.run.machine.memory import in_chunks
from epsbench.models.likelihoods import Categorical
from epsbench.models.vae import VAENetwork, quantise

IMAGES, PIXELS = 4, 4
ALLOWED = 1e-3  # of the sum: float32 rounds a softmax of 256 levels to 1e-5


def audit_normalisation(vae: VAENetwork, test: Examples) -> Iterator[Finding]:
    """A finding if p(x|z), with z fixed and one pixel of x on each of its grey levels, does not sum to one.

    Before every code is decoded, the image with that level is encoded. So this finds a decoder that follows the last
    image, and code that replaces the functions of torch which compute the likelihood.
    """
    worst = 1.0
    for image in range(min(IMAGES, len(test))):
        target = quantise(test.pixels(slice(image, image + 1)), vae.levels)
        with torch.no_grad():
            totals = _likelihoods(vae, target, vae.encode(target)[0]).sum(1)
        worst = max([worst, *totals.tolist()], key=lambda total: abs(total - 1))
    if abs(worst - 1) > ALLOWED:
        fact = (
            f"the likelihoods of one code for the {vae.levels} grey levels of a pixel sum to {worst:.4g}, and not to 1"
        )
        yield finding("not-normalised-likelihood", fact, sum=worst, levels=vae.levels)


def _likelihoods(vae: VAENetwork, target: Tensor, code: Tensor) -> Tensor:
    """Likelihoods of the levels of some pixels of an image ``target`` (1, C, H, W) under its code: (pixels, levels)."""
    places = torch.tensor([_pixel(number, vae.shape) for number in range(PIXELS)], device=target.device)
    levels = torch.arange(vae.levels, device=target.device).repeat(PIXELS)
    pixel = places.repeat_interleave(vae.levels, dim=0)

    def of(rows: slice) -> Tensor:
        images = target.repeat(len(levels[rows]), 1, 1, 1)
        row = torch.arange(len(images), device=target.device)
        c, h, w = pixel[rows].unbind(1)
        images[row, c, h, w] = levels[rows]
        vae.encode(images)
        outputs = vae.decoder(code.repeat(len(images), 1))
        likelihood = vae.likelihood
        if not is_built_in_likelihood(likelihood):  # one of the user's own takes whole images
            outputs, likelihood = likelihood.logits(outputs), Categorical(vae.levels)
        one = outputs[row, :, c, h, w].view(len(images), -1, 1, 1, 1)
        return likelihood.log_prob(one, levels[rows].view(-1, 1, 1, 1)).double().exp()

    return in_chunks(of, len(levels), latents_at_once(vae, len(levels))).view(PIXELS, vae.levels)


def _pixel(number: int, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Pixels around the middle of the image, where pixels vary most."""
    return number % shape[0], (shape[1] // 2 + number // 2) % shape[1], (shape[2] // 2 + number % 2) % shape[2]
