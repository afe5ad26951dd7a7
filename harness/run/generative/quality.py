"""The quality of samples: distances between their distribution and that of test images, precision and coverage."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from epsbench.harness.errors import InputError
from epsbench.harness.records import Metric
from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.generative.features import check_features, feature_network, features
from epsbench.harness.run.generative.measured import Advance, Measured
from epsbench.harness.run.generative.neighbours import neighbours
from epsbench.harness.run.generative.sampling import draw_levels, levels_of
from epsbench.harness.run.metrics import mean_metric, proportion
from epsbench.models.vae import VAENetwork, rescale

NEIGHBOURS = 5
SUBSETS, SUBSET_SIZE = 100, 1000
BATCH = 1000
STEPS = 5


def quality(
    vae: VAENetwork,
    data: Data,
    evaluation: Mapping[str, int],
    seed: int,
    weights_folder: Path,
    advance: Advance = lambda n: None,
) -> Measured:
    """Measures of samples of ``vae`` against test images, and of test images against training images (``floor_``).

    The floor is what images of the data set itself reach. Of each set ``evaluation["generated"]`` images are used, or
    as many as both the test and the training set have; with 0 nothing is measured. Pixels of the samples are drawn from
    p(x|z). Test and training images are quantised to the model's grey levels first, so that no distance is due to the
    levels. The features are those of `feature_network`, on pixels in [0, 1]. The measures are the Fréchet and the
    kernel distance, precision, recall, density, coverage, and the distance to the nearest of all training images.
    Precision and density mean little alone: noise that falls into the wide balls of a few outlying images has a high
    precision and a low coverage. ``advance`` is called after each of `STEPS` steps.

    Raises `InputError` as `images_of` and `feature_network` do.
    """
    n = images_of(data, evaluation)
    if n == 0:
        return Measured()
    network, entries = feature_network(data, weights_folder)
    advance(1)
    test, train = (levels_of(part, len(part), vae.levels) for part in (data.test, data.train))
    samples = draw_levels(vae, n, seed)
    advance(1)

    def features_of(images: Tensor) -> Tensor:
        return features(network, rescale(images[:n], vae.levels))

    of_test = features_of(test)
    metrics = compare(of_test, features_of(samples), seed)
    advance(1)
    floor = compare(features_of(train), of_test, seed)
    advance(1)
    measured = Measured(metrics | {f"floor_{name}": metric for name, metric in floor.items()}, evaluation=entries)
    measured |= neighbours(samples, test[:n], train, vae.levels)
    advance(1)
    return measured


def images_of(data: Data, evaluation: Mapping[str, int]) -> int:
    """The number of images that sample quality is measured on; 0 if it is not measured.

    Raises `InputError` if there are too few images to have neighbours, or if the feature network cannot take the data.
    """
    n = min(evaluation["generated"], len(data.test), len(data.train))
    if 0 < n <= NEIGHBOURS:
        raise InputError(
            f"data {data.description.name!r}: sample quality looks at {NEIGHBOURS} neighbours and needs more images "
            f"than {n}; raise limit or generated, or set generated = 0 under [generation.evaluation] to leave it out"
        )
    if n:
        check_features(data)
    return n


def compare(real: Tensor, generated: Tensor, seed: int) -> dict[str, Metric]:
    """All measures of ``generated`` features (m, d) against ``real`` ones (n, d).

    The interval of a share or a mean is over the images that it counts; those of the other set are taken as fixed.
    """
    overlap = Overlap.of(real, generated)
    return {
        "frechet_distance": Metric(value=frechet_distance(real, generated), n=len(generated)),
        "kernel_distance": Metric(value=kernel_distance(real, generated, seed), n=len(generated)),
        "precision": proportion(overlap.realistic.cpu().numpy()),
        "recall": proportion(overlap.reached.cpu().numpy()),
        "density": mean_metric(overlap.density),
        "coverage": proportion(overlap.covered.cpu().numpy()),
    }


def frechet_distance(real: Tensor, generated: Tensor) -> float:
    """The squared Fréchet distance of two normals with the means and covariances of two sets of features.

    ‖μ − ν‖² + tr(S + T − 2·(S·T)^½) (Dowson & Landau, 1982), in float64; ``real`` is (n, d), ``generated`` (m, d).
    It cannot be compared with distances on the features of another network.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance  # takes seconds to import, and is needed only here

    # On the CPU, where every build of torch can compute the eigenvalues. The matrix is small.
    metric = FrechetInceptionDistance(_Ready(real.shape[1]))
    metric.update(real.cpu(), real=True)
    metric.update(generated.cpu(), real=False)
    return max(0.0, metric.compute().item())  # rounding can make that of equal sets negative


