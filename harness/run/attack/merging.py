"""One attack on all targets from its outcomes on ranges of them.

A row's noise is keyed by its example, and no row sees another one. So an attack on a range of targets gives what it
gives on them among all: the ranges may be cut anywhere, and attacked anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from epsbench.harness.run.attack.kept_images import blank_images, in_parts, is_in_file, let_go
from epsbench.harness.run.attack.ledger import ARRAYS, Outcome, Part


@dataclass(frozen=True)
class Shard:
    """An attack on the targets at positions ``first`` to ``last`` - 1."""

    first: int
    """The position of the first target."""

    last: int
    """The position after the last one."""

    outcomes: tuple[Outcome, ...]
    """One an ε, ascending, each on these targets alone."""

    zero: np.ndarray | None = None
    """Which of the targets (k,) have a clean gradient of exactly 0; None where the attack did not ask for it."""

    device: str = ""
    """The name of the device that computed it."""

    seconds: float = 0.0
    """What it took there."""

    peak_bytes: int | None = None
    """Peak memory there."""

    def __len__(self) -> int:
        return self.last - self.first


def merged(shards: Sequence[Shard]) -> list[Outcome]:
    """The outcomes on all targets, one an ε, as one engine gives them.

    Counts and seconds are sums: what all devices did together. Raises `ValueError` where the ranges leave a target out
    or overlap.
    """
    shards = sorted(shards, key=lambda shard: shard.first)
    ends = [0, *(shard.last for shard in shards)]
    if not shards or any(shard.first != end for shard, end in zip(shards, ends, strict=False)):
        raise ValueError(f"shards of an evaluation must follow each other: {[(s.first, s.last) for s in shards]}")
    return [_merged([s.outcomes[e] for s in shards], ends) for e in range(len(shards[0].outcomes))]


def zero_gradients(shards: Sequence[Shard]) -> np.ndarray | None:
    """Which targets (n,) have a clean gradient of exactly 0; None where a shard does not say."""
    flags = [shard.zero for shard in sorted(shards, key=lambda shard: shard.first)]
    return np.concatenate([each for each in flags if each is not None]) if all(f is not None for f in flags) else None


def _merged(outcomes: Sequence[Outcome], starts: Sequence[int]) -> Outcome:
    first = outcomes[0]
    arrays: dict[str, Any] = {name: np.concatenate([getattr(each, name) for each in outcomes]) for name in ARRAYS}
    parts = [each.images for each in outcomes]
    images = blank_images((sum(map(len, parts)), *parts[0].shape[1:]), any(map(is_in_file, parts)))
    at = 0
    for part in parts:
        for rows in in_parts(part):
            images[at : at + rows.stop - rows.start] = part[rows]
            at += rows.stop - rows.start
            let_go(images)
    whole = Outcome(eps=first.eps, images=images, radii=first.radii, **arrays)
    for outcome in outcomes:
        whole.add_counts(outcome)
    if first.distances is not None:
        whole.distances = np.concatenate([each.distances for each in outcomes if each.distances is not None])
    whole.parts = [_part([each.parts[n] for each in outcomes], starts) for n in range(len(first.parts))]
    return whole


def _part(parts: Sequence[Part], starts: Sequence[int]) -> Part:
    fooled = np.concatenate([part.fooled + start for part, start in zip(parts, starts, strict=False)])
    added = [each.name for each in fields(Part) if each.name not in ("name", "fooled")]
    return Part(parts[0].name, fooled, **{name: sum(getattr(part, name) for part in parts) for name in added})
