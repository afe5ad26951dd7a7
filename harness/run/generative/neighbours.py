"""Distances to the nearest training images, which show whether a model has memorised them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from epsbench.harness.run.generative.measured import Measured
from epsbench.harness.run.generative.sampling import Levels
from epsbench.harness.run.machine.memory import in_chunks
from epsbench.harness.run.metrics import median_metric
from epsbench.harness.run.speed.torch_private import Moved, private
from epsbench.models.vae import rescale

BATCH = 256
AMONG = 2**13  # training images that are compared at a time
SHOWN = 8
# Processors without a product of bytes into int32 add two products in int16, after they have added 128 to one factor.
SMALL = 63
FAST_AT_BYTES = {"AVX512"}  # what torch calls processors that multiply bytes faster than floats


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
        squares_to = _squares_to(among[start : start + AMONG].flatten(1))

        def which(rows: slice, squares_to: Callable[[Tensor], Tensor] = squares_to) -> Tensor:
            part = squares_to(images[rows].flatten(1)).min(1)
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


def _squares_to(others: Tensor) -> Callable[[Tensor], Tensor]:
    """A function of grey levels (n, d) that gives their squared distances to ``others`` (m, d), both uint8, as (n, m).

    The squares of the first are left out, which are the same for all of the others. The numbers are whole.
    """
    wide = others.float()
    squares = wide.square().sum(1)
    product = _product_of_bytes(others)
    whole, columns = squares.int(), others.to(torch.int8).T

    def squares_to(images: Tensor) -> Tensor:
        if product is not None and _small(images):
            return torch.sub(whole, product(images.to(torch.int8), columns), alpha=2)
        return torch.addmm(squares, images.float(), wide.T, alpha=-2)  # exact in float32 up to 2²⁴

    return squares_to


def _product_of_bytes(images: Tensor) -> Callable[[Tensor, Tensor], Tensor] | None:
    """Torch's product of int8 matrices, with sums in int32, if it is exact and fast for these grey levels (n, d).

    On one AMD EPYC core (torch 2.14, 256 × 784 times 784 × 8,192) it took 0.22 times as long as one of float32.
    """
    if images.device.type != "cpu" or torch.backends.cpu.get_cpu_capability() not in FAST_AT_BYTES:
        return None
    if not _small(images):
        return None
    try:
        product: Callable[[Tensor, Tensor], Tensor] = private("int_mm")
    except Moved:
        return None
    return product


def _small(levels: Tensor) -> bool:
    return levels.numel() == 0 or int(levels.max()) <= SMALL


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return (a.float() - b.float()).flatten(1).square().sum(1).sqrt()
