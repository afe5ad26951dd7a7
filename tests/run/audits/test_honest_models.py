"""Not one false alarm: honest models of many kinds under every built-in attack. Untrained ones are at chance."""

from __future__ import annotations

import pytest
from bed import chosen
from edges import HONEST_EDGES
from further_honest import FURTHER_HONEST
from honest_models import MORE_HONEST
from odd_models import ODD
from odd_networks import ODD_NETWORKS
from zoo import HONEST, measure

SPEED_ALONE = {"not-prepared", "not-folded", "not-traced", "not-mixed"}
# Some of each kind: the others are measured in a full run.
SOME_HONEST = {"linear", "mlp, tanh", "smallcnn, untrained"}
SOME_MORE_HONEST = {"cosine", "dropout", "masked class", "normalised by image", "robust, linear", "temperature 3"}
SOME_ODD = {"bounded logits", "bytes", "kernels", "median filter", "prototypes", "robust, memo", "viewed", "waves"}
SOME_ODD_NETWORKS = {"eight bits, robust", "low accuracy", "nearly constant, robust", "smooth neighbours"}
SOME_FURTHER = {"complex weights", "masked weights", "two sizes, robust"}
SOME_EDGES = {"clamped by minimum and maximum", "no bias", "squared"}
UNDER_L2 = ('"noise"', '"fgsm"', '"pgd"', '"mi-fgsm"')


@pytest.mark.parametrize("name", chosen(HONEST, SOME_HONEST))
def test_an_honest_model_is_left_alone(name, tmp_path):
    network = HONEST[name]()
    records = measure(network, tmp_path, eps=(0.1, 0.2, 0.4)) + measure(network, tmp_path, UNDER_L2, (0.3, 1), "l2")
    assert len(records) == 23
    assert {record.status for record in records} == {"ok"}
    guesses = "untrained" in name
    for record in records:
        assert [finding.code for finding in record.findings] == (["at-chance"] if guesses else []), record.cell
    assert all(record.cost["audit_seconds"] >= 0 for record in records)


@pytest.mark.parametrize("name", chosen(MORE_HONEST, SOME_MORE_HONEST))
def test_an_honest_model_that_looks_odd_is_left_alone(name, tmp_path):
    network = MORE_HONEST[name]().eval()
    attacks = ('"noise"', '"fgsm"', '"pgd"')
    records = measure(network, tmp_path, attacks, eps=(0.1, 0.3)) + measure(network, tmp_path, attacks, (0.5,), "l2")
    for record in records:
        assert not {finding.code for finding in record.findings} - SPEED_ALONE, record.cell
        assert record.status == "ok"


@pytest.mark.parametrize("name", chosen(ODD, SOME_ODD))
def test_an_odd_model_is_left_alone(name, tmp_path):
    records = measure(ODD[name]().eval(), tmp_path, ('"pgd"',), eps=(0.1,))
    for record in records:
        assert not {finding.code for finding in record.findings} - SPEED_ALONE, record.cell
        assert record.status == "ok"


@pytest.mark.parametrize(
    "name",
    [
        *chosen(ODD_NETWORKS, SOME_ODD_NETWORKS),
        *chosen(FURTHER_HONEST, SOME_FURTHER),
        *chosen(HONEST_EDGES, SOME_EDGES),
    ],
)
def test_an_odd_network_is_left_alone(name, tmp_path):
    network = (ODD_NETWORKS | FURTHER_HONEST | HONEST_EDGES)[name]().eval()
    records = measure(network, tmp_path, ('"pgd"',), eps=(0.05, 0.1, 0.2))
    for record in records:
        assert not {finding.code for finding in record.findings} - SPEED_ALONE, record.cell
        assert record.status == "ok"


def test_there_are_many_honest_models():
    assert len(HONEST | MORE_HONEST | ODD | ODD_NETWORKS | FURTHER_HONEST | HONEST_EDGES) >= 104
