"""scikit-learn's scanned digits, 8×8."""

from __future__ import annotations

from pathlib import Path

import torch

from epsbench.harness.plan.data import DataDescription
from epsbench.harness.run.data.readers.source import Stored


def read(description: DataDescription, root: Path) -> tuple[Stored, None]:
    """Images (1797, 1, 8, 8) with grey levels 0 to 16, and labels (1797,). They are part of scikit-learn."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images).to(torch.uint8).unsqueeze(1)
    return (images, torch.from_numpy(digits.target).to(torch.int64)), None
