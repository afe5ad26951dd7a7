"""Lower bounds on the likelihood of the test images, by importance sampling and by sampling the prior.

Both average weights w with E[w] = p(x) over k draws. By Jensen's inequality E[log of that average] is at most
log p(x), and it rises towards log p(x) with k. They differ in where z is drawn from. The posterior needs fewer draws,
because most draws from the prior do not explain the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from epsbench.harness.run.data.examples import Examples
from epsbench.harness.run.generative.logarithms import log_sum_exp
from epsbench.harness.run.generative.measured import Advance, Measured
from epsbench.harness.run.generative.posterior import Posterior
from epsbench.harness.run.machine.copies import copy_of
from epsbench.harness.run.machine.memory import in_chunks
from epsbench.harness.run.metrics import mean_metric
from epsbench.harness.run.noise import KeyedNoise
from epsbench.models.residual_vae import ResidualDecoder
from epsbench.models.vae import VAENetwork, bits_per_dimension, quantise

# Latents decoded at once. On a CPU, batches whose logits fit into the cache are fastest (hardware, torch version and n
# not recorded, not measured again).
BATCH = {"cpu": 256, "cuda": 4096}
IMAGES = 1000  # encoded at once
KEPT = 1 << 25  # float32 numbers in the largest tensor: 128 MiB
# Decoded draws in one table of log-probabilities. A table of 256 of MNIST's fits into no cache near the core, and a
# look-up took twice as long (one AMD EPYC core, torch 2.14).
TABLE = 32
SUMMED = 32  # pixels whose log-probabilities are added up before those of others
PRIOR_STREAM = -1  # of the keyed noise; the streams of posterior samples are 0, 1, 2, ...


def ladder(last: int) -> list[int]:
    """1, 2, 5, 10, 20, 50, ... below ``last``, and ``last``. Raises `ValueError` unless it is positive."""
    if last < 1:
        raise ValueError(f"a bound needs at least 1 sample, not {last}")
    steps = [digit * 10**power for power in range(len(str(last))) for digit in (1, 2, 5)]
    return [step for step in steps if step < last] + [last]


def averaged(log_weights: Tensor, counts: Sequence[int]) -> Tensor:
    """log of the mean of k weights, for each k in ``counts``: float64 (n, len(counts)) from (n, samples), in nats.

    For k below the number of samples this is the mean over all disjoint groups of k. Each group has the expectation of
    the bound at k, and the mean over all groups has the smallest variance that independent groups can give.
    """
    # A group is summed up from groups that are summed up already, wherever their size divides its own.
    sums, columns = {1: log_weights}, []
    for k in counts:
        part = max(size for size in sums if k % size == 0)
        groups, parts = log_weights.shape[1] // k, k // part
        if parts > 1:
            sums[k] = log_sum_exp(sums[part][:, : groups * parts].unflatten(1, (groups, parts)), 2)
        columns.append(sums[k].double().mean(1) - math.log(k))
    return torch.stack(columns, dim=1)


def log_weights(
    posterior: Posterior,
    log_joint: Callable[[Tensor, Tensor], Tensor],
    samples: int,
    noise: Callable[[Tensor, Tensor], KeyedNoise],
    *,
    batch: int = BATCH["cpu"],
    advance: Advance = lambda n: None,
) -> Tensor:
    """log p(x|z) + log p(z) − log q(z|x) in nats at draws of q(z|x): float32 (n, samples).

    ``log_joint`` takes z (N, z_dim) and the row (N,) of the image that each z belongs to, and returns log p(x, z) in
    nats (N,). ``noise`` takes rows and numbers of samples, both (N,). It is keyed by them, so the number ``batch`` of
    draws at a time does not change the result. ``advance`` is called with numbers of draws.
    """

    def weights_of(draws: slice) -> Tensor:
        index = torch.arange(draws.start, draws.stop, device=posterior.mean.device)
        row, sample = index // samples, index % samples
        here = posterior[row]
        z = here.draw(noise(row, sample).normal(posterior.mean.shape[1]))
        weights = log_joint(z, row) - here.log_prob(z)
        advance(len(index))
        return weights

    return in_chunks(weights_of, len(posterior) * samples, batch).view(-1, samples)


def importance_bounds(
    vae: VAENetwork,
    examples: Examples,
    samples: int,
    seed: int,
    advance: Advance = lambda n: None,
    *,
    images: int | None = None,
) -> tuple[list[int], Tensor]:
    """The importance-weighted bound (Burda et al., "Importance Weighted Autoencoders", 2016, eq. 8).

    Returns the numbers of samples k = 1, 2, 5, 10, ..., ``samples``, and −L_k of the first ``images`` examples (by
    default all) in bits per dimension: float64 (n, len(k)), an upper bound on −log p(x) in expectation. k = 1 is the
    negative ELBO. Memory does not grow with ``samples``. ``advance`` is called with numbers of decoded latents.
    """
    n = min(len(examples), images or len(examples))
    (bpd,) = _importance_bpd(vae, examples, range(n), [samples], seed, advance)
    return ladder(samples), bpd


def _importance_bpd(
    vae: VAENetwork, examples: Examples, images: range, samples: Sequence[int], seed: int, advance: Advance
) -> list[Tensor]:
    """As `importance_bounds` of these images, for each of several numbers of samples, of which the first is largest.

    The others use the first of the same samples, so they cost nothing.
    """
    ladders, network = [ladder(number) for number in samples], fast_copy(vae)

    def bounds_of(rows: slice) -> Tensor:
        first = images.start + rows.start
        target = quantise(examples.pixels(slice(first, images.start + rows.stop)), vae.levels)
        weights = log_weights(
            Posterior(*network.encode(target)),
            lambda z, row: network.log_likelihood(z, target[row]) + network.prior.log_prob(z),
            samples[0],
            lambda row, sample: KeyedNoise(seed, first + row, sample),
            batch=latents_at_once(vae, BATCH[examples.device.type]),
            advance=advance,
        )
        each = [averaged(weights[:, :number], counts) for number, counts in zip(samples, ladders, strict=True)]
        return torch.cat(each, dim=1)

    with torch.no_grad():
        nats = in_chunks(bounds_of, len(images), max(1, min(IMAGES, KEPT // samples[0])))
    return list((-bits_per_dimension(nats, vae.shape)).split([len(counts) for counts in ladders], dim=1))


def prior_bounds(
    vae: VAENetwork, examples: Examples, draws: int, seed: int, advance: Advance = lambda n: None
) -> tuple[list[int], Tensor]:
    """−log of the mean of p(x|z) over L draws of z from the prior, in bits per dimension.

    Returns L = 1, 2, 5, 10, ..., ``draws``, and float64 (n, len(L)). All images share the decoded draws. A likelihood
    is the sum of one log-probability a pixel, which is looked up in a table of all pixels and grey levels.
    Sharing correlates the errors of the images: the spread over images does not show how much other draws would
    change the mean. Averaging over all disjoint groups of L draws, and not only the first L, keeps that error small.
    ``advance`` is called with numbers of decoded latents, ``draws`` for each pass over them.
    """
    counts, network = ladder(draws), fast_copy(vae)
    draw = torch.arange(draws, device=examples.device)
    pixel = torch.arange(math.prod(vae.shape), device=examples.device)
    with torch.no_grad():
        z = network.prior.draw(KeyedNoise(seed, draw, torch.full_like(draw, PRIOR_STREAM)))

    def bounds_of(images: slice) -> Tensor:
        target = quantise(examples.pixels(images), vae.levels).flatten(1)
        places = (pixel * vae.levels + target).int().flatten()
        # A sum of some pixels first: beside a sum of all, those of a likely background would be rounded away.
        first = torch.arange(len(target), device=z.device)[:, None] * len(pixel) + pixel[::SUMMED]
        first = first.int().flatten()

        def likelihoods(rows: slice) -> Tensor:
            # One row a pixel with its levels side by side, as in `epsbench.models.likelihoods.log_likelihood`.
            log_probabilities = network.logits(z[rows]).float().movedim(1, -1).log_softmax(-1).flatten(1)
            advance(len(log_probabilities))
            tables = (part.T.contiguous() for part in log_probabilities.split(TABLE))
            some = torch.cat([F.embedding_bag(places, table, first, mode="sum") for table in tables], dim=1)
            return some.view(len(target), -1, len(log_probabilities)).sum(1).T

        each = in_chunks(likelihoods, draws, latents_at_once(vae, BATCH[examples.device.type]))
        return averaged(each.T.contiguous(), counts)

    with torch.no_grad():
        nats = in_chunks(bounds_of, len(examples), _images_a_pass(vae, draws))
    return counts, -bits_per_dimension(nats, vae.shape)


def bounds(
    vae: VAENetwork,
    examples: Examples,
    evaluation: Mapping[str, int],
    seed: int,
    elbo_bpd: Tensor,
    advance: Advance = lambda n: None,
) -> Measured:
    """Every bound that ``evaluation`` asks for, and the gap between the ELBO and the importance-weighted bound.

    ``elbo_bpd`` (n,) is the negative ELBO of every example in bits per dimension; the gap is computed example by
    example. ``evaluation`` has ``importance_samples``, ``long_importance_samples``, ``long_images`` and
    ``prior_samples``; a bound whose count is 0 is left out.
    """
    measured, elbo_bpd, n = Measured(), elbo_bpd.cpu().double(), len(examples)
    samples, more = evaluation["importance_samples"], evaluation["long_importance_samples"]
    long, shared = _long_images(n, evaluation)
    of_long: list[Tensor] = []
    if long:
        numbers = [more, samples] if shared else [more]
        of_long = _importance_bpd(vae, examples, range(long), numbers, seed, advance)
    if samples:
        parts = of_long[1:]
        if shared < n:
            parts += _importance_bpd(vae, examples, range(shared, n), [samples], seed, advance)
        bpd = torch.cat(parts)
        gap = Measured({"importance_gap_bpd": mean_metric(elbo_bpd - bpd[:, -1].cpu())})
        measured |= _measured("importance", "k", ladder(samples), bpd) | gap
    if long:
        elbo = Measured({"long_elbo_bpd": mean_metric(elbo_bpd[:long])})
        measured |= _measured("long_importance", "k", ladder(more), of_long[0]) | elbo
    if samples := evaluation["prior_samples"]:
        measured |= _measured("prior", "l", *prior_bounds(vae, examples, samples, seed, advance))
    return measured


def bounds_work(vae: VAENetwork, n: int, evaluation: Mapping[str, int]) -> int:
    """How many latents `bounds` decodes for ``n`` examples, and calls its ``advance`` with in all."""
    long, shared = _long_images(n, evaluation)
    draws = evaluation["prior_samples"]
    passes = math.ceil(n / _images_a_pass(vae, draws)) if draws else 0
    importance = evaluation["importance_samples"] * (n - shared) + evaluation["long_importance_samples"] * long
    return importance + draws * passes


def _long_images(n: int, evaluation: Mapping[str, int]) -> tuple[int, int]:
    """How many of n images have the long importance-weighted bound, and of how many that gives the shorter one, too."""
    samples, more = evaluation["importance_samples"], evaluation["long_importance_samples"]
    long = min(n, evaluation["long_images"]) if more else 0
    return long, long if 0 < samples <= more else 0


def _measured(name: str, count: str, counts: list[int], bpd: Tensor) -> Measured:
    bpd = bpd.cpu()
    curves = {f"{name}_{count}": [float(k) for k in counts], f"{name}_bpd": bpd.mean(0).tolist()}
    if len(bpd) > 1:  # one example has no standard error
        curves[f"{name}_bpd_error"] = (bpd.std(0) / math.sqrt(len(bpd))).tolist()
    return Measured({f"{name}_bpd": mean_metric(bpd[:, -1])}, curves, each={f"{name}_bpd": bpd[:, -1]})


def latents_at_once(vae: VAENetwork, most: int) -> int:
    """How many latents to decode at once, at most ``most``: all their logits are in memory together."""
    return max(1, min(most, KEPT // (vae.levels * math.prod(vae.shape))))


def _images_a_pass(vae: VAENetwork, draws: int) -> int:
    """How many images `prior_bounds` evaluates under all draws in one pass."""
    return max(1, KEPT // max(draws, math.prod(vae.shape)))


def fast_copy(vae: VAENetwork) -> VAENetwork:
    """A copy in evaluation mode with channels-last weights.

    On a CPU that halved the time of its convolutions (hardware, torch version and n not recorded, not measured again).
    """
    copy = copy_of(vae).eval().requires_grad_(False).to(memory_format=torch.channels_last)
    for module in copy.modules():
        if isinstance(module, ResidualDecoder):
            # In the order of outputs with the channels last: it took 0.4 of the time (one AMD EPYC core, torch 2.14).
            module.bias.data = module.bias.movedim((0, 1), (3, 2)).contiguous().movedim((3, 2), (0, 1))
    return copy
