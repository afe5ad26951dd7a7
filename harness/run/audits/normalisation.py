"""Finds pixels that are normalised twice, and a normalisation that was left out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.audits.model import BATCH_NORMS
from epsbench.harness.run.audits.points import some_of
from epsbench.harness.run.audits.probe import Probe
from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.metrics import share_of
from epsbench.harness.statistics import mcnemar_exact
from epsbench.models.base import DataShape
from epsbench.models.hub import IMAGENET_MEAN, IMAGENET_STD

IMAGES, PIXELS = 512, 2**23  # at most so many, to be classified with one normalisation more and one less
FIRST = 64  # of those that are wrong: the rest is asked about where half of the gain shows on them
SEEN = 32  # whose values before the first batch norm are compared with its statistics
# A gain in accuracy that is worth a remark: so many points, and half of all errors or half as many right again; and its
# p-value. Contrast alone changes that of an honest model by less: one that was trained for an epoch gains a third.
GAIN, OF_ERRORS, OF_RIGHT, SIGNIFICANT = 0.03, 1 / 2, 1 / 2, 0.01
# Mean KL divergence, in nats a channel, of a batch norm's input from its statistics, which is near 0 on images as those
# that it was trained on. Above MISFIT, and so many times smaller with another normalisation, any gain is enough.
MISFIT, FITS_BETTER = 0.25, 4.0


@dataclass(frozen=True)
class Labelled:
    """Test images that the model has classified: pixels (n, C, H, W), labels (n,), logits (n, classes)."""

    x: Tensor
    y: Tensor
    logits: Tensor


def labelled(probe: Probe, data: Data | None, logits: Tensor | None, labels: Tensor | None) -> Labelled:
    """Some of the test images whose ``logits`` (n, classes) and ``labels`` (n,) are known, else the probed ones."""
    if data is None or logits is None or labels is None:
        return Labelled(probe.x, probe.y, probe.logits_at(probe.x))
    most = max(FIRST, min(IMAGES, PIXELS // probe.x[0].numel()))  # few of large images: they are all in memory
    at = some_of(len(logits), most, logits.device)
    return Labelled(data.test.pixels(at), labels[at], logits[at])


def audit_normalisation(probe: Probe, images: Labelled | None, shape: DataShape) -> Iterator[Finding]:
    """A finding where two layers normalise, or where the model is better with one normalisation more or less.

    The latter is tried on ``images``; None: it is not.
    """
    layers = _normalised_again(probe)
    if layers:
        fact = f"the layer {layers[0]} normalises an input that is no longer within [0, 1]"
        yield finding("normalised-twice", fact, layers=len(layers))
        return
    if images is None or bool((right := images.logits.argmax(1) == images.y).all()):
        return
    misfit = _misfit(probe, images.x)
    for mean, std in _statistics(shape):
        m, s = (torch.tensor(v, device=images.x.device).view(1, -1, 1, 1) for v in (mean, std))
        for code, undone, x in (
            ("normalised-twice", "un-normalised", images.x * s + m),
            ("not-normalised", "normalised", (images.x - m) / s),
        ):
            better = _better(probe, images, right, x, misfit)
            if better is None:
                continue
            before, after = share_of(right), share_of(better)
            fact = f"accuracy is {before:.1%} on pixels and {after:.1%} on pixels {undone} once more"
            evidence = {"accuracy": before, "accuracy_then": after, "images": len(right)}
            yield finding(code, fact, **evidence, mean=list(mean), std=list(std))
            return


def _better(probe: Probe, images: Labelled, right: Tensor, x: Tensor, misfit: float) -> Tensor | None:
    """Which of the images are classified rightly as ``x`` (n, C, H, W), (n,); None where that is not clearly better.

    ``misfit`` is that of the images as they are. Images that are wrong are asked about first, and the others where
    enough of those are gained.
    """
    wrong = (~right).nonzero().flatten()
    rights, first = int(right.sum()), wrong[:FIRST]
    notable = max(GAIN * len(right), min(OF_ERRORS * len(wrong), OF_RIGHT * rights))
    needed = 1 if misfit > MISFIT else notable
    better = right.clone()
    better[first] = probe.logits(x[first]).argmax(1) == images.y[first]
    if int(better[first].sum()) / len(first) < needed / 2 / len(wrong):
        return None
    others = torch.cat([wrong[FIRST:], right.nonzero().flatten()])
    if len(others):
        better[others] = probe.logits(x[others]).argmax(1) == images.y[others]
    gained, lost = int((better & ~right).sum()), int((right & ~better).sum())
    if gained - lost < needed or int(better.sum()) <= int(images.y.bincount().max()):
        return None  # one answer for all images is as good, which is much where one class is frequent
    fits = misfit > MISFIT and _misfit(probe, x) < misfit / FITS_BETTER
    clear = gained - lost >= notable and mcnemar_exact(gained, lost) < SIGNIFICANT
    return better if fits or clear else None


def _statistics(shape: DataShape) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    """The means and standard deviations that such images are commonly normalised with."""
    halves = ((0.5,) * shape.shape[0],) * 2
    colour = [(IMAGENET_MEAN, IMAGENET_STD)] if shape.shape[0] == 3 else []
    return [(shape.mean, shape.std), *colour, halves]


def _misfit(probe: Probe, x: Tensor) -> float:
    """How far the input of the first batch norm is from its statistics, as normal distributions; 0 without one."""
    seen: list[float] = []

    def look(layer: Any, inputs: tuple[Tensor, ...]) -> None:
        if seen or layer.running_mean is None or layer.running_var is None:
            return
        values = inputs[0].detach().float().transpose(0, 1).flatten(1)
        variance = layer.running_var + layer.eps
        ratio = (values.var(1) + layer.eps) / variance
        distance = (ratio + (values.mean(1) - layer.running_mean) ** 2 / variance - 1 - ratio.log()) / 2
        seen.append(float(distance.mean()))

    norms = [each for each in probe.judge.network.modules() if isinstance(each, BATCH_NORMS)]
    if not norms:
        return 0.0
    with ExitStack() as hooks:
        for layer in norms:
            hooks.callback(layer.register_forward_pre_hook(look).remove)
        probe.logits(x[:SEEN])
    return seen[0] if seen else 0.0


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
