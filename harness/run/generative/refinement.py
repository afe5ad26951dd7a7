"""How much of the ELBO's gap the encoder leaves: every image's posterior, refined on its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from epsbench.harness.run.data.examples import Examples
from epsbench.harness.run.generative.bounds import fast_copy, latents_at_once
from epsbench.harness.run.generative.measured import Measured
from epsbench.harness.run.generative.posterior import Posterior
from epsbench.harness.run.machine.memory import in_chunks
from epsbench.harness.run.metrics import mean_metric
from epsbench.harness.run.noise import KeyedNoise
from epsbench.models.vae import VAENetwork, bits_per_dimension, log_likelihood, quantise

Advance = Callable[[int], None]
NegativeELBO = Callable[[Posterior, Tensor], Tensor]

IMAGES = {"cpu": 128, "cuda": 4096}  # refined at once
RATE = 0.05  # of Adam, at the start; it falls to 0 along a cosine


def refine(posterior: Posterior, negative_elbo: NegativeELBO, noise: Callable[[int], Tensor], steps: int) -> Posterior:
    """The means and log-stds after ``steps`` steps of Adam on each image's own negative ELBO.

    ``negative_elbo`` takes a posterior and standard normal noise (n, z_dim), and gives nats (n,), each of which may
    depend on its own row alone; ``noise(step)``, for steps 1 to ``steps``, gives that noise. Rows do not see each
    other: how many there are changes nothing.
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

    It is a bound as the ELBO is, of the same model with the same family of posteriors; only the encoder's word is
    not the last. Steps see noise keyed by (seed, image, step); the bound is then taken with the noise that the ELBO
    itself is measured with, which no step has seen. ``advance`` is told of images × steps.
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
    """The refined bound, and what it lies below the ELBO: the amortisation gap.

    Cremer, Li and Duvenaud, "Inference suboptimality in variational autoencoders" (2018), eq. 3: the ELBO misses
    log p(x) by this gap, for the encoder, and by that of the approximation, for the family. Enough steps are needed
    for it to be all of the gap; with few it is a lower estimate. ``elbo_bpd`` (n,) is the negative ELBO of every
    example; ``evaluation`` has ``refinement_steps`` and ``refined_images``.
    """
    bpd = refined_bpd(
        vae, examples, evaluation["refinement_steps"], seed, advance, images=evaluation["refined_images"]
    ).cpu()
    elbo = elbo_bpd.cpu().double()[: len(bpd)]
    return Measured({"refined_bpd": mean_metric(bpd), "amortisation_gap_bpd": mean_metric(elbo - bpd)})


def refinement_work(n: int, evaluation: Mapping[str, int]) -> int:
    """Images × steps for ``n`` examples: what the ``advance`` of `refinement` adds up to. 0: none is asked for."""
    return evaluation["refinement_steps"] * min(n, evaluation["refined_images"])
