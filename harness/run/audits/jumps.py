"""Finds logits that jump between images that are nearly the same: such a model switches, rounds, or has a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.audits.points import differences, spread
from epsbench.harness.run.audits.probe import Probe

HALVINGS = 16  # of a way of 0.1: its last part is 2e-6 long, well above float32 rounding
JUMPS = 0.1  # of the spread of the logits
SHARE, FEWEST = 0.25, 16  # of the images; with fewer images there is no finding
FIRST = 16  # images whose ways are halved first; where half as many of these jump, those of all images are halved


def audit_jumps(probe: Probe, moved: Mapping[str, Tensor]) -> Iterator[Finding]:
    """Look for jumps on the way from each probed image to its ``moved`` one.

    A continuous function changes less and less where the way is halved again and again; one that jumps does not.
    """
    if len(probe.x) < FEWEST:
        return
    for name, x in moved.items():
        if x is probe.x:  # no way leads there
            continue
        limit = JUMPS * spread(torch.cat([probe.logits_at(probe.x), probe.logits_at(x)]))
        for count, share in ((FIRST, SHARE / 2), (len(x), SHARE)):
            rows, length = _jumps(probe, x, count, limit, share)
            if rows < share * count:
                break
        else:
            fact = f"on the way of {rows} of {len(x)} images ({name}) the logits jump within {length:.1g}"
            yield finding("discontinuous", fact, images=rows, of=len(x), where=name, length=length)
            return


def _jumps(probe: Probe, x: Tensor, count: int, limit: float, share: float) -> tuple[int, float]:
    """On how many ways to the first ``count`` images (N, C, H, W) the logits jump by ``limit``, and how far that is.

    Each way is halved, where the logits change more, until it is tiny. An image leaves where a half changes no more
    than ``limit``; the search ends where fewer than a ``share`` of them are left.
    """
    start, end = probe.x[:count], x[:count]
    at_start, at_end = probe.logits_at(probe.x)[:count], probe.logits_at(x)[:count]
    for _ in range(HALVINGS):
        middle = (start + end) / 2
        between = probe.logits(middle)
        first = differences(at_start, between) >= differences(between, at_end)
        image, row = first.view(-1, 1, 1, 1), first[:, None]
        start, end = torch.where(image, start, middle), torch.where(image, middle, end)
        at_start, at_end = torch.where(row, at_start, between), torch.where(row, between, at_end)
        left = differences(at_start, at_end) > limit
        start, end, at_start, at_end = start[left], end[left], at_start[left], at_end[left]
        if len(start) < share * count:
            return len(start), 0.0
    return len(start), float((end - start).abs().max())
