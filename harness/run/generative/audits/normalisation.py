"""Whether the likelihood of one code sums to one over the grey levels of a pixel."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.data.examples import Examples
from epsbench.models.vae import VAENetwork, log_likelihood, quantise

IMAGES, PIXELS = 4, 4
ALLOWED = 1e-3  # of the sum: float32 rounds a softmax of 256 levels to 1e-5


def audit_normalisation(vae: VAENetwork, test: Examples) -> Iterator[Finding]:
    """A finding if p(x|z), with z fixed and one pixel of x on each of its grey levels, does not sum to one.

    Before every code is decoded, the image with that level is encoded. So this finds a decoder that follows the last
    image, and code that replaces the functions of torch which compute the likelihood.
    """
    levels = torch.arange(vae.levels, device=test.device)
    worst = 0.0
    for image in range(min(IMAGES, len(test))):
        target = quantise(test.pixels(slice(image, image + 1)), vae.levels)
        with torch.no_grad():
            code = vae.encode(target)[0]
        for number in range(PIXELS):
            c, h, w = _pixel(number, vae.shape)
            images = target.repeat(vae.levels, 1, 1, 1)
            images[:, c, h, w] = levels
            with torch.no_grad():
                vae.encode(images)
                logits = vae.decoder(code.repeat(vae.levels, 1))[:, :, c : c + 1, h : h + 1, w : w + 1]
            total = float(log_likelihood(logits, levels.view(-1, 1, 1, 1)).double().exp().sum())
            worst = total if abs(total - 1) > abs(worst - 1) or worst == 0 else worst
    if abs(worst - 1) > ALLOWED:
        fact = (
            f"the likelihoods of one code for the {vae.levels} grey levels of a pixel sum to {worst:.4g}, and not to 1"
        )
        yield finding("not-normalised-likelihood", fact, sum=worst, levels=vae.levels)


def _pixel(number: int, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Pixels around the middle of the image, where pixels vary most."""
    return number % shape[0], (shape[1] // 2 + number // 2) % shape[1], (shape[2] // 2 + number % 2) % shape[2]
