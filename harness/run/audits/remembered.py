"""What the audits found of a model in an earlier call of this process, so that a second call does not find it again.

It is taken over for the same weights and code on the same images and data, and only where the model still gives the
same logits at the places where it was audited: at clean images, at random signs, and one gradient step away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from epsbench.attacks.base import Attack
from epsbench.harness.findings import Finding
from epsbench.harness.run.audits.points import changed, spread
from epsbench.harness.run.audits.probe import Probe
from epsbench.harness.run.machine.recent import Recent

MODELS = 8  # the last ones are remembered
DIFFERS = 1e-4  # of the spread of the logits; the same model computes the same up to rounding


@dataclass
class Remembered:
    """The audits of one model. Of images it holds digests alone, and no model."""

    outputs: list[Finding] = field(default_factory=list)
    """Findings about its outputs and gradients."""

    shares: dict[str, float] = field(default_factory=dict)
    """The shares of probed images whose gradient is 0, by precision."""

    places: dict[str, Tensor] = field(default_factory=dict)
    """Its logits (N, classes) at the places of the audits in depth, by name; empty before those."""

    in_depth: dict[str, list[Finding]] = field(default_factory=dict)
    """Findings of the audits in depth, by the form and the precision that was attacked."""

    tried: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """For an attack of the audits' own on some images (N,): which of them were attacked, and which it fools.
    Besides, how far steps on the margin have come, twice."""

    constructed: dict[tuple[Attack, str], tuple[list[Finding], dict[str, Any]]] = field(default_factory=dict)
    """The binarisation test, by attack, and ε with images."""

    there: dict[str, list[Finding]] = field(default_factory=dict)
    """Findings at adversarial images, by a digest of form, attack and images."""

    def answers_alike(self, probe: Probe, moved: Mapping[str, Tensor]) -> bool:
        """Whether the model gives the same logits as then at the ``moved`` images, by name."""
        if self.places.keys() != moved.keys():
            return False
        for name, expected in self.places.items():
            logits = probe.logits_at(moved[name])
            if logits.shape != expected.shape or changed(logits, expected, DIFFERS * spread(expected)):
                return False
        return True


_MODELS = Recent[Remembered](MODELS)
recall, remember = _MODELS.recall, _MODELS.remember


def failed(findings: Iterable[Finding]) -> bool:
    """Whether an audit raised: another call may find what it did not, so nothing is remembered."""
    return any(each.code == "audit-failed" for each in findings)


def digest_of(*parts: object) -> str:
    """A digest of texts, numbers and tensors."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, Tensor):
            digest.update(f"{part.dtype} {tuple(part.shape)}".encode())
            digest.update(part.detach().contiguous().flatten().view(torch.uint8).cpu().numpy().data)
        else:
            digest.update(f"{part!r};".encode())
    return digest.hexdigest()
