"""Compares the data's resize and crop with those that a pretrained model was published for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from epsbench.harness.findings import Finding, finding
from epsbench.harness.plan.cell import RobustnessCell
from epsbench.models.base import DataShape
from epsbench.models.preprocessing import differences, preprocessing_text


def audit_preprocessing(cell: RobustnessCell, training: dict[str, Any], shape: DataShape) -> Iterator[Finding]:
    """A finding where images are prepared otherwise than for the published accuracy of weights taken as they are.

    ``training`` is the record's. Weights that are trained here, or come from a file, are not the published ones.
    """
    table = training.get("preprocessing")
    trained_here = dict(cell.training)["epochs"] or cell.start is not None
    if not table or trained_here or not cell.model.as_dict().get("pretrained"):
        return
    data = {} if isinstance(cell.data, str) else cell.data.record()
    parts = differences(table, data, shape.shape[1:])
    if parts:
        fact = f"the data's {', '.join(parts)}; the model {preprocessing_text(table)}"
        yield finding("other-preprocessing", fact, differs=parts, published=table)
