"""How two sets of points overlap, by the balls that reach to the k-th nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NEIGHBOURS = 5
BATCH = 1000


@dataclass(frozen=True)
class Overlap:
    """How n real and m generated points overlap.

    Each point has a closed ball that reaches to its k-th nearest neighbour in its own set. The shares of ``realistic``
    and ``reached`` are precision and recall (Kynkäänniemi et al., 2019, equations 1 and 2). The means of ``density``
    and ``covered`` are density and coverage (Naeem et al., 2020, section 3). If both sets are many points of the same
    distribution, these are 1 and 1 − 2⁻ᵏ. The other fields are for Clipped Density and Clipped Coverage (Salvy et al.,
    2025). A clipped ball has at most the median radius of the balls of its set.
    """

    k: int
    """The number of neighbours that a ball reaches to."""

    realistic: Tensor
    """Bool (m,): the generated point lies in the ball of a real point."""

    reached: Tensor
    """Bool (n,): the real point lies in the ball of a generated point."""

    density: Tensor
    """Float (m,): the number of balls of real points that the generated point lies in, over k."""

    covered: Tensor
    """Bool (n,): the ball of the real point contains a generated point."""

    clipped: Tensor
    """Float (m,): the number of clipped balls of real points that the generated point lies in, over k, at most 1."""

    clipped_real: Tensor
    """Float (n,): the same for the real points, each without its own ball."""

    filled: Tensor
    """Float (n,): the number of generated points in the ball of the real point, over k, at most 1."""

    @classmethod
    def of(cls, real: Tensor, generated: Tensor, k: int = NEIGHBOURS) -> Overlap:
        """The overlap of points ``real`` (n, d) and ``generated`` (m, d).

        Raises `ValueError` if a set has too few points for k neighbours.
        """
        near_distance, near = nearest_points(real, k)
        around_real, around_generated = near_distance[:, -1], radii(generated, k)
        limit = around_real.median()
        balls, clipped = (torch.zeros(len(generated), dtype=torch.int64, device=generated.device) for _ in range(2))
        reached, inside = [], []
        for points, radius in zip(real.split(BATCH), around_real.split(BATCH), strict=True):
            distance = distances(points, generated)
            within = distance <= radius[:, None]
            balls += within.sum(0)
            clipped += (distance <= radius.clamp(max=limit)[:, None]).sum(0)
            inside.append(within.sum(1))
            reached.append((distance <= around_generated).any(1))
        count = torch.cat(inside)
        # A real point lies in the balls of those points that it is a near neighbour of.
        clipped_real = near[near_distance <= around_real.clamp(max=limit)[:, None]].bincount(minlength=len(real))
        return cls(
            k=k,
            realistic=balls > 0,
            reached=torch.cat(reached),
            density=balls / k,
            covered=count > 0,
            clipped=(clipped / k).clamp(max=1),
            clipped_real=(clipped_real / k).clamp(max=1),
            filled=(count / k).clamp(max=1),
        )


def radii(points: Tensor, k: int) -> Tensor:
    """The distance of each point (n, d) to its k-th nearest other point, (n,). Raises `ValueError` if there is none."""
    return nearest_points(points, k)[0][:, -1]


def nearest_points(points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The distances of each point (n, d) to its k nearest other points, ascending, and their indices: both (n, k).

    Raises `ValueError` if there are no k others.
    """
    if not 1 <= k < len(points):
        raise ValueError(f"no neighbour number {k} among {len(points)} points")
    distance, index = [], []
    for first, part in enumerate(points.split(BATCH)):
        to_all = distances(part, points)
        to_all[range(len(part)), range(first * BATCH, first * BATCH + len(part))] = torch.inf
        nearest = to_all.topk(k, dim=1, largest=False)
        distance.append(nearest.values)
        index.append(nearest.indices)
    return torch.cat(distance), torch.cat(index)


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances (n, m) of points (n, d) and (m, d).

    They are computed from differences and not from products. So equal points are at distance 0, and the k-th neighbour
    of a point is exactly at the distance that is its radius.
    """
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
