"""The judge's verdicts on finished rows, and the evidence that the audits need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from epsbench.attacks.losses import at_class
from epsbench.attacks.norms import Norm
from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.kept_images import blank_images, let_go
from epsbench.harness.run.attack.returned import Returned
from epsbench.harness.run.attack.schedule import in_ball
from epsbench.harness.run.attack.targets import Targets


@dataclass
class Part:
    """One part of an ensemble at one ε."""

    name: str
    """Its name."""

    fooled: np.ndarray
    """Positions of the targets that it fooled, (k,) int64, ascending."""

    attacked: int
    """How many images it was tried on."""

    forwards: int = 0
    """Rows that went forward through the victim."""

    backwards: int = 0
    """Rows that went backward through it."""

    judge_forwards: int = 0
    """Rows that the judge was asked about."""

    seconds: float = 0.0
    """What it took, its verdicts included."""


@dataclass
class Outcome:
    """One attack at one ε, on n targets, and what it cost. What was not measured on a target is NaN there."""

    eps: Fraction
    """The radius in pixel units."""

    fooled: np.ndarray
    """Which targets (n,) the attack fools, by the judge's verdict."""

    attacked: np.ndarray
    """Which targets (n,) were attacked at this ε; the verdict on the others follows from another ε."""

    size: np.ndarray
    """The norm of the perturbation that was judged, (n,)."""

    low: np.ndarray
    """The smallest pixel of the image that was judged, (n,)."""

    high: np.ndarray
    """Its largest pixel, (n,)."""

    loss: np.ndarray
    """The judge's cross-entropy there, (n,)."""

    images: Tensor
    """The adversarial images of the first k targets, (k, C, H, W)."""

    predicted: np.ndarray
    """The judge's class of the image that was judged, (n,) int64; −1 where none was."""

    confidence: np.ndarray
    """The probability that it gives that class, (n,)."""

    forwards: int = 0
    """Rows that went forward through the victim."""

    backwards: int = 0
    """Rows that went backward through it."""

    seconds: float = 0.0
    """What the attack took, its verdicts included."""

    judge_forwards: int = 0
    """Rows that went forward through the judge."""

    shared_backwards: int = 0
    """Gradients at the clean image that this attack used and another one may have used too."""

    watched: int = 0
    """Of an attack with a loop of its own: images whose iterates were looked at."""

    lost: int = 0
    """Of those: images that fooled on the way and not at the end."""

    withstood: int = 0
    """Of those: images that did not fool at the end."""

    short: int = 0
    """Of those: images that the attack returned without the step of its last gradient."""

    parts: list[Part] = field(default_factory=list)
    """Of an ensemble: its finished parts, in their order."""

    distances: np.ndarray | None = None
    """Of an attack that looks for the smallest distance: the distance of the nearest image that fools the judge, (n,)
    float32, the same at every ε; ∞ where none was reached."""

    radii: int = 1
    """How many ε the run answered whose cost this is: more than 1 where it looked for the smallest distance."""

    returned: Returned = field(default_factory=Returned)
    """Of an attack with a loop of its own: where the images were that it returned, before they were projected."""

    @property
    def gradients(self) -> int:
        """Gradients that it used, its own and the shared ones."""
        return self.backwards + self.shared_backwards

    def add_counts(self, other: Outcome) -> None:
        """Add what another one cost, and counted, to this one's `COUNTS` and `returned`."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.returned.add(other.returned)


JUDGED = ("size", "low", "high", "loss", "confidence", "predicted")
"""The fields of an outcome that say what was judged of each target, in the order of `Ledger.verdicts`."""

ARRAYS = ("fooled", "attacked", *JUDGED)
"""The fields of an outcome that are arrays."""

COUNTS = ("forwards", "backwards", "seconds", "judge_forwards", "shared_backwards", "watched", "lost", "withstood",
          "short")  # fmt: skip
"""The fields of an outcome that add up."""


def blank_outcome(targets: Targets, eps: Fraction, keep: int) -> Outcome:
    """The outcome at an ε before anything is attacked; the first ``keep`` targets will keep their image."""
    n, keep = len(targets), min(keep, len(targets))
    shape = targets.pixels(targets.index.new_zeros(min(1, n))).shape[1:]
    size, low, high, loss, confidence = (np.full(n, np.nan, dtype=np.float32) for _ in range(5))
    return Outcome(
        eps=eps,
        fooled=np.zeros(n, dtype=bool),
        attacked=np.zeros(n, dtype=bool),
        size=size,
        low=low,
        high=high,
        loss=loss,
        images=blank_images((keep, *shape), targets.streamed),
        predicted=np.full(n, -1),
        confidence=confidence,
    )


class Ledger:
    """Judges finished rows and keeps one `Outcome` an ε."""

    def __init__(self, judge: Judge, targets: Targets, norm: Norm, eps: Sequence[Fraction], keep: int) -> None:
        """``norm`` measures perturbations; ``keep`` is how many of the first targets keep their image."""
        self.judge, self.targets, self.norm = judge, targets, norm
        self.outcomes = [blank_outcome(targets, e, keep) for e in eps]

    def verdicts(self, at: Tensor, x_adv: Tensor, batch: int) -> np.ndarray:
        """Judge images (k, C, H, W): float32 (7, k) of fooled, then `JUDGED`: ‖δ‖, lowest and highest pixel,
        cross-entropy, the probability of the class, and the class.

        ``at`` (k,) are the positions of their targets. An image that is not finite does not count as fooling; the
        audit voids its cell.
        """
        x, y = self.targets.pixels(at), self.targets.labels[at]
        x_adv = x_adv.contiguous(memory_format=self.judge.layout)
        logits, predicted = self.judge.verdict(x_adv, y, batch, self.targets.index[at])
        flat = x_adv.flatten(1)
        # The extremes show NaN and infinity too, at a tenth of the cost of looking at every pixel.
        low, high = flat.amin(1), flat.amax(1)
        fooled = (predicted != y) & low.isfinite() & high.isfinite()
        loss = F.cross_entropy(logits, y, reduction="none")
        confidence = at_class(logits.softmax(1), predicted)
        columns = (fooled, self.norm.size(flat.view_as(x) - x), low, high, loss, confidence, predicted)
        return torch.stack([column.float() for column in columns]).cpu().numpy()

    def note(self, eps_index: np.ndarray, example: np.ndarray, verdicts: np.ndarray, x_adv: Tensor) -> None:
        """Keep the verdicts of finished rows; a row that fooled is never overwritten by one that did not."""
        fresh = ~np.array([self.outcomes[e].fooled[i] for e, i in zip(eps_index, example, strict=True)], dtype=bool)
        for e in np.unique(eps_index[fresh]):
            outcome, rows = self.outcomes[e], np.flatnonzero(fresh & (eps_index == e))
            at = example[rows]
            outcome.attacked[at] = True
            outcome.fooled[at] = verdicts[0, rows] > 0
            for name, column in zip(JUDGED, verdicts[1:], strict=True):
                getattr(outcome, name)[at] = column[rows]
            kept = at < len(outcome.images)
            if kept.any():
                chosen = torch.from_numpy(rows[kept]).to(x_adv.device)
                outcome.images[torch.from_numpy(at[kept])] = x_adv[chosen].to("cpu", torch.float32)
                let_go(outcome.images)

    def imply(self, eps_index: int, fooled: np.ndarray) -> Outcome:
        """The finished outcome of one ε, with what follows from other ε: ``fooled`` (n,) is the final verdict.

        Where success follows from another ε, the image shown is the one of the largest such ε whose perturbation lies
        in this ball too. A target that withstands without an attack at this ε keeps its clean image, and the
        confidence of its class is not known.
        """
        outcome = self.outcomes[eps_index]
        outcome.fooled, radius = fooled.copy(), np.array(float(outcome.eps))
        implied = ~outcome.attacked
        outcome.predicted[implied] = self.targets.labels.cpu().numpy()[implied]
        from_other = np.full(len(fooled), -1)
        for number, other in enumerate(self.outcomes):
            from_other[implied & fooled & other.attacked & other.fooled & in_ball(other.size, radius)] = number
        for number in np.unique(from_other[from_other >= 0]):
            at = from_other == number
            outcome.predicted[at] = self.outcomes[number].predicted[at]
            outcome.confidence[at] = self.outcomes[number].confidence[at]
        for i in np.flatnonzero(implied[: len(outcome.images)]):
            clean = self.targets.pixels(torch.tensor([i], device=self.targets.labels.device))[0].cpu()
            outcome.images[i] = clean if from_other[i] < 0 else self.outcomes[from_other[i]].images[i]
        for each in self.outcomes:
            let_go(each.images)
        return outcome
