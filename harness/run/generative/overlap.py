"""How two sets of points overlap, by the balls that reach to the k-th nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NEIGHBOURS = 5
BATCH = 1000


@dataclass(frozen=True)
class Balls:
    """A set of points, each with a closed ball that reaches to its k-th nearest neighbour in the set."""

    points: Tensor
    """The points (n, d)."""

    distance: Tensor
    """The distances (n, k) to the k nearest other points, ascending."""

    index: Tensor
    """Which points these are, (n, k)."""

    @classmethod
    def around(cls, points: Tensor, k: int = NEIGHBOURS) -> Balls:
        """The balls of points (n, d). Raises `ValueError` if there are no k others."""
        return cls(points, *nearest_points(points, k))

    @property
    def k(self) -> int:
        """The number of neighbours that a ball reaches to."""
        return self.distance.shape[1]

    @property
    def radii(self) -> Tensor:
        """The radii (n,)."""
        return self.distance[:, -1]


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
        return cls.between(Balls.around(real, k), Balls.around(generated, k))

    @classmethod
    def between(cls, real: Balls, generated: Balls) -> Overlap:
        """The overlap of two sets whose balls are known. Both have the same number of neighbours."""
        k, count = real.k, len(generated.points)
        limit = real.radii.median()
        balls, clipped = (torch.zeros(count, dtype=torch.int64, device=generated.points.device) for _ in range(2))
        reached, inside = [], []
        for points, radius in zip(real.points.split(BATCH), real.radii.split(BATCH), strict=True):
            distance = distances(points, generated.points)
            within = distance <= radius[:, None]
            balls += within.sum(0)
            clipped += (distance <= radius.clamp(max=limit)[:, None]).sum(0)
            inside.append(within.sum(1))
            reached.append((distance <= generated.radii).any(1))
        contained = torch.cat(inside)
        # A real point lies in the balls of those points that it is a near neighbour of.
        near = real.index[real.distance <= real.radii.clamp(max=limit)[:, None]]
        clipped_real = near.bincount(minlength=len(real.points))
        return cls(
            k=k,
            realistic=balls > 0,
            reached=torch.cat(reached),
            density=balls / k,
            covered=contained > 0,
            clipped=(clipped / k).clamp(max=1),
            clipped_real=(clipped_real / k).clamp(max=1),
            filled=(contained / k).clamp(max=1),
        )


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
