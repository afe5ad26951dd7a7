"""What audits say under norms whose steepest direction is one pixel."""

from __future__ import annotations

import pytest
from lookups import RandomDecoyOfNetwork
from zoo import codes, measure

from epsbench.harness.findings import voids


@pytest.mark.parametrize(("norm", "eps"), [("l1", 5), ("l0", 8)])
def test_an_honest_model_is_not_blamed_for_a_norm_whose_step_is_one_pixel(honest, tmp_path, norm, eps):
    """One step of FGSM moves one pixel. That is the attack's weakness and no sign of masked gradients."""
    one, many = measure(honest, tmp_path, ['"fgsm"', '{ name = "pgd", steps = 10 }'], [eps], norm)
    assert one.metrics["robust_accuracy"].value > many.metrics["robust_accuracy"].value + 0.4  # what the audits see
    assert not voids([*one.findings, *many.findings])
    assert "catastrophic-overfitting" not in codes([one, many])


def test_masked_gradients_are_still_reported_under_such_a_norm(honest, tmp_path):
    records = measure(RandomDecoyOfNetwork(honest), tmp_path, ['{ name = "pgd", steps = 10 }'], [8], "l1")
    assert "score-search-beats-gradient" in codes(records)
