"""A suite expands to the cells it says, and every bad one is refused with file, key and remedy."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path

import pytest

from epsbench.harness.errors import InputError
from epsbench.harness.plan.suite import load_suite, schema_text, shipped_suites

GENERATION = '[generation]\ndata = "digits"\n'


def test_the_matrix_is_every_combination(load, small):
    suite = load(small)
    assert len(suite.cells) == 12
    first = suite.cells[0]
    assert first.canonical() == {
        "task": "robustness", "data": "digits", "model": {"name": "smallcnn", "width": 16, "hidden": 100},
        "defense": {"name": "none"}, "augmentation": "none",
        "training": {
            "epochs": 10, "batch_size": 128, "optimizer": "adam", "learning_rate": 1e-3, "weight_decay": 0.0,
            "momentum": 0.9, "schedule": "one-cycle", "step_epochs": 7, "gamma": 0.1,
        },
        "attack": {"name": "noise"}, "norm": "linf", "eps": "8/255", "seed": 0, "limit": None, "precision": "auto",
        "early_stop": True,
        "curve": "each",
    }  # fmt: skip
    assert [cell.eps for cell in suite.cells[:2]] == [Fraction(8, 255), Fraction(1, 10)]


def test_generation_needs_no_axis(load):
    (cell,) = load(GENERATION).cells
    assert cell.canonical() == {
        "task": "generation", "data": "digits", "model": {"name": "vae", "filters": 32, "levels": 16}, "z_dim": 20,
        "beta": 1.0, "seed": 0, "limit": None, "precision": "auto",
        "training": {
            "epochs": 80, "batch_size": 128, "learning_rate": 1e-3, "schedule": "constant", "average": 0.0,
        },
        "evaluation": {
            "importance_samples": 100, "long_importance_samples": 0, "long_images": 1000, "prior_samples": 10_000,
            "generated": 10_000, "gradient_samples": 100,
        },
    }  # fmt: skip


def test_one_value_stands_for_a_list_of_one(load, small):
    assert load(small).cells == load(small.replace('"smallcnn"', '["smallcnn"]')).cells


def test_excludes_drop_what_they_match_and_includes_come_after(load, small):
    excluded = small + '[[robustness.exclude]]\nattack = "pgd"\neps = "8/255"\n'
    assert len(load(excluded).cells) == 10
    again = excluded + (
        '[[robustness.include]]\ndefense = "none"\nattack = { name = "pgd", steps = 4 }\neps = "8/255"\n'
    )
    assert len(load(again).cells) == 11
    assert set(load(again).cells) < set(load(small).cells)


def test_an_include_takes_the_only_value_of_what_it_leaves_out(load, small):
    suite = load(small + '[[robustness.include]]\ndefense = "none"\nattack = ["noise", "fgsm"]\neps = 0.5\nseed = 3\n')
    added = suite.cells[12:]
    assert [(cell.model.name, cell.attack.name, cell.eps, cell.seed) for cell in added] == [
        ("smallcnn", "noise", Fraction(1, 2), 3), ("smallcnn", "fgsm", Fraction(1, 2), 3),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("where", "matched"),
    [
        ("{}", 12),
        ('{ attack = "pgd" }', 4),
        ('{ attack = { name = "pgd", steps = 4 } }', 4),
        ('{ eps = "16/510" }', 6),
        ('{ eps = "0.1", defense = "none" }', 3),
        ('{ attack = ["noise", "pgd"], eps = [0.1] }', 4),
        ("{ seed = 0 }", 12),
        ('{ defense = { name = "fgsm-loss", eps = "8/255" } }', 6),
        ('{ norm = "linf" }', 12),
    ],
)
def test_where_matches_by_name_parameters_and_exact_value(load, small, where, matched):
    suite = load(f"{small}[[robustness.expect]]\nwhere = {where}\nclean_accuracy = {{ min = 0.5 }}\n")
    (expectation,) = suite.expectations
    assert len(expectation.cells) == matched
    assert expectation.bounds["clean_accuracy"].min == 0.5
    assert expectation.bounds["clean_accuracy"].max is None
    assert not expectation.strict
    assert expectation.label.startswith("robustness.expect[0] (")


def test_options_stand_in_for_what_the_file_says(tmp_path, small):
    (tmp_path / "s.toml").write_text(small)
    suite = load_suite(str(tmp_path / "s.toml"), limit=50, precision="float32")
    assert {(cell.limit, cell.precision) for cell in suite.cells} == {(50, "float32")}
    assert (suite.name, suite.base) == ("s", tmp_path)


@pytest.mark.parametrize("name", shipped_suites())
def test_shipped_suites_load_by_name(name, skip_without_libraries):
    skip_without_libraries(name)
    suite = load_suite(name)
    assert suite.description
    assert suite.cells


def test_quickstart_shows_both_halves():
    assert {cell.task for cell in load_suite("quickstart").cells} == {"robustness", "generation"}


@pytest.mark.parametrize(
    ("norm", "eps", "problem"),
    [
        ("linf", 1, ""),
        ("linf", 1.5, "must not be above 1"),
        ("l2", 8, ""),
        ("l2", 8.5, "must not be above 8, the whole box under l2"),
        ("l2", 8 * (1 + 1e-12), ""),
        ("l2", 8.123456789012345, "must not be above 8, the whole box under l2, not 8.1234568;"),
        ("l0", 64, ""),
        ("l0", 65, "must not be above 64, the whole box under l0"),
        ("l0", "8/255", "must be at least 1 under l0, which counts changes, not 8/255; give a whole number"),
        ("l0-pixels", 0.9, "must be at least 1 under l0-pixels, which counts changes, not 0.9"),
    ],
)
def test_how_large_an_epsilon_may_be_is_for_its_norm_to_say(tmp_path, norm, eps, problem):
    suite = tmp_path / "radii.toml"
    suite.write_text(
        f'[robustness]\ndata = "digits"\n[robustness.matrix]\nmodel = "smallcnn"\nattack = "pgd"\n'
        f'norm = "{norm}"\neps = [0, {json.dumps(eps)}]\n'
    )
    if not problem:
        assert len(load_suite(suite).cells) == 2
        return
    with pytest.raises(InputError, match=re.escape(f"robustness.matrix.eps[1]: ε {problem}")):
        load_suite(suite)


def test_the_committed_schema_is_the_generated_one():
    committed = Path(shipped_suites()["quickstart"]).with_name("suite.schema.json")
    assert committed.read_text(encoding="utf-8") == schema_text(), "run: epsbench schema > suites/suite.schema.json"


def test_a_byte_order_mark_is_no_part_of_a_suite(tmp_path):
    path = tmp_path / "suite.toml"
    text = '[robustness]\ndata = "digits"\n[robustness.matrix]\nmodel = "smallcnn"\nattack = "fgsm"\neps = 0.1\n'
    path.write_text(text, encoding="utf-8-sig")
    assert load_suite(str(path)).cells


def test_the_epochs_of_the_samples_are_a_list(tmp_path):
    path = tmp_path / "suite.toml"
    recipe = "training = { sample_epochs = [0, 2] }"
    path.write_text(f'[generation]\ndata = "digits"\n{recipe}\n[generation.matrix]\nmodel = "vae"\n')
    (cell,) = load_suite(str(path)).cells
    assert dict(cell.training)["sample_epochs"] == (0, 2)
    (cell,) = load_suite(str(path), changes=["generation.training.sample_epochs=[0, 10]"]).cells
    path.write_text(path.read_text().replace(recipe, ""))
    assert [each.id for each in load_suite(str(path)).cells] == [cell.id]
    with pytest.raises(InputError, match=r"sample_epochs: must be a list, not 3 \(from --set"):
        load_suite(str(path), changes=["generation.training.sample_epochs=3"])
