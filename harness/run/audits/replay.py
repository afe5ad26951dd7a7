"""Judges adversarial images again: a verdict that does not repeat means nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.attack.ledger import Outcome
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.audits import calls
from epsbench.harness.run.audits.calls import Call
from epsbench.harness.run.audits.points import changed, spread
from epsbench.harness.run.audits.probe import Probe

DIFFERS = 0.02  # of the spread of the logits: the loss of other kernels may differ by so much
IMAGES = 64  # at most; a cell may keep those of all its images
CALLS = 200  # without an image
FEWEST = 2  # images; a single one may lie on an edge of a network that rounds inside

_HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Replayed:
    """Some adversarial images that a cell keeps, with their recorded losses."""

    x: Tensor
    """The images, (N, C, H, W)."""

    y: Tensor
    """Their labels, (N,)."""

    loss: Tensor
    """The judge's cross-entropy as it was recorded, (N,)."""

    @classmethod
    def of(cls, targets: Targets, outcome: Outcome) -> Replayed | None:
        """Those of an outcome; None where there are too few."""
        kept = np.flatnonzero(
            outcome.attacked[: len(outcome.images)] & np.isfinite(outcome.loss[: len(outcome.images)])
        )
        kept = kept[:IMAGES]
        if len(kept) < FEWEST:
            return None
        at, device = torch.from_numpy(kept), targets.labels.device
        loss = torch.from_numpy(outcome.loss[kept]).to(device)
        return cls(outcome.images[at].to(device), targets.labels[at.to(device)], loss)


def audit_replay(probe: Probe, original: nn.Module | None, replayed: Replayed) -> Iterator[Finding]:
    """Judge the images again: in reverse order and in a thread of its own, and by a copy that saw nothing else.

    ``original`` is the user's own model. The recorded loss must come out, for what was recorded is what was measured.
    """
    unattended = calls.in_thread(probe.judge.network)
    ways: list[tuple[str, Call]] = [
        ("in reverse order, in a thread of its own", lambda images: unattended(images.flip(0)).flip(0))
    ]
    if original is not None and not any(each.dtype in _HALF for each in original.parameters()):
        ways.append(("by a copy that saw no other image", calls.fresh(original)))
    for number, (how, call) in enumerate(ways):
        rows = slice(number, None, len(ways))  # no image twice
        x, y, recorded = replayed.x[rows], replayed.y[rows], replayed.loss[rows]
        if not len(x):
            continue
        logits = call(x)
        differs = int(
            ((F.cross_entropy(logits, y, reduction="none") - recorded).abs() > DIFFERS * spread(logits)).sum()
        )
        if differs >= FEWEST:
            fact = (
                f"judged again {how}, {differs} of {len(x)} adversarial images have another loss than the recorded one"
            )
            yield finding("verdict-not-repeated", fact, images=differs, of=len(x), call=how)
            return


def audit_as_before(probe: Probe, before: Tensor) -> Iterator[Finding]:
    """Compare logits (n, classes) of the first probed images, from the first call of the audits, with those of now.

    Between the two lie the attack, all audits in depth, and calls without an image, which take hardly any time. So a
    model that changes after some hundred calls shows it.
    """
    calls.count_up(probe.judge.network, probe.x, CALLS)
    now = probe.logits(probe.x[: len(before)])
    rows = changed(now, before, DIFFERS * spread(before))
    if rows >= min(FEWEST, len(before)):
        fact = f"after the attack and its audits, the logits of {rows} of {len(before)} clean images are not as before"
        yield finding("not-deterministic", fact, images=rows, of=len(before))
