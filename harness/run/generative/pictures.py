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

    The same random numbers for the same seed, so that the pictures of two epochs show the same points of the latent
    space, wherever a learned prior does not move them.
    """
    device = next(vae.parameters()).device
    index = torch.arange(n, device=device)
    z = vae.draw(KeyedNoise(seed, index, torch.zeros_like(index)))
    return vae.sample(z, torch.Generator(device).manual_seed(seed)).cpu().numpy()


def last_pictures(vae: VAENetwork, examples: Examples) -> Pictures:
    """What is drawn of a trained model: reconstructions and interpolations of examples, and a latent plane."""
    original = examples.pixels(slice(0, RECONSTRUCTIONS))
    pictures = {"reconstructions": torch.stack([original, vae.reconstruct(original)]).cpu().numpy()}
    if len(examples) > 1:
        pictures["interpolations"] = interpolations(vae, examples)
    plane = vae.z_dim == 2 and isinstance(vae.prior, StandardNormal)  # whose quantiles the plane is drawn on
    return pictures | ({"manifold": manifold(vae)} if plane else {})


@torch.no_grad()
def interpolations(vae: VAENetwork, examples: Examples, walks: int = WALKS, steps: int = STEPS) -> np.ndarray:
    """Mean images on straight lines through the latent space: float32 (walks, steps, C, H, W).

    Each walk leads from the posterior mean of one example to that of the next, two new examples for every walk; at
    least two examples are needed.
    """
    walks = min(walks, len(examples) // 2)
    mean, _ = vae.encode(quantise(examples.pixels(slice(0, 2 * walks)), vae.levels))
    start, end = mean.view(walks, 2, 1, -1).unbind(1)
    z = torch.lerp(start, end, torch.linspace(0, 1, steps, device=mean.device)[:, None])
    return vae.mean_image(z.flatten(0, 1)).unflatten(0, (walks, steps)).cpu().numpy()


def manifold(vae: VAENetwork, side: int = MANIFOLD_SIDE) -> np.ndarray:
    """Mean images (side², C, H, W) over the two latent dimensions: the first runs down, the second across.

    The grid is even in probability: the quantiles of the standard normal at (i + ½) / side.
    """
    device = next(vae.parameters()).device
    quantiles = torch.special.ndtri((torch.arange(side, device=device) + 0.5) / side)
    return vae.mean_image(torch.cartesian_prod(quantiles, quantiles)).cpu().numpy()
