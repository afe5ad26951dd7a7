"""What the latent space holds: rates, units in use, information about the image, and whether a line can read it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from epsbench.harness.records import Metric
from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.generative.measured import Measured
from epsbench.harness.run.generative.posterior import BATCH, Posterior, encode
from epsbench.harness.run.machine.memory import in_chunks
from epsbench.harness.run.metrics import mean_metric
from epsbench.harness.run.noise import KeyedNoise
from epsbench.harness.statistics import wilson
from epsbench.models.priors import Prior, StandardNormal
from epsbench.models.vae import VAENetwork

Advance = Callable[[int], None]

KL_SAMPLES = 100
ACTIVE = 0.01  # variance of the posterior mean over images above which a unit is active
PAIRS = 1 << 22  # of a draw and a posterior looked at once: 32 MiB in float64
L2 = 1e-4  # of the linear probe, a mean over examples: large enough for one solution, too small to cost accuracy


def latent(vae: VAENetwork, data: Data, seed: int, advance: Advance = lambda n: None) -> Measured:
    """Rates, active units, information and a linear probe, on the test set; only the probe learns, on the training set.

    Rates and information are in nats an image. `kl_closed_nats` and `dimension_rate_nats` are left out under a prior
    that is not standard normal: there is no closed form, and the rate is no sum over dimensions. ``advance`` is told
    of images; `latent_work` says how many there will be. The mode of ``vae`` is left at eval.
    """
    vae.eval()
    posterior, training = encode(vae, data.test, advance), encode(vae, data.train, advance)
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
    right = linear_probe(training.mean, data.train.labels, posterior.mean, classes) == data.test.labels
    return Measured(metrics | {"probe_accuracy": _share(right)}, curves)


def latent_work(data: Data) -> int:
    """How many images `latent` looks at: what its ``advance`` adds up to."""
    return len(data.train) + 3 * len(data.test)


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

    A unit whose variance is above 0.01 is active: it tells images apart (Burda et al., 2016, section 5).
    """
    return posterior.mean.double().var(0, correction=0)


def information_and_marginal(
    posterior: Posterior, prior: Prior, seed: int, advance: Advance = lambda n: None
) -> tuple[Tensor, Tensor]:
    """What the rate is made of (Hoffman and Johnson, "ELBO surgery", 2016), in nats, each float64 (n,).

    With the aggregated posterior q(z) = 1/n Σ q(z|x_i) of these n images, and one z an image from its q(z|x):
    log q(z|x) − log q(z), whose mean estimates the mutual information of image and z and is at most log n; and
    log q(z) − log p(z), whose mean estimates KL(q(z) ‖ p(z)). Their sum is the rate at those z.
    """
    row = torch.arange(len(posterior), device=posterior.mean.device)
    z = posterior.draw(KeyedNoise(seed, row, torch.zeros_like(row)).normal(posterior.mean.shape[1]))
    aggregated = log_aggregated(z, posterior, advance)
    with torch.no_grad():
        return posterior.log_prob(z).double() - aggregated, aggregated - prior.log_prob(z).double()


def log_aggregated(z: Tensor, posterior: Posterior, advance: Advance = lambda n: None) -> Tensor:
    """log q(z) in nats, float64 (N,), under the mean of all posteriors, for z (N, z_dim).

    The exponent of every z under every posterior is quadratic in z: two matrix products, in float64, for the
    terms of a narrow posterior are large and cancel.
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

    Features are standardised as those learnt from are. The loss is convex and starts at zero weights, so nothing
    is random.
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


def _share(right: Tensor) -> Metric:
    low, high = wilson(int(right.sum()), len(right))
    return Metric(value=right.double().mean().item(), low=low, high=high, n=len(right))
