"""Runs the audits of one model, and of each of its cells as it ends, and measures the time they take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from epsbench.attacks.base import Attack
from epsbench.harness.finding_codes import OWN_GRADIENTS
from epsbench.harness.findings import Finding, finding, voids
from epsbench.harness.isolation import global_state_kept
from epsbench.harness.plan.recorded import RecordIndex
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.ledger import Outcome
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.audits.attack import audit_convergence, audit_outcome, stepped
from epsbench.harness.run.audits.attacked import Attacked
from epsbench.harness.run.audits.bounds import audit_bounds
from epsbench.harness.run.audits.chance import audit_chance, audit_one_class
from epsbench.harness.run.audits.constructed import ConstructedExamples
from epsbench.harness.run.audits.ensemble import audit_ensemble
from epsbench.harness.run.audits.fresh_process import Recipe
from epsbench.harness.run.audits.gradients import (
    audit_gradients,
    broken_gradients,
    step_success,
    zero_gradients,
    zero_share,
)
from epsbench.harness.run.audits.history import History, Seen
from epsbench.harness.run.audits.in_depth import Made, audit_in_depth
from epsbench.harness.run.audits.model import audit_model, not_finite
from epsbench.harness.run.audits.normalisation import audit_normalisation, labelled
from epsbench.harness.run.audits.other_images import audit_other_images
from epsbench.harness.run.audits.own_attacks import OwnAttacks
from epsbench.harness.run.audits.points import points
from epsbench.harness.run.audits.probe import Probe
from epsbench.harness.run.audits.remembered import Remembered, digest_of, failed, recall, remember
from epsbench.harness.run.audits.replay import Replayed, audit_as_before, audit_replay
from epsbench.harness.run.audits.shared_images import audit_shared_images
from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.guard import guarded
from epsbench.harness.run.machine.memory import is_out_of_memory
from epsbench.models.base import DataShape

# The audits of a model look at one in 64 of the test images, at least at 32 and at most at 64.
ONE_IN, FEWEST, IMAGES = 64, 32, 64
REPEATED = 4  # clean images that are asked about before the attack and after all audits
ROBUST_ON = 0.1  # an attack that leaves at least so large a share of the images is doubted, and others are tried


class Auditor:
    """Audits of one trained classifier.

    ``findings`` are those about the model itself. ``shares`` are the shares of probed images whose gradient is 0, by
    precision; empty where the model has no gradient. ``seconds`` is the time of all audits since the last `charge`.
    """

    def __init__(
        self,
        probe: Probe,
        shape: DataShape,
        original: nn.Module | None = None,
        data: Data | None = None,
        recipe: Recipe | None = None,
        identity: str = "",
        trained: bool = False,
    ) -> None:
        """``probe`` has the judge, and a few test images of ``shape``.

        ``original`` is the model that judge and victim are copies of, and ``data`` is what it is trained and tested
        on. ``recipe`` is how the model is built again. Without one of them the audits that need it are left out.
        ``identity`` is a digest of weights, code and data, under which the audits are remembered; empty: they are not.
        ``trained`` says that epsbench has trained the model.
        """
        self.probe = probe
        self.shape = shape
        self.seconds = 0.0
        self.findings: list[Finding] = []
        self.shares: dict[str, float] = {}
        self._history = History(partial(step_success, probe))
        self._shared = 0.0
        self._made = Made(original, data, recipe, trained)
        self._in_depth_done = False
        self._clean_gradient: Tensor | None = None
        self._before: Tensor | None = None
        self._memory = Remembered()
        self._recalled = False
        self._identity = digest_of(identity, probe.x, probe.y) if identity and not probe.judge.random else ""
        self._own_attacks = OwnAttacks(probe, self._made.train, self._memory)
        self._constructed = ConstructedExamples(self._memory)

    def model(self, logits: Tensor | None = None, labels: Tensor | None = None) -> list[Finding]:
        """Audit the model's outputs and gradients.

        ``logits`` (n, classes) and ``labels`` (n,) are those of all clean images, where they are known; the probed
        images are the first of them.
        """
        with self._timed():
            self.findings = list(not_finite(logits)) if logits is not None else []
            if logits is not None and not self.probe.judge.random:
                self.probe.know(self.probe.x, logits[: len(self.probe.x)])
            if not self.findings:
                self._before = self.probe.logits(self.probe.x[:REPEATED]) if not self.probe.judge.random else None
                self._recall()
                self.findings = list(self._memory.outputs) if self._recalled else self._of_outputs(logits, labels)
            if any(each.code == "not-finite" for each in self.findings):
                return self.findings
            if logits is not None and labels is not None:
                right = int((logits.argmax(1) == labels).sum())
                if not voids(self.findings):
                    classes, guessed = self.shape.classes, audit_chance(right, len(labels), self.shape.classes)
                    self.findings += list(guessed) or audit_one_class(labels.cpu().numpy(), right, classes)
            if (data := self._made.data) is not None:
                self.findings += guarded("the data", lambda: audit_shared_images(data))
        return self.findings

    def _of_outputs(self, logits: Tensor | None, labels: Tensor | None) -> list[Finding]:
        """Findings about outputs and gradients, as `model`."""
        findings = guarded("the model's outputs", lambda: audit_model(self.probe))
        if any(each.code == "not-finite" for each in findings):
            return findings
        # A model that epsbench has trained was trained on images as it is given here.
        images = None if self._made.trained else labelled(self.probe, self._made.data, logits, labels)
        findings += guarded("the normalisation", lambda: audit_normalisation(self.probe, images, self.shape))
        gradient = self._clean_gradient = self._gradient()
        if gradient is not None:
            self.shares["float32"] = zero_share(gradient)
            findings += broken_gradients(gradient)
            findings += guarded(
                "the model's gradients",
                lambda: audit_gradients(self.probe, gradient, self.probe.logits_at(self.probe.x)),
            )
            findings += guarded("pixels at 0 and 1", lambda: audit_bounds(self.probe, gradient))
        self._memory.outputs, self._memory.shares = list(findings), self.shares
        if self._identity and not failed(findings):
            remember(self._identity, self._memory)
        return findings

    def _recall(self) -> None:
        """Take over the findings of an earlier call about this model, where it still answers as then."""
        known = recall(self._identity) if self._identity else None
        if known is not None:
            gradient = self._clean_gradient = self._gradient()
            if known.answers_alike(self.probe, points(self.probe, gradient)):
                self._memory, self._recalled, self.shares = known, True, known.shares
                self._own_attacks = OwnAttacks(self.probe, self._made.train, known)
                self._constructed = ConstructedExamples(known)

    def in_depth(self, victim: Victim, replayed: Replayed | None = None) -> list[Finding]:
        """Audit once what only shows on moved images: is the model one function, with the gradient of its outputs?

        It takes some thousands of passes, so a run asks only where some images withstand an attack. The findings join
        those of the model. ``replayed`` are adversarial images of an attack on it.
        """
        if self._in_depth_done or voids(self.findings):
            return []
        self._in_depth_done = True
        form = f"{victim.form} {victim.precision}"
        if self._recalled and form in self._memory.in_depth:
            self.probe.forget()
            self.findings += self._memory.in_depth[form]
            return list(self._memory.in_depth[form])
        with self._timed():
            gradient = self._clean_gradient if self._clean_gradient is not None else self._gradient()
            findings, self._memory.places = audit_in_depth(self.probe, victim, gradient, self._made, replayed)
        self._clean_gradient = None
        self.probe.forget()
        if not failed(findings):
            self._memory.in_depth[form] = list(findings)
        self.findings += findings
        return findings

    def _gradient(self) -> Tensor | None:
        """The float32 gradient at the probe, or None where the model cannot be differentiated."""
        try:
            return self.probe.gradient(self.probe.x, self.probe.y)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            return None  # the victim's findings say so: `epsbench.harness.run.speed.prepare`

    def precision(self, victim: Victim, precision: str) -> float:
        """The share of probed images whose gradient is 0 in this precision."""
        with self._timed():
            if precision not in self.shares:
                self.shares[precision] = zero_share(self.probe.gradient_in(victim, precision))
        return self.shares[precision]

    def begin(
        self, engine: Engine, records: RecordIndex, weights: str | None, model: str, right: np.ndarray, cells: int
    ) -> None:
        """Prepare for ``cells`` cells, and recall earlier records of the model with these ``weights`` (SHA-256).

        ``model`` is its `epsbench.harness.plan.recorded.model_key`, and ``right`` (n,) its verdict on the clean test
        images.
        """
        with self._timed():
            if self.shares:
                self.findings += guarded("gradients in low precision", lambda: self._in_precision(engine.victim))
            if weights:
                self._history.recall(records.of_weights(weights), right, model)
        self._shared, self.seconds = self.seconds / max(1, cells), 0.0

    def _in_precision(self, victim: Victim) -> list[Finding]:
        self.precision(victim, victim.precision)
        return []

    def cell(self, engine: Engine, attack: Attack, outcome: Outcome, clean_loss: np.ndarray) -> list[Finding]:
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
            findings += guarded("the parts of the attack", lambda: audit_ensemble(attack, outcome, self.shape.classes))
            findings += guarded("the attack", lambda: audit_outcome(outcome, clean_loss if engine.white_box else None))
            findings += self._nearer_images(engine, attack, outcome)
            if engine.white_box and not voids(findings):
                findings += self._one_more_step(engine, attack, outcome)
        return findings

    def _one_more_step(self, engine: Engine, attack: Attack, outcome: Outcome) -> list[Finding]:
        """Whether the attack has converged. The same images of the same attack are asked about once."""
        victim = engine.victim
        chosen = stepped(outcome, engine.batch)
        at = engine.targets.index[chosen.to(engine.targets.index.device)]
        key = digest_of(attack, outcome.eps, victim.form, victim.precision, at, outcome.images[chosen])
        return self._once(
            key, "one more step", lambda: audit_convergence(attack, outcome, victim, engine.targets, chosen)
        )

    def _nearer_images(self, engine: Engine, attack: Attack, outcome: Outcome) -> list[Finding]:
        """Whether the attack missed images of other classes. The distances of a run are those of every ε."""
        distances, targets = outcome.distances, engine.targets
        if distances is None:
            return []
        key = digest_of(attack, targets.index, torch.from_numpy(distances))
        return self._once(key, "other images", lambda: audit_other_images(attack.norm, distances, targets))

    def _once(self, key: str, what: str, audit: Callable[[], Iterable[Finding]]) -> list[Finding]:
        """The findings of an audit that is made once for a ``key``, unless it raised."""
        known = self._memory.there
        if key not in known:
            findings = guarded(what, audit)
            if failed(findings):
                return findings
            known[key] = findings
        return known[key]

    def doubt(self, engine: Engine, attack: Attack, outcome: Outcome) -> list[Finding]:
        """Look closer where images withstand an attack that asks the model: `in_depth`, and attacks of the audits' own.

        The latter are tried once a norm and ε. Their findings are of the model, whatever the attack of the cell.
        """
        asks = outcome.forwards + outcome.gradients > 0
        if engine.victim.random:  # those audits compare a model with itself, which a random one does not equal
            return []
        if not asks or not outcome.eps or float((~outcome.fooled).mean()) < ROBUST_ON:
            return []
        replayed = Replayed.of(engine.targets, outcome)
        with global_state_kept():  # what the model draws here, or sets, must not reach the next cell
            findings = self.in_depth(engine.victim, replayed)
            with self._timed():
                if replayed:
                    findings += guarded("verdicts", lambda: audit_replay(self.probe, self._made.original, replayed))
                if self.shares and not voids(findings):
                    findings += self._by_attacks(engine, attack, outcome, replayed)
                # Also where the cell is void already: a model that changes has made the other findings.
                if self._before is not None:
                    findings += guarded("the model as before", partial(audit_as_before, self.probe, self._before))
        return findings

    def constructed(self, attack: Attack) -> dict[str, Any]:
        """What the binarisation test of this attack gave, or why it was not made; empty where it was not due."""
        return self._constructed.counts(attack)

    def _by_attacks(self, engine: Engine, attack: Attack, outcome: Outcome, replayed: Replayed | None) -> list[Finding]:
        """Findings of the audits' own attacks, and of the cell's attack on constructed examples."""
        if any(each.code == "at-chance" for each in self.findings):  # what it withstands means nothing anyway
            return []
        attacked, targets = Attacked(engine.victim, self.probe.batch), engine.targets
        return [
            *self._own_attacks.findings(attacked, targets, attack.norm.name, outcome, replayed),
            *self._constructed.findings(self.probe.judge.network, attack, targets, float(outcome.eps)),
        ]

    def among(self, seen: Seen) -> list[Finding]:
        """Findings about one cell compared with the earlier ones of its model."""
        with self._timed():
            return guarded("cells of one model", lambda: self._history.compare(seen))

    def charge(self) -> float:
        """Seconds of audits for one cell's record: those since the last call, and its share of those of the model."""
        own, self.seconds = self.seconds, 0.0
        return own + self._shared

    def _zero_gradients(self, engine: Engine) -> Iterator[Finding]:
        if not self.shares:
            return
        precision, zero = engine.victim.precision, engine.clean.zero
        shares = self.shares | ({precision: float(zero.mean())} if zero is not None else {})
        yield from zero_gradients(shares, precision)

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
