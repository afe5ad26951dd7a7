"""Runs the audits of one model, and of each of its cells as it ends, and measures the time they take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from epsbench.attacks.base import Attack, GradientAttack
from epsbench.attacks.norms import NORMS
from epsbench.harness.findings import OWN_GRADIENTS, Finding, finding, voids
from epsbench.harness.plan.recorded import RecordIndex
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.ledger import Outcome
from epsbench.harness.run.attack.projection import into_ball
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.audits.attack import audit_convergence, audit_outcome
from epsbench.harness.run.audits.gradients import audit_gradients, zero_gradients, zero_share
from epsbench.harness.run.audits.history import History, Seen
from epsbench.harness.run.audits.model import audit_model, not_finite
from epsbench.harness.run.audits.probe import Probe
from epsbench.models.base import DataShape

# The audits of a model look at one in 64 of the test images, at least at 32 and at most at 64.
ONE_IN, FEWEST, IMAGES = 64, 32, 64


class Auditor:
    """Audits of one trained classifier.

    ``findings`` are those about the model itself. ``shares`` are the shares of probed images whose gradient is 0, by
    precision. ``seconds`` is the time of all audits since the last `charge`.
    """

    def __init__(self, judge: Judge, x: Tensor, y: Tensor, batch: int, shape: DataShape) -> None:
        """``x`` (N, C, H, W) and ``y`` (N,) are a few test images; the judge takes ``batch`` of them at a time."""
        self.probe = Probe(judge, x, y, batch)
        self.shape = shape
        self.seconds = 0.0
        self.findings: list[Finding] = []
        self.shares: dict[str, float] = {}
        self._history = History(self._step_success)
        self._shared = 0.0

    def model(self, logits: Tensor | None = None) -> list[Finding]:
        """Audit the model. ``logits`` (n, classes) are those of all clean images, where they are known."""
        with self._timed():
            self.findings = list(not_finite(logits)) if logits is not None else []
            if not self.findings:
                self.findings = audit_model(self.probe, self.shape)
            if not any(each.code == "not-finite" for each in self.findings):
                gradient = self.probe.gradient(self.probe.x, self.probe.y)
                self.shares["float32"] = zero_share(gradient)
                self.findings += audit_gradients(self.probe, gradient, self.probe.logits(self.probe.x))
        return self.findings

    def precision(self, victim: Victim, precision: str) -> float:
        """The share of probed images whose gradient is 0 in this precision."""
        with self._timed():
            if precision not in self.shares:
                self.shares[precision] = zero_share(self.probe.gradient_in(victim, precision))
        return self.shares[precision]

    def begin(self, engine: Engine, records: RecordIndex, weights: str | None, right: np.ndarray, cells: int) -> None:
        """Prepare for ``cells`` cells, and recall earlier records of the model with these ``weights`` (SHA-256).

        ``right`` (n,) is the model's verdict on the clean test images.
        """
        if self.shares:
            self.precision(engine.victim, engine.victim.precision)
        with self._timed():
            if weights:
                self._history.recall(records.of_weights(weights), right)
        self._shared, self.seconds = self.seconds / max(1, cells), 0.0

    def cell(
        self, engine: Engine, attack: Attack | GradientAttack, outcome: Outcome, clean_loss: np.ndarray
    ) -> list[Finding]:
        """Findings about one cell on its own: about its model, its gradients and its attack.

        Images that were made on another model do not test this one's gradients and need not raise its loss, so those
        findings are left out.
        """
        with self._timed():
            findings = [*self.findings, *engine.victim.findings, *self._zero_gradients(engine)]
            if not engine.white_box:
                findings = [each for each in findings if each.code not in OWN_GRADIENTS]
            least = getattr(attack, "least_classes", 2)
            if self.shape.classes < least:
                fact = f"the attack needs {least} classes and the model has {self.shape.classes}"
                findings.append(finding("few-classes", fact, classes=self.shape.classes, least=least))
            findings += audit_outcome(outcome, clean_loss if engine.white_box else None)
            if engine.white_box and not voids(findings):
                findings += audit_convergence(attack, outcome, engine.victim, engine.targets, engine.batch)
        return findings

    def among(self, seen: Seen) -> list[Finding]:
        """Findings about one cell compared with the earlier ones of its model."""
        with self._timed():
            return self._history.compare(seen)

    def charge(self) -> float:
        """Seconds of audits for one cell's record: those since the last call, and its share of those of the model."""
        own, self.seconds = self.seconds, 0.0
        return own + self._shared

    def _zero_gradients(self, engine: Engine) -> Iterator[Finding]:
        if not self.shares:
            return
        precision, known = engine.victim.precision, engine.clean.known
        shares = self.shares | ({precision: zero_share(known)} if known is not None else {})
        yield from zero_gradients(shares, precision)

    def _step_success(self, norm: str, eps: float) -> float:
        """The success rate of one gradient step of size ``eps`` on the probed images that are classified correctly."""
        probe, ball = self.probe, NORMS[norm]
        right = probe.logits(probe.x).argmax(1) == probe.y
        x, y = probe.x[right], probe.y[right]
        radius = x.new_full((len(x), 1, 1, 1), eps)
        x_adv = into_ball(ball, x, x + radius * ball.direction(probe.gradient(x, y)), radius)
        return float((probe.logits(x_adv).argmax(1) != y).float().mean()) if len(x) else 0.0

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            if self.probe.x.is_cuda:
                torch.cuda.synchronize(self.probe.x.device)
            self.seconds += time.perf_counter() - started


def probe_size(images: int) -> int:
    """How many of ``images`` test images the audits of a model look at."""
    return min(images, IMAGES, max(FEWEST, images // ONE_IN))
