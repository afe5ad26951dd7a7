"""Distances to the nearest training images, which show whether a model has memorised them."""

from __future__ import annotations

import torch
from torch import Tensor

from epsbench.harness.run.generative.measured import Measured
from epsbench.harness.run.generative.sampling import Levels
from epsbench.harness.run.machine.memory import in_chunks
from epsbench.harness.run.metrics import median_metric
from epsbench.models.vae import rescale

BATCH = 256
AMONG = 2**13  # training images that are compared at a time
SHOWN = 8


def neighbours(samples: Tensor, test: Tensor | Levels, train: Tensor | Levels, levels: int) -> Measured:
    """Euclidean distances, in pixels [0, 1], of samples and of test images to their nearest training image.

    All three are grey levels, uint8 (·, C, H, W). ``neighbour_distance`` is the median over the samples and
    ``floor_neighbour_distance`` the median over the test images. Samples that are much nearer than test images are
    copies. The picture ``neighbours`` (2, 8, C, H, W) shows the first samples above their nearest training images.
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


def nearest(images: Tensor | Levels, among: Tensor | Levels) -> tuple[Tensor, Tensor]:
    """Euclidean distance, float32 (n,) in grey levels, to the nearest of ``among``, and its index, int64 (n,).

    Both are uint8 (·, C, H, W) grey levels. If squared distances differ by less than about 10⁻⁷ of the squared norms,
    the index may be that of any of these images. With the 16 grey levels of MNIST distances are exact, and the index is
    that of the first nearest image.
    """
    least: Tensor | None = None
    index: Tensor | None = None
    for start in range(0, len(among), AMONG):
        others = among[start : start + AMONG].flatten(1).float()
        squares = others.square().sum(1)

        def which(rows: slice, others: Tensor = others, squares: Tensor = squares) -> Tensor:
            # ‖x − y‖² without ‖x‖², which is the same for all y. Whole numbers: exact in float32 up to 2²⁴.
            part = torch.addmm(squares, images[rows].flatten(1).float(), others.T, alpha=-2).min(1)
            return torch.stack([part.values.double(), part.indices.double()], 1)

        values, places = in_chunks(which, len(images), BATCH).unbind(1)
        places = places.long() + start
        closer = torch.ones_like(places, dtype=torch.bool) if least is None else values < least
        index = places if index is None else torch.where(closer, places, index)
        least = values if least is None else torch.where(closer, values, least)
    assert index is not None  # there are training images
    chosen = index
    distance = in_chunks(lambda rows: _distance(images[rows], among[chosen[rows]]), len(images), BATCH)
    return distance, chosen


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return (a.float() - b.float()).flatten(1).square().sum(1).sqrt()
