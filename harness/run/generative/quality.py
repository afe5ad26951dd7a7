"""The quality of samples: distances between their distribution and that of test images, precision and coverage."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from epsbench.harness.errors import InputError
from epsbench.harness.records import Metric
from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.generative.clipped import clipped_coverage, clipped_density
from epsbench.harness.run.generative.features import check_features, feature_network, features
from epsbench.harness.run.generative.likelihood import likelihood_divergence
from epsbench.harness.run.generative.measured import Advance, Measured
from epsbench.harness.run.generative.neighbours import neighbours
from epsbench.harness.run.generative.overlap import NEIGHBOURS, Balls, Overlap
from epsbench.harness.run.generative.sampling import Levels, draw_levels, whole_levels_of
from epsbench.harness.run.machine.memory import in_chunks
from epsbench.harness.run.metrics import mean_metric, proportion
from epsbench.harness.run.training.classifier import EVALUATION_BATCH
from epsbench.models.vae import VAENetwork, rescale

SUBSETS, SUBSET_SIZE = 100, 1000
MOST_PARTS = 5
STEPS = 6


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
    levels. The features are those of `feature_network`, on pixels in [0, 1]. The measures are those of `compare`, the
    likelihood divergence, and the distance to the nearest of all training images. Precision and density mean little
    alone: noise that falls into the wide balls of a few outlying images has a high precision and a low coverage.
    ``advance`` is called after each of `STEPS` steps.

    Raises `InputError` as `images_of` and `feature_network` do.
    """
    n = images_of(data, evaluation)
    if n == 0:
        return Measured()
    network, entries = feature_network(data, weights_folder)
    advance(1)
    test, train = (whole_levels_of(part, vae.levels) for part in (data.test, data.train))
    samples = draw_levels(vae, n, seed)
    advance(1)

    def features_of(images: Tensor | Levels) -> Tensor:
        return in_chunks(lambda rows: features(network, rescale(images[rows], vae.levels)), n, EVALUATION_BATCH)

    of_train, of_test, of_samples = (features_of(images) for images in (train, test, samples))
    around_test = Balls.around(of_test)
    metrics = compare(around_test, Balls.around(of_samples), seed)
    advance(1)
    floor = compare(Balls.around(of_train), around_test, seed)
    advance(1)
    metrics |= {f"floor_{name}": metric for name, metric in floor.items()}
    metrics |= likelihood_divergence(of_train, of_test, of_samples, seed)
    advance(1)
    measured = Measured(metrics, evaluation=entries)
    measured |= neighbours(samples, test.first(n) if isinstance(test, Levels) else test[:n], train, vae.levels)
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


def compare(around_real: Balls, around_generated: Balls, seed: int) -> dict[str, Metric]:
    """All measures of generated features (m, d) against real ones (n, d), both with their balls.

    The interval of a share or a mean is over the images that it counts; those of the other set are taken as fixed.
    """
    overlap = Overlap.between(around_real, around_generated)
    real, generated = around_real.points, around_generated.points
    infinite = frechet_distance_infinite(real, generated, seed)
    extrapolated = {} if infinite is None else {"frechet_distance_infinite": Metric(value=infinite, n=len(generated))}
    return {
        "frechet_distance": Metric(value=frechet_distance(real, generated), n=len(generated)),
        **extrapolated,
        "kernel_distance": Metric(value=kernel_distance(real, generated, seed), n=len(generated)),
        "precision": proportion(overlap.realistic.cpu().numpy()),
        "recall": proportion(overlap.reached.cpu().numpy()),
        "density": mean_metric(overlap.density),
        "coverage": proportion(overlap.covered.cpu().numpy()),
        "clipped_density": clipped_density(overlap),
        "clipped_coverage": clipped_coverage(overlap),
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


def frechet_distance_infinite(real: Tensor, generated: Tensor, seed: int) -> float | None:
    """The Fréchet distance that infinitely many points of both sets (n, d) and (m, d) would have.

    The distance of finite sets is too high by an amount that is inversely proportional to their size (Chong & Forsyth,
    2020, "Effectively unbiased FID"). So a line in 1 / size is fitted to the distance of all points, to the mean of
    those of two halves, of three thirds, and so on, and read at 0. ``seed`` chooses the parts. It may be below 0. None:
    the parts would have no more than twice as many points as the features have dimensions, and the line would bend.
    """
    n = min(len(real), len(generated))
    counts = [parts for parts in range(1, MOST_PARTS + 1) if n // parts > 2 * real.shape[1]]
    if len(counts) < 3:
        return None
    generator = torch.Generator().manual_seed(seed)
    real, generated = (x[torch.randperm(len(x), generator=generator)[:n].to(x.device)] for x in (real, generated))

    def mean_distance(parts: int) -> float:
        pairs = zip(*(x[: n // parts * parts].chunk(parts) for x in (real, generated)), strict=True)
        return float(np.mean([frechet_distance(*pair) for pair in pairs]))

    _, at_infinity = np.polyfit([1 / (n // parts) for parts in counts], [mean_distance(k) for k in counts], 1)
    return float(at_infinity)


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
