"""Whether a prior of the user's own is a density, and whether it draws from the density that it computes."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from epsbench.harness.findings import Finding, finding
from epsbench.harness.records import Metric
from epsbench.harness.run.data.examples import Examples
from epsbench.harness.run.generative.parts import is_built_in
from epsbench.harness.run.generative.posterior import encode
from epsbench.harness.run.machine.memory import in_chunks
from epsbench.harness.run.noise import KeyedNoise
from epsbench.models.priors import Prior, log_normal
from epsbench.models.vae import VAENetwork

DRAWS = 1024
CODES = 512  # test images that are encoded
STREAM = -2  # of the keyed noise: another one than that of the measures
ERRORS = 5.0
LEAST_NATS = 0.05  # a prior whose integral is e^0.05 is let pass
LEAST_SHARE = 0.02  # a mean of ranks that is off by less may be due to the grid
STEPS = 48  # points on each side of a line, of each of two grids
POINTS = 1 << 16  # points whose density is asked at once
CLUSTERS = 8
DIRECTIONS = 4  # lines through each draw, orthogonal to each other


def audit_prior(vae: VAENetwork, test: Examples, seed: int) -> Iterator[Finding]:
    """Findings about the prior of a model, unless it is one of epsbench's own.

    1. ``log_prob`` must not integrate to more than one: E_r[log p − log r] ≤ log ∫p for every density r, by Jensen's
       inequality. Each r is a normal, or mixture of normals, around the prior's own draws or codes of test images.
    2. Nor to less: with the covariance S of its draws, E[log p] ≥ log ∫p − ½ log det 2πeS (only for true draws).
    3. Along a random line through a draw, the density integrates to a distribution that this draw is from. So the
       share of its mass on one side of the draw is uniform over draws, in any number of dimensions.
    """
    if is_built_in(vae.prior):
        return
    device = next(vae.parameters()).device
    index = torch.arange(DRAWS, device=device)
    noise = KeyedNoise(seed, index, torch.full_like(index, STREAM))
    with torch.no_grad():
        draws = vae.prior.draw(noise)
        if not bool(draws.isfinite().all()):
            yield finding("not-finite", "the prior draws codes that are NaN or infinite", draws=DRAWS)
            return
        codes = encode(vae, test[slice(0, min(CODES, len(test)))]).mean
        yield from _too_much(vae.prior, draws, codes, noise)
        differing = list(_lines(vae.prior, draws, noise))
        yield from differing or _too_little(vae.prior, draws)


def audit_marginal(marginal: Metric | None) -> Iterator[Finding]:
    """A finding if the KL divergence of the aggregated posterior from the prior is negative."""
    if marginal is None or marginal.high is None or marginal.low is None:
        return
    error = (marginal.high - marginal.low) / (2 * 1.96)
    if marginal.value + ERRORS * error < -LEAST_NATS:
        fact = f"the KL divergence of all posteriors together from the prior is negative, {marginal.value:.4g} nats"
        yield finding("not-normalised-likelihood", fact, marginal_kl_nats=marginal.value, standard_error=error)


def _too_much(prior: Prior, draws: Tensor, codes: Tensor, noise: KeyedNoise) -> Iterator[Finding]:
    candidates = [_normal(draws), _mixture(draws)]
    if len(codes) > codes.shape[1] + 1 and bool(codes.std(0).gt(0).all()):
        candidates += [_normal(codes), _mixture(codes)]
    integrals = []
    for mean, root, weights in candidates:
        cluster = torch.multinomial(weights, DRAWS, replacement=True, generator=_generator(draws))
        z = mean[cluster] + (root[cluster] @ noise.normal(draws.shape[1])[:, :, None])[:, :, 0]
        difference = (_densities(prior, z) - _log_mixture(z, mean, root, weights)).double()
        if bool(difference.isfinite().all()):
            integrals.append((float(difference.mean()), float(difference.std()) / math.sqrt(DRAWS)))
    for log_integral, error in integrals:
        if log_integral > LEAST_NATS + ERRORS * error:
            fact = f"the prior's density integrates to e^{log_integral:.3g} or more, and not to 1"
            yield finding("not-normalised-likelihood", fact, log_integral_at_least=log_integral, standard_error=error)
            return


def _too_little(prior: Prior, draws: Tensor) -> Iterator[Finding]:
    d = draws.shape[1]
    values = _densities(prior, draws).double()
    covariance = torch.cov(draws.double().T).reshape(d, d)
    log_det = float(torch.linalg.slogdet(2 * math.pi * math.e * covariance)[1])
    log_integral = float(values.mean()) + 0.5 * log_det
    error = float(values.std()) / math.sqrt(DRAWS)
    # The determinant of an estimated covariance is too small by about d²/2n in logarithm.
    if math.isfinite(log_integral) and log_integral + ERRORS * error + d * (d + 1) / DRAWS < -LEAST_NATS:
        fact = f"the prior's density integrates to e^{log_integral:.3g} or less, and not to 1"
        yield finding("not-normalised-likelihood", fact, log_integral_at_most=log_integral, standard_error=error)


def _lines(prior: Prior, draws: Tensor, noise: KeyedNoise) -> Iterator[Finding]:
    """The share of mass on one side of each draw, along random directions through it."""
    d = draws.shape[1]
    directions = torch.linalg.qr(noise.normal(d, min(DIRECTIONS, d)))[0].mT
    scale = float((draws - draws.mean(0)).square().mean().sqrt().clamp_min(1e-6))
    at = _grid(draws.device) * scale
    shares = torch.stack([_shares(prior, draws, direction, at) for direction in directions.unbind(1)], dim=1)
    shares = shares[shares.isfinite().all(1)]
    if len(shares) < DRAWS // 2:
        return
    # Of a uniform number F, the mean of F is 1/2 and that of (2F − 1)² is 1/3.
    spread = (2 * shares - 1).square()
    for values, expected in ((shares.mean(1), 1 / 2), (spread.mean(1), 1 / 3)):
        off, error = float(values.mean()) - expected, float(values.std()) / math.sqrt(len(values))
        if abs(off) > LEAST_SHARE and abs(off) > ERRORS * error:
            how = "narrower than" if expected == 1 / 3 and off < 0 else "another distribution than"
            fact = f"along random lines, the prior draws from {how} the density that it computes"
            evidence = {"mean": float(values.mean()), "expected": expected, "standard_error": error}
            yield finding("prior-draws-differ", fact, **evidence)
            return


def _shares(prior: Prior, draws: Tensor, direction: Tensor, at: Tensor) -> Tensor:
    """The share of the mass along lines draw + t·direction that lies at t < 0: (n,). ``at`` is the grid of t."""
    on_line = (draws[:, None] + at[:, None] * direction[:, None]).view(-1, draws.shape[1])
    density = _densities(prior, on_line).double().view(len(draws), -1)
    density = (density - density.amax(1, keepdim=True)).exp()
    pieces = 0.5 * (density[:, 1:] + density[:, :-1]) * at.diff().double()
    return pieces[:, : len(at) // 2].sum(1) / pieces.sum(1)


def _grid(device: torch.device) -> Tensor:
    """Points from −10 to 10: half of them evenly spaced, half of them in geometric progression away from 0."""
    even = torch.linspace(0, 10, STEPS + 1, device=device)[1:]
    geometric = torch.logspace(-4, 1, STEPS, device=device)
    right = torch.cat([even, geometric]).unique()
    return torch.cat([-right.flip(0), right.new_zeros(1), right])


def _densities(prior: Prior, z: Tensor) -> Tensor:
    return in_chunks(lambda rows: prior.log_prob(z[rows]), len(z), POINTS)


Mixture = tuple[Tensor, Tensor, Tensor]
"""Means (k, d), Cholesky factors of the covariances (k, d, d) and weights (k,)."""


def _normal(draws: Tensor) -> Mixture:
    d = draws.shape[1]
    covariance = torch.cov(draws.T).reshape(d, d)
    jitter = 1e-6 * covariance.diagonal().mean() + 1e-12
    root = torch.linalg.cholesky(covariance + jitter * torch.eye(d, device=draws.device))
    return draws.mean(0, keepdim=True), root[None], draws.new_ones(1)


def _mixture(draws: Tensor) -> Mixture:
    """Diagonal normals around the clusters of a few steps of k-means (Lloyd, 1982)."""
    centres = draws[:CLUSTERS].clone()
    for _ in range(10):
        member, count = _members(draws, centres)
        centres = torch.where(count[:, None] > 0, member.T @ draws / count.clamp_min(1)[:, None], centres)
    member, count = _members(draws, centres)
    kept = count > 2
    squares = member.T @ draws.square() / count.clamp_min(1)[:, None] - centres.square()
    std = squares.clamp_min(1e-12).sqrt()
    return centres[kept], torch.diag_embed(std[kept]), count[kept] / count[kept].sum()


def _members(draws: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Which of the centres (k, d) is nearest to each draw (n, d), as 0 and 1, (n, k); and how many each has, (k,)."""
    member = F.one_hot(torch.cdist(draws, centres).argmin(1), len(centres)).float()
    return member, member.sum(0)


def _log_mixture(z: Tensor, mean: Tensor, root: Tensor, weights: Tensor) -> Tensor:
    parts = []
    for centre, factor, weight in zip(mean, root, weights, strict=True):
        standard = torch.linalg.solve_triangular(factor, (z - centre).T, upper=False).T
        log_det = factor.diagonal().log().sum()
        parts.append(log_normal(standard, torch.zeros_like(z), torch.zeros_like(z)) - log_det + weight.log())
    return torch.stack(parts).logsumexp(0)


def _generator(like: Tensor) -> torch.Generator:
    return torch.Generator(like.device).manual_seed(0)
