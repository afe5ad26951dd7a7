"""Finds models that answer differently when pixels move by almost nothing, off the grid of stored images.

Stored pixels are multiples of 1/255. A model that looks at their last bits can be another one under attack.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.audits.points import changed, random_signs, spread
from epsbench.harness.run.audits.probe import Probe

SIZES = (1e-5, 1e-4, 1e-3, 1 / 510)  # of the moves; rounding is below 1e-7, and half a level of a byte is the last
JUMPS = 0.1  # of the spread of the logits
SHARE, FEWEST = 0.1, 16  # of the images; with fewer images there is no finding
FIRST = 16  # images that are moved first, each by one of the sizes; where one jumps, all are moved by every size


def audit_off_grid(probe: Probe, moved: Mapping[str, Tensor]) -> Iterator[Finding]:
    """Move each of the ``moved`` images, by name, in random signs: logits must not jump.

    The sizes take turns on some images first. Where one of these jumps, each size is tried on all images.
    """
    for name, x in moved.items():
        if len(x) < FEWEST:
            return
        logits = probe.logits_at(x)
        limit = JUMPS * spread(logits)
        sizes = x.new_tensor(SIZES)[torch.arange(FIRST, device=x.device) % len(SIZES)].view(-1, 1, 1, 1)
        if not changed(_moved(probe, x[:FIRST], sizes, 10), logits[:FIRST], limit):
            continue
        for number, size in enumerate(SIZES):
            rows = changed(_moved(probe, x, size, 10 + number), logits, limit)
            if rows >= SHARE * len(x):
                fact = f"moving pixels by {size:.2g} changes the logits of {rows} of {len(x)} images ({name})"
                yield finding("off-grid", fact, size=size, images=rows, of=len(x), where=name)
                return


def _moved(probe: Probe, x: Tensor, size: Tensor | float, seed: int) -> Tensor:
    """Logits (N, classes) of images moved by ``size``."""
    return probe.logits((x + size * random_signs(x, seed)).clamp(0, 1))
