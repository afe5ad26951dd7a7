"""Checks of every cell's number. One that voids says: this number means nothing; the rest stand beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.records import Finding
from harness.run.ledger import Outcome

# float32 rounding of x + δ moves a pixel by at most 6e-8; projections under L2 sum many of those.
TOLERANCE = 1e-5


def audit_model(logits: Tensor, again: Tensor) -> list[Finding]:
    """Findings about a classifier from two passes of the judge over the same images, (N, classes) each."""
    return [*_not_finite(logits), *_not_deterministic(logits, again), *_probabilities(logits)]


def audit_outcome(outcome: Outcome, clean_loss: np.ndarray) -> list[Finding]:
    """Findings about one attack at one ε; ``clean_loss`` (n,) is the judge's cross-entropy before it."""
    if not outcome.attacked.any():
        return []
    return [*_images_not_finite(outcome), *_outside(outcome), *_no_op(outcome, clean_loss)]


def voids(findings: list[Finding]) -> bool:
    """Whether any of these findings voids the cell."""
    return any(finding.severity == "void" for finding in findings)


def _void(code: str, message: str, **evidence: Any) -> Finding:
    return Finding(code=code, severity="void", message=message, evidence=evidence)


def _warning(code: str, message: str, **evidence: Any) -> Finding:
    return Finding(code=code, severity="warning", message=message, evidence=evidence)


def _not_finite(logits: Tensor) -> Iterator[Finding]:
    broken = int((~logits.isfinite().all(1)).sum())
    if broken:
        yield _void("not-finite", f"the model's logits are NaN or infinite on {broken} clean images", images=broken)


def _not_deterministic(logits: Tensor, again: Tensor) -> Iterator[Finding]:
    changed = int((logits.argmax(1) != again.argmax(1)).sum())
    largest = float((logits - again).abs().max())
    if largest > 1e-3 * float(logits.abs().max()) or changed:
        yield _void(
            "not-deterministic",
            "two passes over the same images differ: dropout, batch norm in train mode or a random transform is on; "
            "switch it off in evaluation mode",
            largest_difference=largest,
            changed_predictions=changed,
        )


def _probabilities(logits: Tensor) -> Iterator[Finding]:
    if bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < 1e-4).all()):
        yield _void(
            "probabilities",
            "the model's outputs are probabilities, not logits: a second softmax flattens every gradient; "
            "return what the last linear layer returns",
        )


def _images_not_finite(outcome: Outcome) -> Iterator[Finding]:
    broken = int((~np.isfinite(outcome.size[outcome.attacked])).sum())
    if broken:
        yield _void("not-finite", f"{broken} adversarial images hold NaN or infinity", images=broken)


def _outside(outcome: Outcome) -> Iterator[Finding]:
    farthest = float(np.nanmax(outcome.size, initial=0.0))
    if farthest > float(outcome.eps) + TOLERANCE:
        yield _void(
            "outside-ball", f"a perturbation of size {farthest:.6g} at ε = {float(outcome.eps):.6g}", size=farthest
        )
    low, high = float(np.nanmin(outcome.low, initial=0.0)), float(np.nanmax(outcome.high, initial=1.0))
    if low < -TOLERANCE or high > 1 + TOLERANCE:
        yield _void("outside-box", f"adversarial pixels reach from {low:.6g} to {high:.6g}", low=low, high=high)


def _no_op(outcome: Outcome, clean_loss: np.ndarray) -> Iterator[Finding]:
    if outcome.eps == 0:
        return
    if not np.nanmax(outcome.size, initial=0.0) > 0:
        yield _void("no-op", "the attack returned the clean images", images=int(outcome.attacked.sum()))
    elif not np.nanmean(outcome.loss - clean_loss) > 0:
        rise = float(np.nanmean(outcome.loss - clean_loss))
        yield _warning("no-ascent", f"the attack did not raise the mean loss (change {rise:.3g})", change=rise)


def zero_gradients(gradients: torch.Tensor) -> list[Finding]:
    """A warning when many examples have a gradient of exactly 0, where sign(0) = 0 would pass for robust."""
    share = float((gradients.flatten(1).abs().amax(1) == 0).float().mean())
    if share <= 0.01:
        return []
    message = f"{share:.1%} of the examples have a gradient of exactly 0: the model may mask its gradients"
    return [_warning("zero-gradient", message, share=share)]
