"""The Feature Likelihood Divergence (Jiralerspong et al., 2023, arXiv:2302.04440): do samples explain new images?

It places a normal distribution on every sample and fits the widths to training images. Samples that are copies of
training images get narrow normals, which explain test images badly. So it also grows where a model memorises, unlike
the Fréchet distance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from epsbench.harness.records import Metric
from epsbench.harness.run.generative.logarithms import log_sum_exp

MOST = 5000  # centres, and points of each set; the time grows with their product
ITERATIONS = 50
TOLERANCE = 1e-5  # nats a dimension
ROWS = 256  # points that are looked at together
# The features have unit variance. A normal on a copy of a training image would become ever narrower.
NARROWEST = 1e-4
# One wide normal at the mean of the training images takes those that no sample explains, while the widths are fitted.
# As in the authors' code, its squared distances are reduced.
BACKGROUND = 0.9**2


@dataclass(frozen=True)
class Mixture:
    """Equally likely normal distributions with the same variance in every direction."""

    centres: Tensor
    """(m, d)."""

    variance: Tensor
    """(m,)."""

    @classmethod
    def fit(cls, centres: Tensor, points: Tensor) -> Mixture:
        """The variances that make ``points`` (n, d) most likely, by expectation maximisation.

        They start at the squared distance of each centre to its nearest point, over d.
        """
        d = points.shape[1]
        squares = torch.cdist(points, centres).square_()
        to_mean = BACKGROUND * (points - points.mean(0)).square().sum(1, keepdim=True)
        variance, wide = (squares.amin(0) / d).clamp(min=NARROWEST), to_mean.mean().clamp(min=NARROWEST) / d
        before = -math.inf
        for _ in range(ITERATIONS):
            expected = _Expected(len(centres), points)
            for part, part_to_mean in zip(squares.split(ROWS), to_mean.split(ROWS), strict=True):
                expected.add(part, part_to_mean, variance, wide)
            likelihood = expected.total.item() / (len(points) * d)
            if likelihood - before < TOLERANCE:
                break
            before = likelihood
            # A centre that explains no point keeps its variance.
            weight = expected.weight
            updated = (expected.squares / (d * weight)).clamp(min=NARROWEST)
            variance = torch.where(weight > torch.finfo(weight.dtype).tiny, updated, variance)
            wide = (expected.wide_squares / (d * expected.wide_weight)).nan_to_num(wide.item()).clamp(min=NARROWEST)
        return cls(centres, variance)

    def surprise(self, points: Tensor) -> float:
        """The mean of −log density of ``points`` (n, d), in nats a dimension."""
        d = points.shape[1]
        density = _log_density(torch.cdist(points, self.centres).square_(), self.variance, d)
        return -(log_sum_exp(density, 1) - math.log(len(self.centres))).mean().item() / d


class _Expected:
    """What a step of expectation maximisation needs of all points, added up part by part: each stays in the cache.

    Each point is shared out among the normals at the centres and the wide one, by how well they explain it.
    """

    def __init__(self, centres: int, points: Tensor) -> None:
        self._d, self._log_centres = points.shape[1], math.log(centres)
        zero = points.new_zeros(())
        self.total = zero.double()
        """The sum of the log densities of the points, in nats."""

        self.weight, self.squares = points.new_zeros(centres), points.new_zeros(centres)
        """For each centre the shares of all points, and the same times the squared distances."""

        self.wide_weight, self.wide_squares = zero, zero.clone()
        """The same for the wide normal."""

    def add(self, squares: Tensor, to_mean: Tensor, variance: Tensor, wide: Tensor) -> None:
        """Points at squared distances (n, m) from the centres, and (n, 1) from the mean."""
        d = self._d
        of_centres = _log_density(squares, variance, d).sub_(self._log_centres)
        density = torch.cat([of_centres, _log_density(to_mean, wide[None], d)], dim=1)
        share = density.softmax(1)
        # The log of the sum is at the largest term, of which the share is at least 1 / (m + 1).
        peak, at = density.max(1, keepdim=True)
        self.total += (peak - share.gather(1, at).log()).double().sum()
        self.weight += share[:, :-1].sum(0)
        self.wide_weight = self.wide_weight + share[:, -1].sum()
        self.wide_squares = self.wide_squares + (share[:, -1:] * to_mean).sum()
        self.squares += share[:, :-1].mul_(squares).sum(0)


def likelihood_divergence(train: Tensor, test: Tensor, generated: Tensor, seed: int) -> dict[str, Metric]:
    """``likelihood_divergence``, ``likelihood_gap`` and ``floor_likelihood_gap``, in hundredths of a nat a dimension.

    All are features (·, d), which are first scaled to mean 0 and variance 1 on the test images. The widths around at
    most `MOST` samples are fitted to as many training images. The divergence is how much less likely the test images
    are then than under one half of the training images in place of the samples, with widths fitted to the other half.
    0 is what images of the data set reach; samples that crowd around the mean may get less. The gap is the same mean
    for the fitted training images minus that for the test images. It is below 0 for every model, because the widths
    are fitted; if it is far below ``floor_likelihood_gap``, that of the halves, the model has memorised.

    ``seed`` chooses the halves. Raises `ValueError` if there are fewer than two training images.
    """
    if len(train) < 2:
        raise ValueError("the likelihood divergence needs two halves of the training images")
    mean, deviation = test.mean(0), test.std(0)
    scale = torch.where(deviation > 0, deviation, 1.0)  # a unit that never fires
    train, test, generated = ((part - mean) / scale for part in (train, test[:MOST], generated[:MOST]))
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed)).to(train.device)
    half = min(len(train) // 2, MOST)
    fitted, one_half, other = train[order[:MOST]], train[order[:half]], train[order[half : 2 * half]]
    samples, real = Mixture.fit(generated, fitted), Mixture.fit(other[: len(generated)], one_half)
    of_test, floor = samples.surprise(test), real.surprise(test)

    def metric(nats: float) -> Metric:
        return Metric(value=100 * nats, n=len(test))

    return {
        "likelihood_divergence": metric(of_test - floor),
        "likelihood_gap": metric(samples.surprise(fitted) - of_test),
        "floor_likelihood_gap": metric(real.surprise(one_half) - floor),
    }


def _log_density(squares: Tensor, variance: Tensor, d: int) -> Tensor:
    """The log density at squared distances (n, m) of m normals in d dimensions."""
    return squares * (-0.5 / variance) - 0.5 * d * (variance.log() + math.log(2 * math.pi))
