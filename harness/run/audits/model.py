"""Checks of a classifier's outputs: every attack needs a fixed function from pixels to logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.audits.inner_gradients import audit_inner_gradients
from epsbench.harness.run.audits.points import differences, spread
from epsbench.harness.run.audits.probe import Probe
from epsbench.harness.run.audits.votes import audit_votes
from epsbench.harness.statistics import mcnemar_exact
from epsbench.models.base import DataShape
from epsbench.models.layers import CopiesInput

# Logits vary if they differ by more than this share of the largest. Kernels for another batch size round differently,
# by 1e-6 to 1e-5 of it.
VARIES = 1e-3
# Images and passes. If a model draws one of two transforms for each batch, all 8 passes agree once in 128 runs.
FEW, PASSES = 4, 8
BETTER, SIGNIFICANT = 0.2, 0.01  # the gain in accuracy, and its p-value, when a normalisation is undone or added
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def audit_model(probe: Probe, shape: DataShape, trained: bool = False) -> list[Finding]:
    """Findings about the probed classifier. If its logits are not finite, nothing else is checked.

    ``trained``: epsbench has trained it, so on images as it is given here.
    """
    logits = probe.logits_at(probe.x)
    broken = list(not_finite(logits))
    if broken:
        return broken
    return [
        *(audit_votes(probe) if probe.judge.random else _not_a_function(probe, logits)),
        *_probabilities(logits),
        *_normalisation(probe, logits, shape, trained),
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
    if isinstance(module, _BATCH_NORMS):
        return module.training or module.running_mean is None
    return isinstance(module, _DROPOUTS) and module.training and module.p > 0


def _probabilities(logits: Tensor) -> Iterator[Finding]:
    if bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < 1e-4).all()):
        yield finding("probabilities", "the model's outputs are not negative and add up to 1", images=len(logits))


def _normalisation(probe: Probe, logits: Tensor, shape: DataShape, trained: bool) -> Iterator[Finding]:
    layers = _normalised_again(probe)
    if layers:
        fact = f"the layer {layers[0]} normalises an input that is no longer within [0, 1]"
        yield finding("normalised-twice", fact, layers=len(layers))
        return
    right = logits.argmax(1) == probe.y
    wrong = (~right).nonzero().flatten()
    if trained or len(wrong) <= BETTER * len(right):
        return  # no other normalisation can gain so much
    for mean, std in _statistics(shape):
        m, s = (torch.tensor(v, device=probe.x.device).view(1, -1, 1, 1) for v in (mean, std))
        for code, x in (("normalised-twice", probe.x * s + m), ("not-normalised", (probe.x - m) / s)):
            # Images that are right can only be lost, so they matter where enough of the others are gained.
            if int((probe.logits(x[wrong]).argmax(1) == probe.y[wrong]).sum()) <= BETTER * len(right):
                continue
            better = probe.logits(x).argmax(1) == probe.y
            if int(better.sum()) <= int(probe.y.bincount().max()):
                continue  # no better than one answer for all images, which is much where one class is frequent
            gained, lost = int((better & ~right).sum()), int((right & ~better).sum())
            if gained - lost > BETTER * len(right) and mcnemar_exact(gained, lost) < SIGNIFICANT:
                before, after = float(right.float().mean()), float(better.float().mean())
                undone = "un-normalised" if code == "normalised-twice" else "normalised"
                fact = f"accuracy is {before:.1%} on pixels and {after:.1%} on pixels {undone} once more"
                yield finding(code, fact, accuracy=before, accuracy_then=after, mean=list(mean), std=list(std))
                return


def _statistics(shape: DataShape) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    """The means and standard deviations that such images are commonly normalised with."""
    colour = [IMAGENET] if shape.shape[0] == 3 else []
    return [(shape.mean, shape.std), *colour]


def _normalised_again(probe: Probe) -> list[str]:
    """Names of layers with a mean and a std per channel whose input is not within [0, 1].

    A normalisation written as arithmetic in ``forward`` is not a layer and is not seen here.
    """
    channels, seen = probe.x.shape[1], []

    def look(name: str, inputs: tuple[object, ...]) -> None:
        x = inputs[0] if inputs else None
        if isinstance(x, Tensor) and x.dim() == 4 and x.shape[1] == channels and (x.min() < -0.02 or x.max() > 1.02):
            seen.append(name)

    with ExitStack() as hooks:
        candidates = [(name, m) for name, m in probe.judge.network.named_modules() if _is_normaliser(m, channels)]
        if len(candidates) < 2:
            return []
        for name, module in candidates:
            handle = module.register_forward_pre_hook(lambda module, inputs, name=name: look(name, inputs))
            hooks.callback(handle.remove)
        probe.logits(probe.x[:8])
    return list(dict.fromkeys(seen))


def _is_normaliser(module: nn.Module, channels: int) -> bool:
    """Whether this module has a ``mean`` and a ``std`` of one number a channel, as ours and torchvision's do."""
    if next(module.parameters(), None) is not None:
        return False
    parts = [getattr(module, name, None) for name in ("mean", "std")]
    sizes = [part.numel() if isinstance(part, Tensor) else len(part) if isinstance(part, list | tuple) else 0
             for part in parts]  # fmt: skip
    return all(size in {1, channels} for size in sizes)