def kernel_distance(real: Tensor, generated: Tensor, seed: int) -> float:
    """The unbiased squared maximum mean discrepancy of two sets of features, (n, d) and (m, d).

    The kernel is (x·y / d + 1)³ (Bińkowski et al., 2018), in float64. The distance is the mean over 100 pairs of
    subsets of 1,000, drawn from ``seed``. If both sets have the same size of at most 1,000, all of
    their points are used once. It may be below 0.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(SUBSET_SIZE, len(real), len(generated))
    subsets = 1 if size == max(len(real), len(generated)) else SUBSETS
    with warnings.catch_warnings():
        # It always warns that it keeps all features in memory. Here they are in memory anyway.
        warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance` will save", UserWarning)
        metric = KernelInceptionDistance(_Ready(real.shape[1]), subsets=subsets, subset_size=size).to(real.device)
    metric.update(real, real=True)
    metric.update(generated, real=False)
    # It draws subsets from the CPU's global generator. torch.manual_seed would change the GPU's generator too.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        mean, _ = metric.compute()
    return mean.item()


class _Ready(nn.Module):
    """Returns its input: torchmetrics expects a network, but the features are computed already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, x: Tensor) -> Tensor:
        return x.double()


@dataclass(frozen=True)
class Overlap:
    """How n real and m generated points overlap.

    Each point has a closed ball that reaches to its k-th nearest neighbour in its own set. The shares of ``realistic``
    and ``reached`` are precision and recall (Kynkäänniemi et al., 2019, equations 1 and 2). The means of ``density``
    and ``covered`` are density and coverage (Naeem et al., 2020, section 3). If both sets are many points of the same
    distribution, these are 1 and 1 − 2⁻ᵏ.
    """

    realistic: Tensor
    """Bool (m,): the generated point lies in the ball of a real point."""

    reached: Tensor
    """Bool (n,): the real point lies in the ball of a generated point."""

    density: Tensor
    """Float (m,): the number of balls of real points that the generated point lies in, over k."""

    covered: Tensor
    """Bool (n,): the ball of the real point contains a generated point."""

    @classmethod
    def of(cls, real: Tensor, generated: Tensor, k: int = NEIGHBOURS) -> Overlap:
        """The overlap of points ``real`` (n, d) and ``generated`` (m, d).

        Raises `ValueError` if a set has too few points for k neighbours.
        """
        around_real, around_generated = radii(real, k), radii(generated, k)
        balls = torch.zeros(len(generated), dtype=torch.int64, device=generated.device)
        reached, covered = [], []
        for points, radius in zip(real.split(BATCH), around_real.split(BATCH), strict=True):
            distance = distances(points, generated)
            inside = distance <= radius[:, None]
            balls += inside.sum(0)
            covered.append(inside.any(1))
            reached.append((distance <= around_generated).any(1))
        return cls(balls > 0, torch.cat(reached), balls / k, torch.cat(covered))


def radii(points: Tensor, k: int) -> Tensor:
    """The distance of each point (n, d) to its k-th nearest other point, (n,). Raises `ValueError` if there is none."""
    if not 1 <= k < len(points):
        raise ValueError(f"no neighbour number {k} among {len(points)} points")
    # The nearest of all is the point itself.
    parts = (distances(part, points).topk(k + 1, dim=1, largest=False).values[:, k] for part in points.split(BATCH))
    return torch.cat(list(parts))


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances (n, m) of points (n, d) and (m, d).

    They are computed from differences and not from products. So equal points are at distance 0, and the k-th neighbour
    of a point is exactly at the distance that is its radius.
    """
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
