"""The part of the ELBO's gap that is due to the encoder, measured by refining the posterior of every image."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from epsbench.harness.run.data.examples import Examples
from epsbench.harness.run.generative.bounds import BATCH, averaged, fast_copy, latents_at_once, log_weights
from epsbench.harness.run.generative.measured import Advance, Measured
from epsbench.harness.run.generative.posterior import Posterior
from epsbench.harness.run.machine.memory import in_chunks
from epsbench.harness.run.metrics import mean_metric
from epsbench.harness.run.noise import KeyedNoise
from epsbench.models.vae import VAENetwork, bits_per_dimension, quantise

NegativeELBO = Callable[[Posterior, Tensor], Tensor]

IMAGES = {"cpu": 128, "cuda": 4096}  # refined at once
RATE = 0.05  # of Adam, at the start; it falls to 0 along a cosine
CHOOSING = 8  # draws that decide between the encoder's posterior and the refined one of an image
WEIGHTED_IMAGES, WEIGHTS = 128, 8  # refined posteriors that are proposals as well, and the draws from each
CHOOSING_STREAM, WEIGHTED_STREAM = 1 << 20, 1 << 21  # of the keyed noise; steps have 1, 2, 3, ...


def refine(posterior: Posterior, negative_elbo: NegativeELBO, noise: Callable[[int], Tensor], steps: int) -> Posterior:
    """The means and log-stds after ``steps`` steps of Adam on each image's own negative ELBO.

    ``negative_elbo`` takes a posterior and standard normal noise (n, z_dim) and returns nats (n,), each of which may
    depend on its own row only. ``noise(step)`` returns the noise of steps 1 to ``steps``. Rows are independent of each
    other, so their number does not change the result.
    """
    means = posterior.mean.detach().clone().requires_grad_()
    log_stds = posterior.log_std.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([means, log_stds], lr=RATE)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.5 * RATE * (1 + math.cos(math.pi * step / steps))
        loss = negative_elbo(Posterior(means, log_stds), noise(step + 1)).sum()
        means.grad, log_stds.grad = torch.autograd.grad(loss, [means, log_stds])
        optimizer.step()
    return Posterior(means.detach(), log_stds.detach())


@dataclass(frozen=True)
class Refined:
    """Bounds of images under refined posteriors, float64, in bits per dimension."""

    bpd: Tensor
    """The negative ELBO (n,)."""

    weighted_bpd: Tensor
    """The importance-weighted bound with the refined posterior as proposal, of the first images (m,)."""


def refined_bpd(
    vae: VAENetwork, examples: Examples, steps: int, seed: int, advance: Advance = lambda n: None, *, images: int
) -> Refined:
    """The bounds of the first ``images`` examples under refined posteriors.

    Like the ELBO, the first is a bound for the same model with the same family of posteriors; the encoder only gives
    the start. Where the steps have not helped, as where they overshoot a narrow posterior, the start is kept. Draws
    that no step has used decide that, image by image, and neither is the bound evaluated on them. It uses the noise of
    the ELBO itself. So in expectation it is not above the ELBO, and the importance-weighted bound is not above it.

    The latter asks another copy of the model, which has taken no step: what a decoder learns while posteriors are
    refined, it does not know. ``advance`` is called with images × steps in all.
    """
    network, other = fast_copy(vae), fast_copy(vae)

    def bounds_of(rows: slice) -> Tensor:
        target = quantise(examples.pixels(rows), vae.levels)
        image = torch.arange(rows.start, rows.stop, device=target.device)

        def negative_elbo(posterior: Posterior, noise: Tensor) -> Tensor:
            z = posterior.draw(noise)
            return network.rate(posterior.mean, posterior.log_std, z) - network.log_likelihood(z, target)

        def noise(stream: int) -> Tensor:
            return KeyedNoise(seed, image, torch.full_like(image, stream)).normal(vae.z_dim)

        def noise_of_step(step: int) -> Tensor:
            advance(len(image))
            return noise(step)

        with torch.no_grad():
            encoded = Posterior(*network.encode(target))
        refined = refine(encoded, negative_elbo, noise_of_step, steps)
        with torch.no_grad():
            if steps:
                gains = [
                    negative_elbo(encoded, drawn) - negative_elbo(refined, drawn)
                    for drawn in (noise(CHOOSING_STREAM + draw) for draw in range(CHOOSING))
                ]
                refined = choose(torch.stack(gains).mean(0) > 0, refined, encoded)
            elbo = negative_elbo(refined, noise(0)).double()
            weighted = _weighted(other, target, refined, image, seed)
        return torch.stack([elbo, weighted], dim=1)

    nats = in_chunks(bounds_of, min(len(examples), images), latents_at_once(vae, IMAGES[examples.device.type]))
    bpd = bits_per_dimension(nats, vae.shape)
    return Refined(bpd[:, 0], bpd[:WEIGHTED_IMAGES, 1])


def choose(first: Tensor, a: Posterior, b: Posterior) -> Posterior:
    """``a`` for the rows where ``first``, bool (n,), is true, and ``b`` for the others."""
    return Posterior(*(torch.where(first[:, None], *both) for both in ((a.mean, b.mean), (a.log_std, b.log_std))))


def _weighted(vae: VAENetwork, target: Tensor, proposal: Posterior, image: Tensor, seed: int) -> Tensor:
    """−L_k in nats, float64 (n,), with k = `WEIGHTS`; NaN for images beyond the first `WEIGHTED_IMAGES`."""
    n = int((image < WEIGHTED_IMAGES).sum())
    bound = torch.full((len(image),), math.nan, dtype=torch.float64, device=image.device)
    if n:
        weights = log_weights(
            proposal[:n],
            lambda z, row: vae.log_likelihood(z, target[row]) + vae.prior.log_prob(z),
            WEIGHTS,
            lambda row, sample: KeyedNoise(seed, image[row], WEIGHTED_STREAM + sample),
            batch=latents_at_once(vae, BATCH[image.device.type]),
        )
        bound[:n] = -averaged(weights, [WEIGHTS])[:, 0]
    return bound


def refinement(
    vae: VAENetwork,
    examples: Examples,
    evaluation: Mapping[str, int],
    seed: int,
    elbo_bpd: Tensor,
    advance: Advance = lambda n: None,
) -> Measured:
    """The refined bound and the amortisation gap, which is the negative ELBO minus the refined bound.

    The ELBO differs from log p(x) by the amortisation gap, due to the encoder, and the approximation gap, due to the
    family of posteriors (Cremer, Li and Duvenaud, "Inference suboptimality in variational autoencoders", 2018, eq. 3).
    With too few steps the result underestimates the amortisation gap. ``elbo_bpd`` (n,) is the negative
    ELBO of every example; ``evaluation`` has ``refinement_steps`` and ``refined_images``.
    """
    refined = refined_bpd(
        vae, examples, evaluation["refinement_steps"], seed, advance, images=evaluation["refined_images"]
    )
    bpd = refined.bpd.cpu()
    elbo = elbo_bpd.cpu().double()[: len(bpd)]
    metrics = {"refined_bpd": mean_metric(bpd), "amortisation_gap_bpd": mean_metric(elbo - bpd)}
    return Measured(metrics, each={"refined_bpd": bpd, "refined_importance_bpd": refined.weighted_bpd.cpu()})


def refinement_work(n: int, evaluation: Mapping[str, int]) -> int:
    """Images × steps for ``n`` examples: what `refinement` calls ``advance`` with in all, 0 if none are asked for."""
    return evaluation["refinement_steps"] * min(n, evaluation["refined_images"])
