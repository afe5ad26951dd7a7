"""Not one false alarm: honest models of many kinds under every built-in attack. Untrained ones are at chance."""

from __future__ import annotations

import pytest
from honest_models import MORE_HONEST
from odd_models import ODD
from zoo import HONEST, measure

SPEED_ALONE = {"not-prepared", "not-folded", "not-traced", "not-mixed"}
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


@pytest.mark.parametrize("name", MORE_HONEST)
def test_an_honest_model_that_looks_odd_is_left_alone(name, tmp_path):
    network = MORE_HONEST[name]().eval()
    attacks = ('"noise"', '"fgsm"', '"pgd"')
    records = measure(network, tmp_path, attacks, eps=(0.1, 0.3)) + measure(network, tmp_path, attacks, (0.5,), "l2")
    for record in records:
        assert not {finding.code for finding in record.findings} - SPEED_ALONE, record.cell
        assert record.status == "ok"


@pytest.mark.parametrize("name", ODD)
def test_an_odd_model_is_left_alone(name, tmp_path):
    records = measure(ODD[name]().eval(), tmp_path, ('"pgd"',), eps=(0.1,))
    for record in records:
        assert not {finding.code for finding in record.findings} - SPEED_ALONE, record.cell
        assert record.status == "ok"


def test_there_are_as_many_honest_models_as_tricks_asked_for():
    assert len(HONEST) + len(MORE_HONEST) + len(ODD) >= 60
