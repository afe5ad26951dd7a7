"""Costs can be bounded: as they are, relative to another cell, and relative to a baseline."""

from __future__ import annotations

from pathlib import Path

import factory
import numpy as np
import pytest

from epsbench.harness.errors import InputError
from epsbench.harness.plan.suite import Suite, load_suite
from epsbench.harness.records import Record
from epsbench.harness.report.gates.check import check_suite

SUITE = """
[robustness]
data = "digits"
[robustness.matrix]
model = "smallcnn"
attack = ["fgsm", {{ name = "pgd", steps = 40 }}]
eps = ["1/10", "2/10"]
[[robustness.expect]]
where = {{ attack = "pgd" }}
{bound}
"""


def suite_with(folder: Path, bound: str, text: str = SUITE) -> Suite:
    path = folder / "costs.toml"
    path.write_text(text.format(bound=bound), encoding="utf-8")
    return load_suite(str(path))


def measured(suite: Suite, folder: Path, gradients: float = 20.0, code: str = "") -> Path:
    for cell in suite.cells:
        taken = gradients if cell.attack.name == "pgd" else 1.0
        record = factory.robustness(np.ones(10, dtype=bool), np.ones(10, dtype=bool))
        record = factory.of_cell(record, cell.canonical(), {"attack": code} if code else cell.code)
        record = record.model_copy(
            update={
                "cost": {"gradients_per_image": taken, "seconds": taken / 2, "peak_bytes": 0},
                "training": {"seconds": taken, "images_per_second": 100 / taken},
            }
        )
        factory.write(folder, Record.model_validate(record.model_dump()))
    return folder


@pytest.mark.parametrize(
    ("bound", "code", "message"),
    [
        ("gradients_per_image = { max = 20 }", 0, "gradients_per_image ≤ 20: 20 "),
        ("gradients_per_image = { max = 19.5 }", 1, "gradients_per_image ≤ 19.5: 20 "),
        (
            'seconds = { min = 19, max = 21, relative_to = { attack = "fgsm" } }',
            0,
            "≥ 19 and ≤ 21 × attack fgsm: 20 × ",
        ),
        ('gradients_per_image = { max = 25, relative_to = { attack = "fgsm" } }', 0, "≤ 25 × attack fgsm: 20 × "),
        ('gradients_per_image = { max = 15, relative_to = { attack = "fgsm" } }', 1, "≤ 15 × attack fgsm: 20 × "),
        ('gradients_per_image = { max = 1, relative_to = { eps = "1/10" } }', 0, "≤ 1 × eps 1/10: 1 × "),
        ('peak_bytes = { max = 2, relative_to = { attack = "fgsm" } }', 2, "missing or 0 in what it is relative to"),
        ('seconds = { max = 2, relative_to = "baseline" }', 2, "give its results folder with --baseline DIR"),
        ("floor_share = { min = 0.5 }", 2, "the record has no floor_share"),
        ('training_seconds = { max = 19, relative_to = { attack = "fgsm" } }', 1, "≤ 19 × attack fgsm: 20 × "),
        ('training_images_per_second = { min = 0.05, relative_to = { attack = "fgsm" } }', 0, "attack fgsm: 0.05 × "),
    ],
)
def test_a_bound_on_a_cost(tmp_path, bound, code, message):
    suite = suite_with(tmp_path, bound)
    outcome, text = check_suite(suite, measured(suite, tmp_path / "results"))
    lines = text.splitlines()[:-1]
    assert outcome == code
    assert len(lines) == 2
    assert all(message in line for line in lines)


@pytest.mark.parametrize(("gradients", "code"), [(20.0, 0), (22.0, 0), (23.0, 1)])
def test_a_cost_relative_to_a_baseline_of_other_code(tmp_path, gradients, code):
    suite = suite_with(tmp_path, 'gradients_per_image = { max = 1.1, relative_to = "baseline" }')
    before = measured(suite, tmp_path / "before", 20.0, code="1")
    outcome, text = check_suite(suite, measured(suite, tmp_path / "after", gradients), baseline=before)
    assert outcome == code
    assert f"gradients_per_image ≤ 1.1 × baseline: {gradients / 20:.3g} ×" in text


GENERATION = """
[generation]
data = "mnist"
[generation.matrix]
z_dim = [2, 20]
[[generation.expect]]
where = {{ z_dim = 20 }}
{bound}
"""


def generative_suite(folder: Path, bound: str) -> Suite:
    return suite_with(folder, bound, GENERATION)


