"""Pictures of a generative model, as arrays of pixels in [0, 1]."""

from __future__ import annotations

import numpy as np
import torch

from epsbench.harness.run.data.examples import Examples
from epsbench.harness.run.noise import KeyedNoise
from epsbench.models.priors import StandardNormal
from epsbench.models.vae import VAENetwork, quantise

SAMPLES = 64
RECONSTRUCTIONS = 8
WALKS, STEPS = 8, 10
MANIFOLD_SIDE = 20

Pictures = dict[str, np.ndarray]


def samples(vae: VAENetwork, seed: int, n: int = SAMPLES) -> np.ndarray:
    """``n`` images from the prior, float32 (n, C, H, W).

    The same seed gives the same random numbers. So the pictures of two epochs show the same points of the latent space,
    unless a learned prior moves them.
    """
    device = next(vae.parameters()).device
    index = torch.arange(n, device=device)
    z = vae.draw(KeyedNoise(seed, index, torch.zeros_like(index)))
    return vae.sample(z, torch.Generator(device).manual_seed(seed)).cpu().numpy()


def last_pictures(vae: VAENetwork, examples: Examples) -> Pictures:
    """Pictures of a trained model: reconstructions and interpolations of examples, and a latent plane.

    The plane is drawn on quantiles of the prior, so only for two dimensions and a standard normal prior.
    """
    original = examples.pixels(slice(0, RECONSTRUCTIONS))
    pictures = {"reconstructions": torch.stack([original, vae.reconstruct(original)]).cpu().numpy()}
    if len(examples) > 1:
        pictures["interpolations"] = interpolations(vae, examples)
    plane = vae.z_dim == 2 and isinstance(vae.prior, StandardNormal)
    return pictures | ({"manifold": manifold(vae)} if plane else {})


@torch.no_grad()
def interpolations(vae: VAENetwork, examples: Examples, walks: int = WALKS, steps: int = STEPS) -> np.ndarray:
    """Mean images on straight lines through the latent space: float32 (walks, steps, C, H, W).

    Each walk leads from the posterior mean of one example to that of the next. Every walk has two examples of its own,
    so at least two examples are needed.
    """
    walks = min(walks, len(examples) // 2)
    mean, _ = vae.encode(quantise(examples.pixels(slice(0, 2 * walks)), vae.levels))
    start, end = mean.view(walks, 2, 1, -1).unbind(1)
    z = torch.lerp(start, end, torch.linspace(0, 1, steps, device=mean.device)[:, None])
    return vae.mean_image(z.flatten(0, 1)).unflatten(0, (walks, steps)).cpu().numpy()


def manifold(vae: VAENetwork, side: int = MANIFOLD_SIDE) -> np.ndarray:
    """Mean images (side², C, H, W) over two latent dimensions: the first changes by row, the second by column.

    Each dimension takes the quantiles of the standard normal at (i + ½) / side.
    """
    device = next(vae.parameters()).device
    quantiles = torch.special.ndtri((torch.arange(side, device=device) + 0.5) / side)
    return vae.mean_image(torch.cartesian_prod(quantiles, quantiles)).cpu().numpy()
