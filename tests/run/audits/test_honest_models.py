"""Not one false alarm: honest models of many kinds under every built-in attack. Untrained ones are at chance."""

from __future__ import annotations

import pytest
from zoo import HONEST, measure

UNDER_L2 = ('"noise"', '"fgsm"', '"pgd"', '"mi-fgsm"')


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_model_is_left_alone(name, tmp_path):
    network = HONEST[name]()
    records = measure(network, tmp_path, eps=(0.1, 0.2, 0.4)) + measure(network, tmp_path, UNDER_L2, (0.3, 1), "l2")
    assert len(records) == 23
    assert {record.status for record in records} == {"ok"}
    guesses = "untrained" in name
    for record in records:
        assert [finding.code for finding in record.findings] == (["at-chance"] if guesses else []), record.cell
    assert all(record.cost["audit_seconds"] >= 0 for record in records)
