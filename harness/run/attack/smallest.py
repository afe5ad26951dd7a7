"""An attack that looks for the smallest distance: one run answers every ε.

Of every row's path the nearest points that fool the victim are kept. At its end the judge decides about them, moves the
nearest one that fools it towards the clean image, as near as it still fools, and then along the boundary
(`epsbench.harness.run.attack.polish`).
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from epsbench.attacks.base import State
from epsbench.attacks.losses import Margin
from epsbench.attacks.norms import Norm
from epsbench.attacks.norms.base import per_row
from epsbench.attacks.norms.l0 import L0
from epsbench.attacks.rows import Answer
from epsbench.harness.records import within
from epsbench.harness.run.attack.asks import GRADIENT
from epsbench.harness.run.attack.creases import Creases
from epsbench.harness.run.attack.fewer import Fewer
from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.kept_images import in_parts, let_go
from epsbench.harness.run.attack.ledger import JUDGED, Ledger, Outcome, blank_outcome
from epsbench.harness.run.attack.line_search import lead, lead_by, lead_of, nearest_on_the_line
from epsbench.harness.run.attack.polish import Polish, known
from epsbench.harness.run.attack.scale import scale
from epsbench.harness.run.attack.slots import Bundle
from epsbench.harness.run.attack.step import hold
from epsbench.harness.run.attack.stream import Stream
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.turn import Turn
from epsbench.harness.run.machine.memory import in_chunks

# How far a margin must be below 0, as a share of the `scale` of the logits, for the judge to agree in all likelihood,
# although its network computes in another order than the victim's.
SURE = 2.0**-16
MARGIN = Margin()
_BEYOND = (1.01, 1.03, 1.1, 1.3, 2.0)  # of the way to a point that half precision takes for fooling
_KEPT = ("near", "sure")


class NearestTurn(Turn):
    """`Turn` without ε: the nearest points that fool are kept.

    ``near`` is the nearest point that fools the victim, and ``sure`` the nearest one beyond the precision's doubt.
    """

    def _region(self, x: Tensor, eps: Tensor) -> State:
        return {}

    def _kept_at_first(self, tensors: State) -> State:
        none = torch.full_like(tensors["margin"], torch.inf)
        kept = {name: tensors["point"].clone() for name in _KEPT}
        return kept | {f"{name}_size": none.clone() for name in _KEPT}

    def _kept_names(self) -> tuple[str, ...]:
        return (*_KEPT, *(f"{name}_size" for name in _KEPT), "x")

    def _margin(self, t: State, logits: Tensor, answer: Answer) -> Tensor:
        return self._allowed(lead_of(logits, t["y"]), logits, answer)

    def _kept(self, t: State, logits: Tensor, margin: Tensor) -> State:
        doubt = 0.0 if self.asks.exact else self.victim.doubt(logits)
        size = self.norm.size(t["point"] - t["x"])
        surely = margin + 2 * doubt + SURE * scale(logits) < 0
        new = {}
        for name, fools in (("near", margin + doubt < 0), ("sure", surely)):
            nearer = fools & (size < t[f"{name}_size"]) & (size > 0)  # the clean image does not fool the judge
            # Written in place, as it must never be the same tensor as the points: slots write into both.
            new[name] = hold(nearer, t["point"], t[name], owned=True)
            new[f"{name}_size"] = size.where(nearer, t[f"{name}_size"])
        return new


class Smallest(Stream):
    """`Stream` without ε: every row takes all its steps, and the nearest points that fool are kept."""

    def _starving(self) -> bool:
        """No verdict brings new rows to free slots, and the polish of many rows at once is faster."""
        return not self._occupied()

    def _judge(self) -> None:
        bundle, self.waiting = Bundle.cat(self.waiting), []
        t = bundle.tensors
        _, _, example = self.schedule.split(bundle.rows)
        judged = self.ledger.judge.forwards
        at = torch.from_numpy(example).to(self.device)
        examples = self.targets.index[at]
        best, far = self._nearest_that_fools(t, examples)
        fooled = far.isfinite()
        if self.ledger.norm.shrinks and bool(fooled.any()):
            rows = fooled.nonzero().flatten()
            clean = self.turn.asks.clean_logits()[at[rows]]
            leads = lead_of(clean, t["y"][rows]), far[rows]
            best[rows] = self._nearer(t["x"][rows], best[rows], t["y"][rows], examples[rows], leads)
        elif bool(fooled.any()):
            rows = fooled.nonzero().flatten()
            best[rows] = self._fewer(t["x"][rows], best[rows], t["y"][rows], examples[rows])
        verdicts = self.ledger.verdicts(at, best, self.size)
        self.ledger.note(np.zeros_like(example), example, verdicts, best)
        self.schedule.settle(bundle.rows, verdicts[0] > 0, verdicts[1])
        judged = self.ledger.judge.forwards - judged
        self.work += judged
        self.ledger.outcomes[0].judge_forwards += judged

    def _nearer(self, x: Tensor, best: Tensor, y: Tensor, examples: Tensor, leads: tuple[Tensor, Tensor]) -> Tensor:
        """Points that fool the judge, (N, C, H, W), along the boundary and on the way to ``x`` from those that do.

        ``leads`` are the leads (N,) at ``x`` and at ``best``.
        """
        judge, norm, attack = self.ledger.judge, self.ledger.norm, self.turn.attack
        kinds = (Polish, attack.polish), (Creases, attack.creases)
        rounds = [(kind, most) for kind, most in kinds if most and self._follows_gradients and known(norm)]
        if not rounds:
            return nearest_on_the_line(judge, x, best, y, self.size, examples, leads)[0]
        for number, (kind, most) in enumerate(rounds):
            if number:
                leads = leads[0], lead(judge, best, y, self.size, examples)
            best = kind(judge, self._margin, norm, most, self.size)(x, best, y, examples, leads)
        return best

    def _fewer(self, x: Tensor, best: Tensor, y: Tensor, examples: Tensor) -> Tensor:
        """Points that fool the judge, (N, C, H, W), with fewer changes from ``x`` than those that do, ``best``."""
        judge, norm, most = self.ledger.judge, self.ledger.norm, self.turn.attack.polish
        if not (most and self._follows_gradients and isinstance(norm, L0)):
            return best
        return Fewer(judge, self._margin, norm, most, self.size)(x, best, y, examples)

    @property
    def _follows_gradients(self) -> bool:
        return self.turn.attack.query in ("gradient", "jacobian") and not self.turn.victim.random

    def _margin(self, x: Tensor, y: Tensor, examples: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient of the margin (N, C, H, W) and the lead (N,), counted; both in float32.

        A gradient in half precision and the judge's verdict, which would tell the lead, take as long together.
        """
        (outcome,), victim = self.ledger.outcomes, self.turn.victim
        outcome.forwards, outcome.backwards = outcome.forwards + len(x), outcome.backwards + len(x)
        self.work += GRADIENT * len(x)
        leads: list[Tensor] = []

        def gradient(rows: slice) -> Tensor:
            gradient, logits = victim.exact_query(x[rows], MARGIN, y[rows])
            leads.append(lead_of(logits, y[rows]))
            return gradient

        return in_chunks(gradient, len(x), self.size), torch.cat(leads)

    def _nearest_that_fools(self, t: State, examples: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest kept or last point of each row that fools the judge, (N, C, H, W), and the `lead` there, (N,).

        Where half precision alone takes the nearest one for fooling, a point a little beyond it may do: those on the
        line through it are tried, too. Where none fools, it is the last point, and the lead ∞.
        """
        norm, judge = self.ledger.norm, self.ledger.judge
        best, size = t["point"].clone(), torch.full_like(t["near_size"], torch.inf)
        far = size.clone()

        def look(points: Tensor, reached: Tensor) -> None:
            rows = (reached < size).nonzero().flatten()
            if not len(rows):
                return
            points, y = points[rows], t["y"][rows]
            logits, predicted = judge.verdict(points, y, self.size, examples[rows])
            fools = (predicted != y) & points.flatten(1).isfinite().all(1)
            best[rows[fools]], size[rows[fools]] = points[fools], reached[rows[fools]]
            far[rows[fools]] = lead_by(judge, logits, predicted, y, fools)[fools]

        look(t["sure"], t["sure_size"])
        look(t["near"], t["near_size"])
        look(t["point"], norm.size(t["point"] - t["x"]))
        for share in _BEYOND:
            if not bool((t["near_size"] < size).any()):
                break
            beyond = t["x"].lerp(t["near"], share).clamp_(0.0, 1.0)
            look(beyond, norm.size(beyond - t["x"]).where(t["near_size"].isfinite(), torch.inf))
        return best, far


class NearestLedger(Ledger):
    """A `Ledger` of the nearest image of each target that fools the judge, whatever ε."""

    def __init__(self, judge: Judge, targets: Targets, norm: Norm, keep: int) -> None:
        super().__init__(judge, targets, norm, [Fraction(0)], keep)
        self.distances = np.full(len(targets), np.inf, dtype=np.float32)

    def note(self, eps_index: np.ndarray, example: np.ndarray, verdicts: np.ndarray, x_adv: Tensor) -> None:
        """Keep what is nearer than before. The distance is computed in float64 from the float32 images."""
        (outcome,) = self.outcomes
        at = torch.from_numpy(example).to(x_adv.device)
        size = self.norm.size(x_adv.double() - self.targets.pixels(at).double()).cpu().numpy().astype(np.float32)
        for row in np.flatnonzero(verdicts[0] > 0):
            i = example[row]
            if size[row] >= self.distances[i]:
                continue
            for name, value in zip(JUDGED, verdicts[1:, row], strict=True):
                getattr(outcome, name)[i] = value
            self.distances[i] = outcome.size[i] = size[row]
            if i < len(outcome.images):
                outcome.images[i] = x_adv[row].to("cpu", torch.float32)
        let_go(outcome.images)

    def imply(self, eps_index: int, fooled: np.ndarray) -> Outcome:
        """Nothing follows for this run from another ε."""
        return self.outcomes[eps_index]

    def at(self, eps: Fraction) -> Outcome:
        """The outcome at one ε: fooled where the nearest image is within it. Every ε states the cost of the one run."""
        (run,) = self.outcomes
        outcome = blank_outcome(self.targets, eps, len(run.images))
        near = within(self.distances, float(eps))
        outcome.fooled, outcome.attacked, outcome.distances = near.copy(), near.copy(), self.distances.copy()
        outcome.predicted = self.targets.labels.cpu().numpy().copy()
        for name in JUDGED:
            getattr(outcome, name)[near] = getattr(run, name)[near]
        everyone = torch.arange(len(outcome.images), device=self.targets.labels.device)
        shown = torch.from_numpy(near[: len(everyone)])
        for rows in in_parts(outcome.images):
            clean = self.targets.pixels(everyone[rows]).cpu()
            outcome.images[rows] = run.images[rows].where(per_row(shown[rows]), clean)
            let_go(run.images)
        outcome.add_counts(run)
        return outcome
