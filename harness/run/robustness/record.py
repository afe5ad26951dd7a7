"""The record of a robustness cell."""

from __future__ import annotations

import numpy as np

from epsbench.harness.records import Metric
from epsbench.harness.run.metrics import proportion

PICTURES = 8


def _metrics(right: np.ndarray, robust: np.ndarray, fooled: np.ndarray) -> dict[str, Metric]:
    metrics = {"clean_accuracy": proportion(right), "robust_accuracy": proportion(robust)}
    if len(fooled):
        metrics["attack_success_rate"] = proportion(fooled)
    return metrics
