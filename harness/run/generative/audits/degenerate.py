"""Parts of a generative model that have left the range in which their numbers mean something."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.data.examples import Examples
from epsbench.harness.run.generative.latent import kl_by_dimension
from epsbench.harness.run.generative.posterior import Posterior, encode
from epsbench.harness.run.generative.witness import Witness
from epsbench.harness.run.noise import KeyedNoise
from epsbench.models.vae import VAENetwork, quantise

IMAGES = 256
DECODED = 32
CONSTANT = 1e-6  # a dimension that varies by less than this share of its deviation is the same for all images
COSTS_NATS = 0.05  # a constant dimension whose rate is less has just collapsed onto the prior
CERTAIN = 0.9  # the share of varying pixels whose log-likelihood is exactly 0
IMPOSSIBLE_NATS, IMPOSSIBLE = -87.0, 0.05  # a likelihood that float32 cannot hold, and the share of such pixels


def audit_degenerate(vae: VAENetwork, test: Examples) -> Iterator[Finding]:
    """Findings about the posteriors of some test images, and the likelihoods under codes drawn from them."""
    images = test[slice(0, min(IMAGES, len(test)))]
    vae.eval()
    posterior = encode(vae, images)
    broken = list(_not_finite(vae, posterior))
    if broken:
        yield from broken
        return
    if not vae.deterministic:
        yield from _narrow(posterior)
        yield from _constant(posterior)
    yield from _likelihood(vae, images, posterior)


def _not_finite(vae: VAENetwork, posterior: Posterior) -> Iterator[Finding]:
    parts = {"the posterior's mean": posterior.mean}
    if not vae.deterministic:
        parts |= {"the posterior's log-std": posterior.log_std, "the posterior's deviation": posterior.log_std.exp()}
    for name, values in parts.items():
        bad = ~values.isfinite()
        if bool(bad.any()):
            dimensions = bad.any(0).nonzero().flatten().tolist()
            fact = f"{name} is NaN or infinite on {int(bad.any(1).sum())} of {len(values)} test images"
            yield finding("not-finite", f"{fact}, in latent {_listed(dimensions)}", part=name, dimensions=dimensions)
            return


def audit_narrow(witness: Witness) -> Iterator[Finding]:
    """A finding if any posterior that was computed while the model was measured is a point."""
    if witness.points:
        dimensions = sorted(witness.point_dimensions)
        share = witness.points / witness.posteriors
        fact = f"{witness.points:,} of {witness.posteriors:,} posteriors that were computed have no width in latent "
        yield finding("degenerate-posterior", fact + _listed(dimensions), dimensions=dimensions, share=share)


def _narrow(posterior: Posterior) -> Iterator[Finding]:
    narrow = posterior.is_narrow()
    if bool(narrow.any()):
        dimensions = narrow.any(0).nonzero().flatten().tolist()
        smallest = float(posterior.log_std[narrow].min())
        fact = (
            f"the posterior has no width in latent {_listed(dimensions)}: its log-std goes down to {smallest:.4g}, and "
            "float32 has no numbers to draw from so near its mean"
        )
        yield finding("degenerate-posterior", fact, dimensions=dimensions, smallest_log_std=smallest,
                      share=float(narrow.float().mean()))  # fmt: skip


def _constant(posterior: Posterior) -> Iterator[Finding]:
    if len(posterior) < 2:
        return
    mean, log_std = posterior.mean.double(), posterior.log_std.double()
    scale = log_std.exp().mean(0)
    constant = (mean.amax(0) - mean.amin(0) <= CONSTANT * scale) & (log_std.amax(0) - log_std.amin(0) <= CONSTANT)
    rate = kl_by_dimension(posterior).mean(0)
    dimensions = (constant & (rate > COSTS_NATS)).nonzero().flatten().tolist()
    if dimensions:
        fact = f"the posterior is the same for all images, and not N(0, 1), in latent {_listed(dimensions)}"
        yield finding("constant-dimensions", fact, dimensions=dimensions, rate_nats=rate[dimensions].tolist())


def _likelihood(vae: VAENetwork, images: Examples, posterior: Posterior) -> Iterator[Finding]:
    few = slice(0, min(DECODED, len(images)))
    row = torch.arange(few.stop, device=images.device)
    noise = KeyedNoise(0, row, torch.zeros_like(row)).normal(vae.z_dim)
    z = posterior.mean[few] if vae.deterministic else posterior[few].draw(noise)
    target = quantise(images.pixels(few), vae.levels)
    with torch.no_grad():
        logits = vae.logits(z)
    if not bool(logits.isfinite().all()):
        bad = int((~logits.isfinite()).flatten(1).any(1).sum())
        fact = f"the decoder's output is NaN or infinite on {bad} of {len(z)} test images"
        yield finding("not-finite", fact, part="the decoder", images=bad)
        return
    if bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < 1e-4).all()):
        fact = "the decoder's outputs are not negative and add up to 1 over the grey levels"
        yield finding("probabilities", fact, images=len(z))
        return
    if vae.deterministic:
        return
    log_likelihood = logits.float().log_softmax(1).gather(1, target[:, None])[:, 0]
    varying = _varying(quantise(images.pixels(), vae.levels))
    if not bool(varying.any()):
        return
    of_varying = log_likelihood[:, varying]
    certain = float((of_varying >= -1e-7).float().mean())
    impossible = float((log_likelihood < IMPOSSIBLE_NATS).float().mean())
    if certain >= CERTAIN or impossible >= IMPOSSIBLE:
        fact = (
            f"p(x|z) is exactly 1 in float32 for {certain:.1%} of the pixels that vary, and too small for a float32 "
            f"number for {impossible:.2%} of all pixels"
        )
        yield finding("likelihood-at-floor", fact, certain=certain, impossible=impossible)


def _varying(target: Tensor) -> Tensor:
    """The pixels, bool (C, H, W), that are on their commonest grey level in at most 90 % of the images."""
    common = target.mode(0).values
    return (target == common).float().mean(0) <= 0.9


def _listed(dimensions: Sequence[int], most: int = 8) -> str:
    shown = ", ".join(map(str, dimensions[:most])) + (", ..." if len(dimensions) > most else "")
    return f"dimension{'s' * (len(dimensions) > 1)} {shown}"
