"""How good samples are, against test images: distances of distributions, and what of either the other covers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from epsbench.harness.errors import InputError
from epsbench.harness.records import Metric
from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.generative.features import check_features, feature_network, features
from epsbench.harness.run.generative.measured import Measured
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
    advance: Callable[[int], None] = lambda n: None,
) -> Measured:
    """Samples of ``vae`` against test images, and as their floor (``floor_``) test images against training images.

    Of each, ``evaluation["generated"]`` images or as many as the test and the training set have; 0 measures
    nothing. Pixels of the samples are drawn from p(x|z), and test and training images are put on the model's grey
    levels first: no distance is then due to the grid. The features are those of `feature_network`, which sees the
    images as [0, 1] pixels. Measured are the Fréchet and the kernel distance, precision, recall, density and
    coverage, and the distance to the nearest of all training images. Precision and density say nothing alone: noise
    that falls into the wide balls of a few outlying images has a high precision, and a low coverage. ``advance`` is
    told of each of `STEPS` steps.

    Raises `InputError` as `images_of` and `feature_network` do.
    """
    n = images_of(data, evaluation)
    if n == 0:
        return Measured()
    network, said = feature_network(data, weights_folder)
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
    measured = Measured(metrics | {f"floor_{name}": metric for name, metric in floor.items()}, evaluation=said)
    measured |= neighbours(samples, test[:n], train, vae.levels)
    advance(1)
    return measured


def images_of(data: Data, evaluation: Mapping[str, int]) -> int:
    """How many images sample quality is measured on; 0 where it is not.

    Raises `InputError` for too few to have neighbours, and for data that the classifier of the features cannot take.
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

    The interval of a share or a mean is over the images it counts, those of the other set held as they are.
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
    Not to be held against distances on another network's features.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance  # seconds to import, and only this needs it

    # On the CPU: eigenvalues of a matrix this small are no faster elsewhere.
    metric = FrechetInceptionDistance(_Ready(real.shape[1]))
    metric.update(real.cpu(), real=True)
    metric.update(generated.cpu(), real=False)
    return max(0.0, metric.compute().item())  # of equal sets, 0 but for rounding


def kernel_distance(real: Tensor, generated: Tensor, seed: int) -> float:
    """The unbiased squared maximum mean discrepancy of two sets of features, (n, d) and (m, d).

    Under the kernel (x·y / d + 1)³ (Bińkowski et al., 2018), in float64: the mean over 100 subsets of 1,000 a side,
    which ``seed`` draws; of all at once where neither side has more than 1,000 and both as many. It may be below 0.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(SUBSET_SIZE, len(real), len(generated))
    subsets = 1 if size == max(len(real), len(generated)) else SUBSETS
    with warnings.catch_warnings():
        # It warns, always, that it keeps all features; here they are no more than exist already.
        warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance` will save", UserWarning)
        metric = KernelInceptionDistance(_Ready(real.shape[1]), subsets=subsets, subset_size=size).to(real.device)
    metric.update(real, real=True)
    metric.update(generated, real=False)
    # It draws subsets from the CPU's global state alone: torch.manual_seed would touch a GPU's as well.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        mean, _ = metric.compute()
    return mean.item()


class _Ready(nn.Module):
    """Features that are computed already, where torchmetrics expects a network that makes them."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, x: Tensor) -> Tensor:
        return x.double()


@dataclass(frozen=True)
class Overlap:
    """Two sets of points under closed balls, each reaching from a point to its k-th nearest of its own set.

    ``realistic`` (m,): the generated point lies in a ball of a real one; its share is the precision.
    ``reached`` (n,): the real point lies in a ball of a generated one; its share is the recall (Kynkäänniemi
    et al., 2019, equations 1 and 2). ``density`` (m,): the balls of real points around the generated one, over k;
    ``covered`` (n,): the ball of the real point holds a generated one. Their means are the density and the coverage
    of Naeem et al. (2020, section 3): of many points from one distribution on both sides 1 and 1 − 2⁻ᵏ.
    """

    realistic: Tensor
    reached: Tensor
    density: Tensor
    covered: Tensor

    @classmethod
    def of(cls, real: Tensor, generated: Tensor, k: int = NEIGHBOURS) -> Overlap:
        """The overlap of points ``real`` (n, d) and ``generated`` (m, d).

        Raises `ValueError` where a set has no k neighbours for each point.
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

    Differences are squared, not products subtracted: equal points are at distance 0, and the k-th neighbour of a
    point is at the very distance that is its radius.
    """
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
