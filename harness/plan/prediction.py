"""How many gradients attacks will take: a bound from their settings, or the count of a cell measured already."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from epsbench.attacks.base import Attack
from epsbench.harness.plan.axes.randomness import Randomness


def most_gradients(attack: Attack, classes: int, randomness: Randomness | None = None) -> int | None:
    """How many gradients an attack takes for one image at one ε at most; None where nothing says it.

    Of a model that is random, every pass counts.

    Fewer are needed where the image is soon fooled. An attack with a loop of its own may take any number, and so may
    an ensemble with such a part.
    """
    parts = [part for _, part in attack.members(classes)] or [attack]
    if any(part.query == "own" and not part.gradients(classes) for part in parts):
        return None
    return attack.gradients(classes) * (randomness.samples if randomness else 1)


@dataclass(frozen=True)
class Prediction:
    """How many gradients some cells will take together."""

    at_most: int = 0
    """The bounds of the cells for which there is one, added up."""

    about: int = 0
    """The measured counts, where another seed of a cell is measured already, added up."""

    unknown: int = 0
    """The number of cells without either."""

    @classmethod
    def of(cls, most: int | None, images: int, measured: Iterable[int]) -> Prediction:
        """For a cell of so many test images.

        ``most`` is the bound for an image, as `most_gradients` has it; ``measured`` has the counts of other seeds.
        """
        counts = list(measured)
        if counts:
            return cls(about=round(sum(counts) / len(counts)))
        return cls(unknown=1) if most is None else cls(at_most=most * images)

    @classmethod
    def total(cls, predictions: Iterable[Prediction]) -> Prediction:
        """Of all these cells together."""
        parts = list(predictions)
        return cls(sum(p.at_most for p in parts), sum(p.about for p in parts), sum(p.unknown for p in parts))

    def __str__(self) -> str:
        """``"at most 5,000"``, ``"at most 5,000, about 1,200, 2 cells not known"``, ``"0"``."""
        parts = [f"at most {self.at_most:,}"] if self.at_most else []
        parts += [f"about {self.about:,}"] if self.about else []
        parts += [f"{self.unknown:,} cell{'' if self.unknown == 1 else 's'} not known"] if self.unknown else []
        return ", ".join(parts) or "0"
