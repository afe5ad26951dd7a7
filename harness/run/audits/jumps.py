"""Finds logits that jump between images that are nearly the same: such a model switches, rounds, or has a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.audits.points import spread
from epsbench.harness.run.audits.probe import Probe

HALVINGS = 16  # of a way of 0.1: its last part is 2e-6 long, well above float32 rounding
JUMPS = 0.1  # of the spread of the logits
SHARE, FEWEST = 0.25, 16  # of the images; with fewer images there is no finding


def audit_jumps(probe: Probe, moved: Mapping[str, Tensor]) -> Iterator[Finding]:
    """Halve the way from each probed image to its ``moved`` one, where the logits change more, until it is tiny.

    A continuous function changes less and less on the way; one that jumps does not. An image leaves where a half
    changes no more than what counts as a jump.
    """
    if len(probe.x) < FEWEST:
        return
    for name, x in moved.items():
        if x is probe.x:  # no way leads there
            continue
        start, end = probe.x, x
        at_start, at_end = probe.logits_at(start), probe.logits_at(end)
        limit = JUMPS * spread(torch.cat([at_start, at_end]))
        for _ in range(HALVINGS):
            middle = (start + end) / 2
            between = probe.logits(middle)
            first = _change(at_start, between) >= _change(between, at_end)
            image, row = first.view(-1, 1, 1, 1), first[:, None]
            start, end = torch.where(image, start, middle), torch.where(image, middle, end)
            at_start, at_end = torch.where(row, at_start, between), torch.where(row, between, at_end)
            left = _change(at_start, at_end) > limit
            start, end, at_start, at_end = start[left], end[left], at_start[left], at_end[left]
            if len(start) < SHARE * len(x):
                break
        else:
            rows = len(start)
            length = float((end - start).abs().max())
            fact = f"on the way of {rows} of {len(x)} images ({name}) the logits jump within {length:.1g}"
            yield finding("discontinuous", fact, images=rows, of=len(x), where=name, length=length)
            return


def _change(a: Tensor, b: Tensor) -> Tensor:
    """The largest difference of a logit, (N,)."""
    return (a - b).abs().amax(1)
