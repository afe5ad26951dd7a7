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
from epsbench.harness.run.audits.points import spread
from epsbench.harness.run.audits.probe import Probe

DIFFERS = 0.02  # of the spread of the logits: the loss of other kernels may differ by so much
IMAGES = 64  # at most; a cell may keep those of all its images
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
    """Judge the images again, in reverse order, unattended, and by a copy that saw nothing else.

    ``original`` is the user's own model. The recorded loss must come out, for what was recorded is what was measured.
    """
    x, y = replayed.x, replayed.y
    ways: list[tuple[str, Call]] = [
        ("in reverse order", lambda images: probe.logits(images.flip(0)).flip(0)),
        ("in a thread of its own", calls.in_thread(probe.judge.network)),
    ]
    if original is not None and not any(each.dtype in _HALF for each in original.parameters()):
        ways.append(("by a copy that saw no other image", calls.fresh(original)))
    for how, call in ways:
        logits = call(x)
        differs = (F.cross_entropy(logits, y, reduction="none") - replayed.loss).abs() > DIFFERS * spread(logits)
        rows = int(differs.sum())
        if rows >= FEWEST:
            fact = f"judged again {how}, {rows} of {len(x)} adversarial images have another loss than the recorded one"
            yield finding("verdict-not-repeated", fact, images=rows, of=len(x), call=how)
            return