def generated(suite: Suite, folder: Path, factor: float = 1.0, code: str = "") -> Path:
    """Records whose model of 20 dimensions costs ``factor`` times the small one's 100 s and 1 GiB."""
    for cell in suite.cells:
        times = factor if cell.z_dim == 20 else 1.0
        cost = {
            "training_seconds": 100 * times,
            "training_images_per_second": 1000 / times,
            "seconds": 10 * times,
            "peak_bytes": int(2**30 * times),
        }
        versions = {"model": code} if code else cell.code
        record = factory.of_cell(factory.generation(), cell.canonical(), versions)
        factory.write(folder, record.model_copy(update={"cost": cost}))
    return folder


@pytest.mark.parametrize(
    ("bound", "code", "message"),
    [
        ("peak_bytes = { max = 3e9 }", 0, "peak_bytes ≤ 3,000,000,000: 2,147,483,648"),
        ("peak_bytes = { max = 2e9 }", 1, "peak_bytes ≤ 2,000,000,000: 2,147,483,648"),
        ("peak_bytes = { max = 2, relative_to = { z_dim = 2 } }", 0, "peak_bytes ≤ 2 × z_dim 2: 2 × "),
        ("seconds = { max = 1.5, relative_to = { z_dim = 2 } }", 1, "seconds ≤ 1.5 × z_dim 2: 2 × "),
        ("training_seconds = { max = 2, relative_to = { z_dim = 2 } }", 0, "≤ 2 × z_dim 2: 2 × "),
        ("training_images_per_second = { min = 0.6, relative_to = { z_dim = 2 } }", 1, "≥ 0.6 × z_dim 2: 0.5 × "),
        ('seconds = { max = 2, relative_to = "baseline" }', 2, "give its results folder with --baseline DIR"),
    ],
)
def test_a_bound_on_a_cost_of_a_generative_model(tmp_path, bound, code, message):
    suite = generative_suite(tmp_path, bound)
    outcome, text = check_suite(suite, generated(suite, tmp_path / "results", 2.0))
    assert (outcome, len(text.splitlines())) == (code, 2)
    assert message in text


@pytest.mark.parametrize("name", ["seconds", "training_seconds", "peak_bytes"])
@pytest.mark.parametrize(("factor", "code"), [(1.0, 0), (1.15, 0), (1.3, 1)])
def test_costs_of_generative_models_relative_to_a_baseline(tmp_path, name, factor, code):
    suite = generative_suite(tmp_path, f'{name} = {{ max = 1.2, relative_to = "baseline" }}')
    before = generated(suite, tmp_path / "before", code="1")
    outcome, text = check_suite(suite, generated(suite, tmp_path / "after", factor), baseline=before)
    assert outcome == code
    assert f"{name} ≤ 1.2 × baseline: {factor:.3g} ×" in text


def test_what_a_cost_is_relative_to_may_be_missing(tmp_path):
    suite = suite_with(tmp_path, 'seconds = { max = 9, relative_to = { attack = "fgsm" } }')
    results = measured(suite, tmp_path / "results")
    for cell in suite.cells:
        if cell.attack.name == "fgsm":
            (results / "cells" / f"{cell.id}.json").unlink()
    code, text = check_suite(suite, results)
    assert (code, text.count("the cell that it is relative to is not measured")) == (2, 2)
    with pytest.raises(InputError, match="--baseline"):
        check_suite(suite, results, baseline=tmp_path / "gone")


@pytest.mark.parametrize(
    ("bound", "message"),
    [
        ("seconds = { max = 9 }", r"relative_to = \{ z_dim = … \}"),
        ("training_seconds = { max = 9 }", "differs between machines"),
        ('peak_bytes = { max = 9, relative_to = { attack = "fgsm" } }', r"relative_to: 'attack' is no axis"),
        ("peak_bytes = { max = 9, relative_to = { z_dim = 3 } }", r"relative_to\.z_dim: no cell has 3; known: 2, 20"),
        ("peak_bytes = { max = 9, relative_to = 3 }", r'relative_to: must be "baseline" or a table of axes'),
        ('gradients_per_image = { max = 9, relative_to = "baseline" }', "unknown key"),
    ],
)
def test_a_wrong_bound_of_a_generative_model_is_a_message(tmp_path, bound, message):
    with pytest.raises(InputError, match=message):
        generative_suite(tmp_path, bound)


@pytest.mark.parametrize(
    ("bound", "message"),
    [
        ('seconds = { max = 2, relative_to = { attack = "gone" } }', "attack"),
        ('seconds = { max = 2, relative_to = { atack = "fgsm" } }', "'atack' is no axis"),
        ('seconds = { relative_to = "baseline" }', "bounds nothing"),
        ("seconds = { max = 9 }", "differs between machines"),
        ('clean_accuracy = { max = 1, relative_to = "baseline" }', "relative_to"),
    ],
)
def test_a_wrong_bound_is_a_message(tmp_path, bound, message):
    with pytest.raises(InputError, match=message):
        suite_with(tmp_path, bound)
