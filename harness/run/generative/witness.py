"""A few of the answers that a generative model gave while it was measured, for the audits to ask for again."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from epsbench.harness.run.generative.posterior import Posterior

MOST = 32  # answers kept of each part of the model, for each measure
MOST_NUMBERS = 1 << 22  # in the answers of one part that are kept for one measure: 16 MiB
PIXELS = 1024  # of a decoded image that are kept, if it has more
PARTS = ("encode", "decode", "log_prob")


@dataclass(frozen=True)
class How:
    """How a part of a model was asked."""

    measure: str
    """The measure that asked."""

    batch: int
    """The number of rows that were asked together."""

    gradients: bool
    """Whether gradients were enabled."""


@dataclass(frozen=True)
class Seen:
    """What one part of a model answered to one row of its input."""

    how: How

    question: Tensor
    """The row: grey levels (C, H, W) of an image, or a code (z_dim,)."""

    answer: Tensor
    """Of ``encode`` mean and log-std (2, z_dim), of ``decode`` logits (levels, pixels), of ``log_prob`` a scalar."""


class Witness:
    """Keeps a random sample of the answers of a model, by the part that gave them and by measure.

    A model cannot know which of its answers are kept, so it cannot behave well for these alone.
    """

    def __init__(self, seed: int = 0, most: int = MOST) -> None:
        self.measure = ""
        """The measure that is being taken."""

        self.posteriors = self.points = 0
        """How many posteriors were computed, and how many of them are points in some dimension."""

        self.point_dimensions: set[int] = set()
        """These dimensions."""

        self._random, self._most = random.Random(seed), most
        self._kept: dict[tuple[str, str], list[Seen]] = defaultdict(list)
        self._calls: dict[tuple[str, str], int] = defaultdict(int)

    def __deepcopy__(self, memo: object) -> Witness:
        return self  # measures work on copies of the model, and what those answer is kept here as well

    def saw(
        self, part: str, questions: Tensor, answers: Tensor, meaning: Callable[[Tensor, int], Tensor] | None = None
    ) -> None:
        """Maybe keep a row of these questions (N, ...) and its answer: a random one, of a random call.

        ``meaning`` turns answers and the number of a row into what is kept of it.
        """
        key = part, self.measure
        kept = self._kept[key]
        most = self._limit(kept[0].answer) if kept else self._most
        self._calls[key] += 1
        place = len(kept) if len(kept) < most else self._random.randrange(self._calls[key])
        if place < most:
            row = self._random.randrange(len(questions))
            answer = self._part(meaning(answers.detach(), row) if meaning else answers[row])
            how = How(self.measure, len(questions), torch.is_grad_enabled())
            kept[place : place + 1] = [Seen(how, questions[row].detach().clone(), answer)]

    def saw_posteriors(self, posterior: Posterior) -> None:
        """Remember where these posteriors are points."""
        narrow = posterior.is_narrow()
        self.posteriors += len(posterior)
        if bool(narrow.any()):
            self.points += int(narrow.any(1).sum())
            self.point_dimensions |= set(narrow.any(0).nonzero().flatten().tolist())

    def of(self, part: str) -> list[Seen]:
        """What is kept of one of `PARTS`."""
        return [seen for (name, _), kept in self._kept.items() if name == part for seen in kept]

    def _limit(self, answer: Tensor) -> int:
        return max(2, min(self._most, MOST_NUMBERS // max(1, answer.numel())))

    def _part(self, answer: Tensor) -> Tensor:
        return some_pixels(answer[None])[0] if answer.dim() == 4 else answer.detach().clone()


def some_pixels(logits: Tensor) -> Tensor:
    """At most 1,024 evenly spaced pixels of logits (N, levels, C, H, W): (N, levels, pixels)."""
    flat = logits.detach().flatten(2)
    pixels = flat.shape[2]
    if pixels <= PIXELS:
        return flat.clone()
    return flat[:, :, torch.linspace(0, pixels - 1, PIXELS, device=flat.device).long()]
