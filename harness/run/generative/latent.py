"""Measures of the latent space: rates, active units, mutual information with the image, and a linear probe."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from epsbench.harness.records import Metric
from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.generative.measured import Advance, Measured
from epsbench.harness.run.generative.posterior import BATCH, Posterior
from epsbench.harness.run.machine.memory import in_chunks
from epsbench.harness.run.metrics import mean_metric, proportion
from epsbench.harness.run.noise import KeyedNoise
from epsbench.models.priors import Prior, StandardNormal
from epsbench.models.vae import VAENetwork

KL_SAMPLES = 100
ACTIVE = 0.01  # variance of the posterior mean over images above which a unit is active
PAIRS = 1 << 22  # pairs of a draw and a posterior in memory at once: 32 MiB in float64
L2 = 1e-4  # of the linear probe, a mean over examples: large enough for one solution, too small to cost accuracy


def latent(
    vae: VAENetwork, data: Data, posterior: Posterior, training: Posterior, seed: int, advance: Advance = lambda n: None
) -> Measured:
    """Rates, active units, mutual information and a linear probe on the test set; the probe learns on the training set.

    ``posterior`` and ``training`` are the posteriors of all test and of all training images.
    Rates and information are in nats per image. `kl_closed_nats` and `dimension_rate_nats` are left out if the prior is
    not standard normal: then there is no closed form, and the rate is not a sum over dimensions. ``advance`` is called
    with numbers of images, `latent_work` in all.
    """
    information, marginal = information_and_marginal(posterior, vae.prior, seed, advance)
    variance = mean_variance(posterior)
    metrics = {
        "kl_monte_carlo_nats": mean_metric(kl_monte_carlo(posterior, vae.prior, KL_SAMPLES, seed, advance)),
        "active_units": Metric(value=int((variance > ACTIVE).sum()), n=len(variance)),
        "mutual_information_nats": mean_metric(information),
        "marginal_kl_nats": mean_metric(marginal),
    }
    curves = {"dimension_mean_variance": variance.tolist()}
    if isinstance(vae.prior, StandardNormal):
        rates = kl_by_dimension(posterior)
        metrics["kl_closed_nats"] = mean_metric(rates.sum(1))
        curves["dimension_rate_nats"] = rates.mean(0).tolist()
    classes = data.description.classes
    correct = linear_probe(training.mean, data.train.labels, posterior.mean, classes) == data.test.labels
    return Measured(metrics | {"probe_accuracy": proportion(correct.cpu().numpy())}, curves)


def latent_work(data: Data) -> int:
    """How many images `latent` calls its ``advance`` with, in all."""
    return 2 * len(data.test)


def kl_by_dimension(posterior: Posterior) -> Tensor:
    """KL(N(μ, σ²) ‖ N(0, 1)) in nats, float64 (n, z_dim) (Kingma & Welling, 2014, appendix B)."""
    mean, log_std = posterior.mean.double(), posterior.log_std.double()
    return 0.5 * ((2 * log_std).exp() + mean.square() - 1 - 2 * log_std)


def kl_monte_carlo(
    posterior: Posterior, prior: Prior, samples: int, seed: int, advance: Advance = lambda n: None
) -> Tensor:
    """KL(q(z|x) ‖ p(z)) in nats, float64 (n,), as the mean of log q(z|x) − log p(z) over draws of q: for any prior."""

    def parts(rows: slice) -> Tensor:
        here = posterior[rows]
        row = torch.arange(rows.start, rows.stop, device=here.mean.device)
        repeated = here[torch.arange(len(here), device=row.device).repeat_interleave(samples)]
        sample = torch.arange(samples, device=row.device).repeat(len(here))
        z = repeated.draw(KeyedNoise(seed, row.repeat_interleave(samples), sample).normal(here.mean.shape[1]))
        difference = repeated.log_prob(z) - prior.log_prob(z)
        advance(len(here))
        return difference.view(-1, samples).double().mean(1)

    with torch.no_grad():
        return in_chunks(parts, len(posterior), BATCH)


def mean_variance(posterior: Posterior) -> Tensor:
    """Variance over images of each dimension's posterior mean, float64 (z_dim,).

    A unit whose variance is above 0.01 is active: it differs between images (Burda et al., 2016, section 5).
    """
    return posterior.mean.double().var(0, correction=0)


def information_and_marginal(
    posterior: Posterior, prior: Prior, seed: int, advance: Advance = lambda n: None
) -> tuple[Tensor, Tensor]:
    """The two parts of the rate (Hoffman and Johnson, "ELBO surgery", 2016) in nats, each float64 (n,).

    q(z) = 1/n Σ q(z|x_i) is the aggregated posterior of these n images, and each image has one z from its q(z|x). The
    first part is log q(z|x) − log q(z). Its mean estimates the mutual information of image and z, and is at most log n.
    The second is log q(z) − log p(z). Its mean estimates KL(q(z) ‖ p(z)). Their sum is the rate at those z.
    """
    row = torch.arange(len(posterior), device=posterior.mean.device)
    z = posterior.draw(KeyedNoise(seed, row, torch.zeros_like(row)).normal(posterior.mean.shape[1]))
    aggregated = log_aggregated(z, posterior, advance)
    with torch.no_grad():
        return posterior.log_prob(z).double() - aggregated, aggregated - prior.log_prob(z).double()


def log_aggregated(z: Tensor, posterior: Posterior, advance: Advance = lambda n: None) -> Tensor:
    """log q(z) in nats, float64 (N,), under the mean of all posteriors, for z (N, z_dim).

    The exponent is quadratic in z, so for all z and all posteriors it is two matrix products. They are in float64,
    because the terms of a narrow posterior are large and cancel.
    """
    mean, log_std = posterior.mean.double(), posterior.log_std.double()
    precision = (-2 * log_std).exp()
    constant = -0.5 * (mean.square() * precision).sum(1) - log_std.sum(1) - 0.5 * mean.shape[1] * math.log(2 * math.pi)
    linear, square = (mean * precision).T, -0.5 * precision.T

    def parts(rows: slice) -> Tensor:
        here = z[rows].double()
        each = torch.addmm(constant, here, linear).addmm_(here.square(), square)
        advance(len(here))
        return each.logsumexp(1) - math.log(len(posterior))

    return in_chunks(parts, len(z), max(1, PAIRS // len(posterior)))


def linear_probe(features: Tensor, labels: Tensor, unseen: Tensor, classes: int) -> Tensor:
    """Labels (m,) of the ``unseen`` features (m, d), by multinomial logistic regression on features (n, d).

    All features are standardised by mean and standard deviation of ``features``. The loss is convex and the weights
    start at zero, so nothing is random.
    """
    mean, std = features.double().mean(0), features.double().std(0, correction=0).clamp_min(1e-6)
    seen, unseen = ((part.double() - mean) / std for part in (features, unseen))
    weight = torch.zeros(features.shape[1], classes, dtype=torch.float64, device=features.device, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, device=features.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(seen @ weight + bias, labels) + 0.5 * L2 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        return (unseen @ weight + bias).argmax(1)
