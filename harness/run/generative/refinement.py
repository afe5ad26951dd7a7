"""The part of the ELBO's gap that is due to the encoder, measured by refining the posterior of every image."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from epsbench.harness.run.data.examples import Examples
from epsbench.harness.run.generative.bounds import fast_copy, latents_at_once
from epsbench.harness.run.generative.measured import Advance, Measured
from epsbench.harness.run.generative.posterior import Posterior
from epsbench.harness.run.machine.memory import in_chunks
from epsbench.harness.run.metrics import mean_metric
from epsbench.harness.run.noise import KeyedNoise
from epsbench.models.vae import VAENetwork, bits_per_dimension, log_likelihood, quantise

NegativeELBO = Callable[[Posterior, Tensor], Tensor]

IMAGES = {"cpu": 128, "cuda": 4096}  # refined at once
RATE = 0.05  # of Adam, at the start; it falls to 0 along a cosine


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


def refined_bpd(
    vae: VAENetwork, examples: Examples, steps: int, seed: int, advance: Advance = lambda n: None, *, images: int
) -> Tensor:
    """The negative ELBO of the first ``images`` examples under refined posteriors: float64 (n,), bits per dimension.

    Like the ELBO it is a bound for the same model with the same family of posteriors; the encoder only gives the start.
    The noise of a step is keyed by (seed, image, step). The bound is then evaluated with the noise of the ELBO itself,
    which no step has used. ``advance`` is called with images × steps in all.
    """
    network = fast_copy(vae)

    def bound_of(rows: slice) -> Tensor:
        target = quantise(examples.pixels(rows), vae.levels)
        image = torch.arange(rows.start, rows.stop, device=target.device)

        def negative_elbo(posterior: Posterior, noise: Tensor) -> Tensor:
            z = posterior.draw(noise)
            rate = network.rate(posterior.mean, posterior.log_std, z)
            return rate - log_likelihood(network.decoder(z), target)

        def noise(step: int) -> Tensor:
            if step:
                advance(len(image))
            return KeyedNoise(seed, image, torch.full_like(image, step)).normal(vae.z_dim)

        with torch.no_grad():
            encoded = Posterior(*network.encode(target))
        refined = refine(encoded, negative_elbo, noise, steps)
        with torch.no_grad():
            return negative_elbo(refined, noise(0))

    batch = latents_at_once(vae, IMAGES[examples.device.type])
    nats = in_chunks(bound_of, min(len(examples), images), batch)
    return bits_per_dimension(nats.double(), vae.shape)


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
    bpd = refined_bpd(
        vae, examples, evaluation["refinement_steps"], seed, advance, images=evaluation["refined_images"]
    ).cpu()
    elbo = elbo_bpd.cpu().double()[: len(bpd)]
    return Measured({"refined_bpd": mean_metric(bpd), "amortisation_gap_bpd": mean_metric(elbo - bpd)})


def refinement_work(n: int, evaluation: Mapping[str, int]) -> int:
    """Images × steps for ``n`` examples: what `refinement` calls ``advance`` with in all, 0 if none are asked for."""
    return evaluation["refinement_steps"] * min(n, evaluation["refined_images"])
