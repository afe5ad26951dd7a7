"""The classes and confidences in records agree with the verdicts, whatever kind of attack or curve gave them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from epsbench.harness.options import Options
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.records import find_record
from epsbench.harness.run.data.load import load_data
from epsbench.harness.run.runner import run_suite

SUITE = """
[robustness]
data = "digits"
{curve}
training = {{ epochs = 2 }}
test_images = 120
[robustness.matrix]
model = "smallcnn"
attack = {attacks}
eps = [0.05, 0.15]
"""
SINGLE = '["noise", "fgsm", { name = "pgd", steps = 3, random_start = true }]'
OTHERS = """[{ name = "fmn", steps = 5 },
    { name = "ensemble", parts = [{ name = "fgsm" }, { name = "pgd", steps = 2 }] }]"""


@pytest.mark.parametrize(
    ("curve", "attacks"),
    [("", SINGLE), ('curve = "nested"', SINGLE), ('curve = "bisect"', SINGLE), ("", OTHERS)],
    ids=["each", "nested", "bisect", "smallest and ensemble"],
)  # fmt: skip
def test_classes_agree_with_verdicts_and_labels(tmp_path, curve, attacks):
    (tmp_path / "suite.toml").write_text(SUITE.format(curve=curve, attacks=attacks))
    suite = load_suite(str(tmp_path / "suite.toml"))
    assert run_suite(suite, tmp_path / "out", Options(quiet=True, device="cpu", weights=tmp_path / "weights")) == 0
    data = load_data("digits", None, torch.device("cpu"))
    for cell in suite.cells:
        record = find_record(tmp_path / "out", cell.id)
        answers, (clean, robust) = record.predictions.unpack(), record.verdicts.unpack()
        assert record.predictions.classes == 10
        np.testing.assert_array_equal(answers.labels, data.test.labels[:120].numpy())
        np.testing.assert_array_equal(answers.clean == answers.labels, clean)
        np.testing.assert_array_equal(answers.adversarial == answers.labels, robust)
        assert not np.isnan(answers.clean_confidence).any()
        # An image that is wrong as it is was not attacked.
        np.testing.assert_array_equal(answers.adversarial[~clean], answers.clean[~clean])
        known = ~np.isnan(answers.adversarial_confidence)
        assert (answers.adversarial_confidence[known] >= 0.1 - 0.005).all()  # the largest of ten
        if not curve and cell.attack.name != "fmn":
            assert known.all()
        else:
            assert known[clean & ~robust].all()  # what fooled was judged
