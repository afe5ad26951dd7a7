"""The table of corrupted images: every model's accuracy by kind, also under attacks."""

from __future__ import annotations

from pathlib import Path

import factory
import numpy as np

from epsbench.harness.report.results.loading import Results
from epsbench.harness.report.robustness.corruptions import corruption_tables

FGSM = {"name": "fgsm"}
N = 10


def right(k: int) -> np.ndarray:
    return np.arange(N) < k


def rows(*under: dict) -> list[list[str]]:
    """The table's texts, of a model whose 9 and then 8, 7, … of 10 images are right under these cells' attacks."""
    fog = {"name": "fog", "severity": 3}
    records = [
        factory.robustness(right(9), right(9 - at), corruption=fog, **{"attack": FGSM, "eps": "0.1"} | axes)
        for at, axes in enumerate(({"attack": {"name": "none"}, "eps": "0"}, *under))
    ]
    (table,) = corruption_tables(Results(Path("results"), tuple(records), ()))
    return [[entry.text for entry in row] for row in table.rows]


def test_norms_have_rows_of_their_own():
    (clean, linf, l2) = rows({"norm": "linf"}, {"norm": "l2"})
    assert [clean[-1], linf[-1], l2[-1]] == ["90.0 %", "80.0 %", "70.0 %"]
    assert any("L∞" in text for text in linf)
    assert any("L2" in text for text in l2)


def test_one_norm_is_not_named():
    (_, one) = rows({"norm": "linf"})
    assert not any("L∞" in text for text in one)
