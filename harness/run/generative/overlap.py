"""How two sets of points overlap, by the balls that reach to the k-th nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NEIGHBOURS = 5
BATCH = 1000
MORE = 3  # candidates for near neighbours beyond those that are wanted
AT_ONCE = 2**16  # pairs whose distances are computed at once


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
        # Of an even number of radii torch's own median is the smaller middle one; the authors take the mean of both.
        limit = real.radii.double().quantile(0.5).to(real.radii.dtype)
        balls, clipped = (torch.zeros(count, dtype=torch.int64, device=generated.points.device) for _ in range(2))
        reached, inside = [], []
        for points, radius in zip(real.points.split(BATCH), real.radii.split(BATCH), strict=True):
            pairs = Pairs.of(points, generated.points)
            within = pairs.within(radius[:, None])
            balls += within.sum(0)
            clipped += pairs.within(radius.clamp(max=limit)[:, None]).sum(0)
            inside.append(within.sum(1))
            reached.append(pairs.within(generated.radii).any(1))
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


@dataclass(frozen=True)
class Pairs:
    """The pairs of points ``a`` (n, d) and ``b`` (m, d), compared by `distances` without computing all of them.

    Squared distances from products of matrices take a tenth of the time. They are in float64, so they are nearer to the
    true ones than float32 distances are. Where both could be on different sides of a limit, `distances` decides.
    """

    a: Tensor
    b: Tensor

    squares: Tensor
    """Squared distances, float64 (n, m)."""

    relative: float
    """By what share of itself a squared distance may differ from the square of what `distances` says, and"""

    absolute: float
    """by how much more, because the products cancel for points that are near to each other."""

    @classmethod
    def of(cls, a: Tensor, b: Tensor) -> Pairs:
        """The pairs of points (n, d) and (m, d)."""
        x, y = a.double(), b.double()
        of_a, of_b = x.square().sum(1), y.square().sum(1)
        squares = torch.addmm(of_b, x, y.T, alpha=-2).add_(of_a[:, None])
        # A sum of d numbers of one sign is off by at most d units of rounding of itself, in any order; the others are
        # those of the differences, their squares and the root.
        roundings = a.shape[1] + 8
        largest = float(of_a.max() + of_b.max()) if len(a) and len(b) else 0.0
        relative, absolute = (roundings * torch.finfo(dtype).eps for dtype in (a.dtype, x.dtype))
        return cls(a, b, squares, relative, 2 * absolute * largest)

    def within(self, limits: Tensor) -> Tensor:
        """Whether the distance of a pair is at most its limit: bool (n, m). ``limits`` can be expanded to (n, m)."""
        bound = limits.double().square()
        inside = self.squares < bound * (1 - self.relative) - self.absolute
        unsure = (self.squares <= bound * (1 + self.relative) + self.absolute).logical_xor_(inside)
        limits = limits.expand_as(inside)
        rows, columns = unsure.nonzero(as_tuple=True)
        for row, column in zip(rows.split(AT_ONCE), columns.split(AT_ONCE), strict=True):
            inside[row, column] = self._exact(self.a[row], self.b[column][:, None])[:, 0] <= limits[row, column]
        return inside

    def nearest(self, k: int, apart_from: Tensor) -> tuple[Tensor, Tensor]:
        """The distances to the k nearest of ``b``, ascending, and their indices: (n, k) each.

        ``apart_from`` (n,) is the index of one of ``b`` that is left out, for each of ``a``. At least k must be left.
        """
        squares = self.squares.scatter(1, apart_from[:, None], torch.inf)
        some = min(k + MORE, squares.shape[1] - 1)
        candidates = squares.topk(some, dim=1, largest=False)
        distance = self._exact(self.a, self.b[candidates.indices])
        nearest = distance.topk(k, dim=1, largest=False)
        values, indices = nearest.values, candidates.indices.gather(1, nearest.indices)
        if some < squares.shape[1] - 1:
            # One that is no candidate is at least as far as the last candidate.
            sure = values[:, -1].double().square() * (1 + self.relative) + self.absolute
            rows = (candidates.values[:, -1] <= sure).nonzero()[:, 0]
            to_all = distances(self.a[rows], self.b).scatter_(1, apart_from[rows, None], torch.inf)
            values[rows], indices[rows] = to_all.topk(k, dim=1, largest=False)
        return values, indices

    @staticmethod
    def _exact(a: Tensor, b: Tensor) -> Tensor:
        """`distances` of each of ``a`` (p, d) to points of its own, ``b`` (p, q, d): (p, q)."""
        return distances(a[:, None], b)[:, 0]


def nearest_points(points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The distances of each point (n, d) to its k nearest other points, ascending, and their indices: both (n, k).

    Raises `ValueError` if there are no k others.
    """
    if not 1 <= k < len(points):
        raise ValueError(f"no neighbour number {k} among {len(points)} points")
    distance, index = [], []
    for first, part in enumerate(points.split(BATCH)):
        own = torch.arange(first * BATCH, first * BATCH + len(part), device=points.device)
        values, indices = Pairs.of(part, points).nearest(k, own)
        distance.append(values)
        index.append(indices)
    return torch.cat(distance), torch.cat(index)


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances (..., n, m) of points (..., n, d) and (..., m, d).

    They are computed from differences and not from products. So equal points are at distance 0, and the k-th neighbour
    of a point is exactly at the distance that is its radius.
    """
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
