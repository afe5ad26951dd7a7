"""What an attack leaves behind: the judge's verdicts, and the evidence the audits need."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from epsbench.attacks.norms.base import Norm
from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.schedule import ROUNDING
from epsbench.harness.run.attack.targets import Targets


@dataclass
class Outcome:
    """One attack at one ε: arrays of shape (n,) over the targets, and what it cost.

    ``attacked`` says which targets were attacked at this ε; the verdict on the others follows from another
    ε (see `epsbench.harness.run.attack.schedule`), and what is measured on an image is NaN there. ``size`` is ‖δ‖ of the
    image that was judged, ``low`` and ``high`` its extreme pixels, ``loss`` the judge's cross-entropy there.
    ``images`` (k, C, H, W) and ``predicted`` (k,) are kept for the first k.
    Of an attack that brings its own loop some images are watched on their way: ``watched`` of them, of which
    ``lost`` fooled in between and not at the end; ``withstood`` fooled at no time, and ``short`` of those were
    returned without the last gradient's step.
    """

    eps: Fraction
    fooled: np.ndarray
    attacked: np.ndarray
    size: np.ndarray
    low: np.ndarray
    high: np.ndarray
    loss: np.ndarray
    images: Tensor
    predicted: np.ndarray
    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0
    judge_forwards: int = 0
    shared_backwards: int = 0
    watched: int = 0
    lost: int = 0
    withstood: int = 0
    short: int = 0


class Ledger:
    """Judges finished rows and keeps one `Outcome` an ε."""

    def __init__(self, judge: Judge, targets: Targets, norm: Norm, eps: list[Fraction], keep: int) -> None:
        self.judge, self.targets, self.norm = judge, targets, norm
        n, keep = len(targets), min(keep, len(targets))
        shape = targets.pixels(targets.index.new_zeros(min(1, n))).shape[1:]

        def blank() -> np.ndarray:
            return np.full(n, np.nan, dtype=np.float32)

        self.outcomes = [
            Outcome(
                eps=e,
                fooled=np.zeros(n, dtype=bool),
                attacked=np.zeros(n, dtype=bool),
                size=blank(),
                low=blank(),
                high=blank(),
                loss=blank(),
                images=torch.zeros(keep, *shape),
                predicted=np.full(keep, -1),
            )
            for e in eps
        ]

    def verdicts(self, x: Tensor, x_adv: Tensor, y: Tensor, batch: int) -> np.ndarray:
        """Judge images (k, C, H, W): float32 (6, k) of fooled, ‖δ‖, lowest and highest pixel, loss, class.

        An image that is not finite fools nobody; the audit voids its cell.
        """
        x_adv = x_adv.contiguous(memory_format=self.judge.layout)
        logits = self.judge.logits(x_adv, batch)
        predicted = logits.argmax(1)
        flat = x_adv.flatten(1)
        low, high = flat.amin(1), flat.amax(1)  # which tell of NaN and infinity too, at a tenth of asking every pixel
        fooled = (predicted != y) & low.isfinite() & high.isfinite()
        loss = F.cross_entropy(logits, y, reduction="none")
        columns = (fooled, self.norm.size(flat.view_as(x) - x), low, high, loss, predicted)
        return torch.stack([column.float() for column in columns]).cpu().numpy()

    def note(self, eps_index: np.ndarray, example: np.ndarray, verdicts: np.ndarray, x_adv: Tensor) -> None:
        """Keep the verdicts of rows that are over; a row that fooled is never overwritten by one that did not."""
        fresh = ~np.array([self.outcomes[e].fooled[i] for e, i in zip(eps_index, example, strict=True)], dtype=bool)
        for e in np.unique(eps_index[fresh]):
            outcome, rows = self.outcomes[e], np.flatnonzero(fresh & (eps_index == e))
            at = example[rows]
            outcome.attacked[at] = True
            outcome.fooled[at] = verdicts[0, rows] > 0
            outcome.size[at], outcome.low[at], outcome.high[at], outcome.loss[at] = verdicts[1:5, rows]
            kept = at < len(outcome.images)
            if kept.any():
                chosen = torch.from_numpy(rows[kept]).to(x_adv.device)
                outcome.images[torch.from_numpy(at[kept])] = x_adv[chosen].to("cpu", torch.float32)
                outcome.predicted[at[kept]] = verdicts[5, rows[kept]].astype(int)

    def imply(self, eps_index: int, fooled: np.ndarray) -> Outcome:
        """The finished outcome of one ε: ``fooled`` (n,) adds what follows from other ε.

        An implied success shows an image that fooled at another ε, the largest there is, and lies in this ball too; a
        target that was not attacked and withstands keeps its clean image.
        """
        outcome = self.outcomes[eps_index]
        outcome.fooled, radius = fooled.copy(), float(outcome.eps) + ROUNDING
        for i in np.flatnonzero(~outcome.attacked[: len(outcome.images)]):
            lent = [o for o in self.outcomes if fooled[i] and o.attacked[i] and o.fooled[i] and o.size[i] <= radius]
            clean = self.targets.pixels(torch.tensor([i], device=self.targets.labels.device))[0].cpu()
            outcome.images[i] = lent[-1].images[i] if lent else clean
            outcome.predicted[i] = lent[-1].predicted[i] if lent else int(self.targets.labels[i])
        return outcome
