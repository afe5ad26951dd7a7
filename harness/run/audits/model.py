"""Checks of a classifier's outputs: every attack needs a fixed function from pixels to logits."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.audits.inner_gradients import audit_inner_gradients
from epsbench.harness.run.audits.points import differences, spread
from epsbench.harness.run.audits.probe import Probe
from epsbench.harness.run.audits.votes import audit_votes
from epsbench.models.layers import CopiesInput

# Logits vary if they differ by more than this share of the largest. Kernels for another batch size round differently,
# by 1e-6 to 1e-5 of it.
VARIES = 1e-3
# Images and passes. If a model draws one of two transforms for each batch, all 8 passes agree once in 128 runs.
FEW, PASSES = 4, 8
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def audit_model(probe: Probe) -> list[Finding]:
    """Findings about the probed classifier. If its logits are not finite, nothing else is checked."""
    logits = probe.logits_at(probe.x)
    broken = list(not_finite(logits))
    if broken:
        return broken
    return [
        *(audit_votes(probe) if probe.judge.random else _not_a_function(probe, logits)),
        *_probabilities(logits),
        *_writes_input(probe),
        *audit_inner_gradients(probe),
    ]


def _writes_input(probe: Probe) -> Iterator[Finding]:
    if isinstance(probe.judge.network, CopiesInput):
        yield finding("writes-input", "the model changed the images of a trial in place")


def not_finite(logits: Tensor) -> Iterator[Finding]:
    """A finding if any of the logits (N, classes) of clean images is infinite or not a number."""
    broken = int((~logits.isfinite().all(1)).sum())
    if broken:
        fact = f"the model's logits are NaN or infinite on {broken} clean images"
        yield finding("not-finite", fact, images=broken, of=len(logits))


def _not_a_function(probe: Probe, logits: Tensor) -> Iterator[Finding]:
    """Do the logits of an image depend on chance, on the other images of the batch, or on its place there?"""
    scale = spread(logits)
    few = probe.x[:FEW]
    first, *others = (probe.logits(few) for _ in range(PASSES))
    again = max(_difference(each, first) for each in others)
    # Every second image, in reverse order: in another batch, at another place, in a batch of another size.
    other = _difference(probe.logits(probe.x[::2].flip(0)).flip(0), logits[::2])
    random = again > VARIES * scale + 1e-6
    if not random and other <= VARIES * scale + 1e-6:
        return
    evidence = {"between_passes": again, "between_batches": other, "largest_logit": scale}
    training = [name or "the model" for name, module in probe.judge.network.named_modules() if _varies(module)]
    if training:
        fact = f"outputs vary, and {len(training)} layers are in train mode after eval() ({', '.join(training[:3])})"
        yield finding("train-mode", fact, **evidence, layers=len(training))
    elif random:
        fact = f"passes over the same images differ by up to {again:.3g} where logits reach {scale:.3g}"
        yield finding("not-deterministic", fact, **evidence)
    else:
        fact = f"in another batch the same images' logits differ by up to {other:.3g} where logits reach {scale:.3g}"
        yield finding("batch-dependent", fact, **evidence)


def _difference(a: Tensor, b: Tensor) -> float:
    largest = torch.finfo(a.dtype).max
    return float(differences(a, b).nan_to_num(largest, largest).max())


def _varies(module: nn.Module) -> bool:
    """Whether this layer, in its present mode, computes no fixed function."""
    if isinstance(module, BATCH_NORMS):
        return module.training or module.running_mean is None
    return isinstance(module, _DROPOUTS) and module.training and module.p > 0


def _probabilities(logits: Tensor) -> Iterator[Finding]:
    if bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < 1e-4).all()):
        yield finding("probabilities", "the model's outputs are not negative and add up to 1", images=len(logits))
