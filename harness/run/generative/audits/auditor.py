"""Runs the audits of one generative model before and after it is measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import torch

from epsbench.harness.findings import Finding, voids
from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.generative.apart import Apart
from epsbench.harness.run.generative.audits.degenerate import audit_degenerate, audit_narrow
from epsbench.harness.run.generative.audits.gradient import audit_gradient
from epsbench.harness.run.generative.audits.memory import audit_copies, audit_splits
from epsbench.harness.run.generative.audits.normalisation import audit_normalisation
from epsbench.harness.run.generative.audits.order import audit_order, audit_own_loss
from epsbench.harness.run.generative.audits.prior import audit_marginal, audit_prior
from epsbench.harness.run.generative.audits.same_answers import audit_same_answers
from epsbench.harness.run.generative.evaluate import Subject
from epsbench.harness.run.generative.measured import Measured
from epsbench.harness.run.generative.parts import Parts
from epsbench.harness.run.generative.witness import Witness
from epsbench.harness.run.guard import guarded
from epsbench.models.vae import VAENetwork, quantise

FIRST_LOOK, AT_ONCE = 32, 4  # test images, and how many of them are encoded and decoded together
NO_FUNCTION = frozenset({"not-deterministic", "batch-dependent"})


class Auditor:
    """Audits of one cell. ``findings`` are all of them so far, and ``seconds`` is the time that they took."""

    def __init__(self, vae: VAENetwork, data: Data, apart: Apart) -> None:
        """``vae`` is the trained model itself, and ``apart`` a copy of it from before it was measured."""
        self.findings: list[Finding] = []
        self.seconds = 0.0
        self._vae, self._data, self._apart = vae, data, apart

    @property
    def void(self) -> bool:
        """Whether a finding voids the cell."""
        return voids(self.findings)

    def before(self, subject: Subject) -> None:
        """Whether the model's parts give numbers that can be measured at all."""
        subject.witness.measure = "first look"
        self._audit("the model's parts", lambda: audit_degenerate(subject.vae, self._data.test))

    def after(self, subject: Subject, measured: Measured) -> None:
        """Everything else. The other process is asked first, before the audits show the model more images."""
        vae, each, data, seed = subject.vae, measured.each, self._data, subject.seed
        self._audit("the model in another process", lambda: audit_same_answers(subject.witness, self._apart))
        if not (vae.deterministic or any(each.code == "degenerate-posterior" for each in self.findings)):
            self._audit("the widths of posteriors", lambda: audit_narrow(subject.witness))
        if not any(each.code in NO_FUNCTION for each in self.findings):
            self._audit("normalisation", lambda: audit_normalisation(vae, data.test))
            self._audit("the decoder's gradient", lambda: audit_gradient(vae, data.test, seed))
        self._audit("the order of the bounds", lambda: audit_order(each))
        self._audit("the model's own elbo()", lambda: audit_own_loss(self._vae, vae, data.test, each, seed))
        self._audit("the marginal KL", lambda: audit_marginal(measured.metrics.get("marginal_kl_nats")))
        self._audit("the prior", lambda: audit_prior(vae, data.test, seed))
        self._audit("the splits of the data", lambda: audit_splits(each, data))
        self._audit("memorised images", lambda: audit_copies(vae, data, seed))

    def failed(self, subject: Subject) -> None:
        """Whether a model raised while it was measured because its parts are no functions of their input."""
        witness = Witness(subject.seed)
        witness.measure = "first look"
        parts, test = Parts(self._vae, subject.vae.shape, witness), self._data.test

        def audit() -> Iterable[Finding]:
            with torch.no_grad():
                for start in range(0, min(FIRST_LOOK, len(test)), AT_ONCE):
                    images = test.pixels(slice(start, min(start + AT_ONCE, len(test))))
                    parts.decoder(parts.encode(quantise(images, parts.levels))[0])
            return audit_same_answers(witness, self._apart)

        self._audit("the model in another process", audit)

    def _audit(self, name: str, audit: Callable[[], Iterable[Finding]]) -> None:
        began = time.perf_counter()
        self.findings += guarded(name, audit)
        self.seconds += time.perf_counter() - began
