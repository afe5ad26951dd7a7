"""Nearest training images: does a model draw what it learnt, or what it memorised?"""

from __future__ import annotations

import numpy as np
import torch
from scipy import special
from torch import Tensor

from epsbench.harness.records import Metric
from epsbench.harness.run.generative.measured import Measured
from epsbench.harness.run.machine.memory import in_chunks
from epsbench.harness.statistics import CONFIDENCE
from epsbench.models.vae import rescale

BATCH = 256
SHOWN = 8


def neighbours(samples: Tensor, test: Tensor, train: Tensor, levels: int) -> Measured:
    """Euclidean distances, in pixels [0, 1], of samples and of test images to their nearest training image.

    All three are grey levels, uint8 (·, C, H, W). ``neighbour_distance`` is the median over the samples, to be held
    against ``floor_neighbour_distance``, that of the test images: samples much nearer than those are copies. The
    picture ``neighbours`` (2, 8, C, H, W) has the first samples above their nearest training images.
    """
    distance, index = nearest(samples, train)
    floor, _ = nearest(test, train)
    shown = torch.stack([samples[:SHOWN], train[index[:SHOWN]]])
    return Measured(
        metrics={
            "neighbour_distance": median_metric(distance / (levels - 1)),
            "floor_neighbour_distance": median_metric(floor / (levels - 1)),
        },
        pictures={"neighbours": rescale(shown, levels).cpu().numpy()},
    )


def nearest(images: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    """Euclidean distance, float32 (n,) in grey levels, to the nearest of ``among``, and which it is, int64 (n,).

    Both are uint8 (·, C, H, W) grey levels. Among images whose squared distances agree to about 10⁻⁷ of the squared
    norms, any may be the one; on 16 levels of MNIST nothing is rounded, and it is the first of the nearest.
    """
    others = among.flatten(1).float()
    squares = others.square().sum(1)

    def which(rows: slice) -> Tensor:
        # ‖x − y‖² without ‖x‖², which is the same for all y. Whole numbers: exact in float32 up to 2²⁴.
        return torch.addmm(squares, images[rows].flatten(1).float(), others.T, alpha=-2).argmin(1)

    index = in_chunks(which, len(images), BATCH)
    distance = in_chunks(lambda rows: _distance(images[rows], among[index[rows]]), len(images), BATCH)
    return distance, index


def median_metric(values: Tensor) -> Metric:
    """The median of (n,) values, with the 95 % interval between two of them, whatever their distribution.

    The ranks are those of the sign test: the number of values below the median is binomial (Conover, Practical
    Nonparametric Statistics, 1999, section 3.2). Fewer than six values have no interval.
    """
    n, ordered = len(values), values.double().sort().values
    rank = int((special.bdtr(np.arange(n), n, 0.5) <= (1 - CONFIDENCE) / 2).sum())
    interval = (ordered[rank - 1].item(), ordered[n - rank].item()) if rank else (None, None)
    return Metric(value=ordered.quantile(0.5).item(), low=interval[0], high=interval[1], n=n)


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return (a.float() - b.float()).flatten(1).square().sum(1).sqrt()
