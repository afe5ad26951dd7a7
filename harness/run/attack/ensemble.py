"""An ensemble: its parts one after the other, each on the images that withstood those before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from epsbench.attacks.base import Attack
from epsbench.harness.run.attack.kept_images import in_parts, let_go
from epsbench.harness.run.attack.ledger import JUDGED, Outcome, Part, blank_outcome

if TYPE_CHECKING:
    from epsbench.harness.run.attack.engine import Engine


class Store(Protocol):
    """Keeps what the finished parts of an ensemble gave, so that a killed run goes on after the last of them."""

    def load(self, eps: Fraction) -> Outcome | None:
        """What was kept at this ε; None where nothing was."""
        ...

    def save(self, outcome: Outcome) -> None:
        """Keep the outcome after a further part."""
        ...


def run_ensemble(
    engine: Engine, attack: Attack, eps: Sequence[Fraction], *, seed: int, early_stop: bool, store: Store | None
) -> Iterator[Outcome]:
    """As `Engine.run`. Every ε is attacked on its own, all parts at one ε before the next."""
    classes = engine.clean_logits().shape[1] if len(engine.targets) else 2
    members = attack.members(classes)
    for each in eps:
        outcome = (store and store.load(each)) or blank_outcome(engine.targets, each, engine.keep)
        done = len(outcome.parts)
        for number, (name, part) in enumerate(members[done:], done):
            left = np.flatnonzero(~outcome.fooled)
            # Noise of its own for every part: the first step of two parts must not start at the same points.
            (got,) = engine.on(torch.from_numpy(left).to(engine.targets.labels.device)).run(
                part, [each], seed=part_seed(seed, number), early_stop=early_stop, part=name
            )
            _merge(outcome, got, left)
            outcome.parts.append(
                Part(
                    name, left[got.fooled], len(left), got.forwards, got.gradients,
                    got.judge_forwards, got.seconds,
                )
            )  # fmt: skip
            if store is not None and number + 1 < len(members):
                store.save(outcome)
        yield outcome


def part_seed(seed: int, number: int) -> int:
    """The seed of a part's noise."""
    return seed + (number + 1) * 2**32


def _merge(outcome: Outcome, part: Outcome, left: np.ndarray) -> None:
    """Put what a part gave for the targets at positions ``left`` into the ensemble's outcome."""
    outcome.fooled[left] = part.fooled
    outcome.attacked[left] |= part.attacked
    for name in JUDGED:
        getattr(outcome, name)[left] = getattr(part, name)
    kept = torch.from_numpy(left[: len(part.images)])
    for rows in in_parts(part.images):
        outcome.images[kept[rows]] = part.images[rows]
        let_go(outcome.images)
    outcome.add_counts(part)
