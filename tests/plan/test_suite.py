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


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"fgsm",', '"fgms",', "robustness.matrix.attack[1]: unknown attack 'fgms'; did you mean 'fgsm'?"),
        ("steps = 4", "step = 4", "robustness.matrix.attack[2]: pgd: unknown parameter 'step'; did you mean 'steps'?"),
        ("steps = 4", 'steps = "4"', "robustness.matrix.attack[2]: pgd: steps: must be an integer, not '4'"),
        ('data = "digits"', 'data = "digit"', "robustness.data: unknown data set 'digit'; did you mean 'digits'?"),
        ('data = "digits"', 'data = ["digits"]', "robustness.data: must be the name of a data set"),
        ('data = "digits"', "", "robustness.data: is missing"),
        ("[robustness.matrix]", "[robustness.matrx]", "robustness.matrx: unknown key; did you mean 'matrix'?"),
        ("[robustness.matrix]", "[robustness.matrix]\nsteps = 1", "robustness.matrix.steps: unknown key"),
        ('model = "smallcnn"', "", "robustness.matrix.model: is missing"),
        ('model = "smallcnn"', 'model = "vae"', "'vae' is no model for [robustness]"),
        ('eps = ["8/255", 0.1]', "eps = []", "robustness.matrix.eps: is empty"),
        ('eps = ["8/255", 0.1]', 'eps = ["8/255", "16/510"]', "robustness.matrix.eps: entry 1 repeats entry 0"),
        ('["none", "fgsm-loss"]', '["none", { name = "none" }]', "robustness.matrix.defense: entry 1 repeats entry 0"),
        ('"8/255"', '"eight"', "robustness.matrix.eps[0]: ε 'eight' is not a number"),
        ('"8/255"', '"-1/255"', "robustness.matrix.eps[0]: ε must not be negative"),
        ('"8/255"', "8", "robustness.matrix.eps[0]: ε must not be above 1"),
        ('"8/255"', '"1/0"', "robustness.matrix.eps[0]: ε '1/0' divides by zero"),
        ('"8/255"', "nan", "robustness.matrix.eps[0]: must be a finite number"),
        ('"8/255"', "1979-05-27", "robustness.matrix.eps[0]: a date or time has no place in a suite"),
        ('"8/255"', "0xffffffffffffffffffff", "robustness.matrix.eps[0]: the number does not fit in 64 bits"),
        ('attack = ["noise"', 'attack = [["noise"]', "robustness.matrix.attack[0]: must be a name or a table"),
        (
            "[robustness.matrix]",
            '[robustness.matrix]\nseed = [0, "1"]',
            "robustness.matrix.seed[1]: must be an integer",
        ),
        ("[robustness.matrix]", "[robustness.matrix]\nseed = -1", "robustness.matrix.seed[0]: must be greater than"),
        ("[robustness.matrix]", '[robustness.matrix]\nnorm = "l7"', "robustness.matrix.norm[0]: unknown norm 'l7'"),
        (
            "[robustness.matrix]",
            "limit = 0\n[robustness.matrix]",
            "robustness.limit: must be greater than or equal to 1",
        ),
        ("[robustness.matrix]", 'precision = "int8"\n[robustness.matrix]', "robustness.precision: must be 'auto'"),
        (
            "[robustness.matrix]",
            "[robustness.training]\nepoch = 3\n[robustness.matrix]",
            "robustness.training.epoch: unknown key; did you mean 'epochs'?",
        ),
        ("[robustness]", "[robustnes]", "robustnes: unknown key; did you mean 'robustness'?"),
        ("[robustness.matrix]", "[robustness.matrix", "is not TOML"),
        ('data = "digits"', 'data = "digits"\ndata = "mnist"', "is not TOML"),
    ],
)
def test_a_bad_value_is_refused_where_it_stands(refused, small, old, new, message):
    assert old in small
    assert message in refused(small.replace(old, new, 1))


@pytest.mark.parametrize(
    ("added", "message"),
    [
        (
            '[[robustness.exclude]]\nattack = "gfsm"',
            "robustness.exclude[0].attack: no cell has gfsm; did you mean 'fgsm'?",
        ),
        ("[[robustness.exclude]]\neps = 0.2", "robustness.exclude[0].eps: no cell has 0.2"),
        ('[[robustness.exclude]]\neps = "x"', "robustness.exclude[0].eps: ε 'x' is not a number"),
        ("[[robustness.exclude]]", "robustness.exclude[0]: is empty"),
        ('[[robustness.exclude]]\nmodel = "smallcnn"', "robustness.exclude: leaves no cell"),
        ('[[robustness.exclude]]\nattck = "pgd"', "robustness.exclude[0]: 'attck' is no axis; did you mean 'attack'?"),
        ("[[robustness.exclude]]\nattack = []", "robustness.exclude[0]: attack lists no value"),
        ("[[robustness.exclude]]\nseed = true", "robustness.exclude[0].seed: must be a value of the axis"),
        (
            '[[robustness.exclude]]\nattack = "pgd"\n[[robustness.exclude]]\nattack = "fgsm"\neps = 0.1\n'
            '[[robustness.expect]]\nwhere = { attack = "fgsm", eps = 0.1 }\nclean_accuracy = { min = 0.1 }',
            "robustness.expect[0]: matches no cell",
        ),
        (
            "[[robustness.expect]]\nwhere = { attack = { name = 'pgd', steps = 5 } }\nclean_accuracy = { min = 0 }",
            "robustness.expect[0].where.attack: no cell has { name = pgd, steps = 5 }",
        ),
        (
            "[[robustness.expect]]\nwhere = { attack = { name = 'pgd', step = 5 } }\nclean_accuracy = { min = 0 }",
            "robustness.expect[0].where.attack: pgd: unknown parameter 'step'",
        ),
        ("[[robustness.expect]]\nwhere = { attack = 'pgd' }", "robustness.expect[0]: expects nothing"),
        ("[[robustness.expect]]\nclean_accuracy = { }", "robustness.expect[0].clean_accuracy: bounds nothing"),
        (
            "[[robustness.expect]]\nclean_accuracy = { min = 0.9, max = 0.1 }",
            "robustness.expect[0].clean_accuracy: min 0.9 is above max 0.1",
        ),
        (
            "[[robustness.expect]]\nclean_accuracy = { min = 98 }",
            "robustness.expect[0].clean_accuracy.min: must be less than or equal to 1, not 98",
        ),
        (
            "[[robustness.expect]]\nclean_acuracy = { min = 0.9 }",
            "robustness.expect[0].clean_acuracy: unknown key; did you mean 'clean_accuracy'?",
        ),
        ("[[robustness.include]]", "robustness.include[0]: is empty"),
        (
            "[[robustness.include]]\neps = 0.5",
            "robustness.include[0]: leaves defense open, and the matrix has 2 values",
        ),
        (
            "[[robustness.include]]\ndefense = 'none'\nattack = 'noise'\neps = 0.1",
            "robustness.include[0]: adds no cell that is not there already",
        ),
        (
            GENERATION + "[generation.matrix]\nz_dim = 0",
            "generation.matrix.z_dim[0]: must be greater than or equal to 1",
        ),
        (
            GENERATION + "[generation.matrix]\nmodel = 'smallcnn'",
            "'smallcnn' is no model for [generation]; it may belong in [robustness]",
        ),
        (
            GENERATION + "[generation.matrix]\nmodel = 'torch.nn:Flatten'",
            "is no model for [generation]; name a class derived from epsbench.models.generative.VAE",
        ),
        (
            GENERATION + "[generation.matrix]\nbeta = -1.0",
            "generation.matrix.beta[0]: must be greater than or equal to 0",
        ),
    ],
)
def test_a_bad_table_is_refused_where_it_stands(refused, small, added, message):
    assert message in refused(f"{small}{added}\n")


def test_an_empty_suite_says_what_it_lacks(refused):
    assert "neither a [robustness] nor a [generation] part" in refused("")


def test_every_error_of_a_file_is_reported_at_once(refused, small):
    message = refused(small.replace("fgsm-loss", "fgsm-los").replace('"8/255"', "2").replace("steps", "stpes"))
    assert len(message.splitlines()) == 3


def test_deep_nesting_is_refused(refused):
    assert "nested too deeply" in refused(".".join("a" * 3000) + " = 1")
    assert refused("a = " + "[" * 3000 + "]" * 3000)


def test_a_model_that_does_not_fit_the_data_is_refused(load, refused, tmp_path, small):
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from epsbench.models.base import Architecture\n"
        "@dataclass(frozen=True)\n"
        "class Grey(Architecture):\n"
        "    def check(self, data):\n"
        "        if data.shape[0] != 1:\n"
        "            raise ValueError('needs grey images')\n"
        "    def build(self, data):\n"
        "        from torch import nn\n"
        "        return nn.Sequential(nn.Flatten(), nn.Linear(64, data.classes))\n"
    )
    mine = small.replace('"smallcnn"', '"mine.py:Grey"')
    assert len(load(mine).cells) == 12
    assert "'mine.py:Grey' does not fit 'cifar10': needs grey images" in refused(mine.replace("digits", "cifar10"))


UNBUILT = """
from torch import nn
import torch
from epsbench.models.base import Architecture
from epsbench.models.generative import VAE

def reads(name="best.pt"):
    return torch.load(name)

def raises(width: int = 3):
    raise KeyError(width)

def exits():
    raise SystemExit(0)

def number():
    return 3

def wide(classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(100, classes))

def half(classes):
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, classes)).half()

class Mine(Architecture):
    def build(self, data):
        return self.nothing

class Generative(VAE):
    def build(self, data, z_dim):
        return self.nothing
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("reads", r"FileNotFoundError: .*\(nets\.py, line 8\); .*Path\(__file__\)\.parent / 'best\.pt'"),
        ("raises", r"KeyError: 3 \(nets\.py, line 11\); correct the code, or the parameters that the suite gives it"),
        ("exits", r"SystemExit: 0 \(nets\.py, line 14\)"),
        ("number", "gave int where a torch.nn.Module is needed"),
        ("wide", "does not take the 1×8×8 images of digits.*where its signature names them"),
        ("half", "should be the same.*let forward\\(\\) convert the images"),
        ("Mine", "AttributeError: 'Mine' object has no attribute 'nothing'"),
    ],
)
def test_a_model_of_the_users_that_cannot_be_built_is_refused(refused, tmp_path, small, name, message):
    (tmp_path / "nets.py").write_text(UNBUILT, encoding="utf-8")
    text = refused(small.replace('"smallcnn"', f'["smallcnn", "nets.py:{name}"]'))
    assert re.search(
        rf"robustness\.matrix\.model: model 'nets\.py:{name}' cannot be built for digits: .*{message}", text
    )
    assert len(text.splitlines()) == 1


def test_a_generative_model_of_the_users_that_cannot_be_built_is_refused(refused, tmp_path):
    (tmp_path / "nets.py").write_text(UNBUILT, encoding="utf-8")
    text = refused(GENERATION + '[generation.matrix]\nmodel = "nets.py:Generative"\n')
    assert "generation.matrix.model: model 'nets.py:Generative' cannot be built for digits: AttributeError" in text


def test_weights_that_are_not_there_are_refused(refused, small):
    model = '{ name = "file:gone.safetensors", architecture = "smallcnn" }'
    assert "gone.safetensors" in refused(small.replace('"smallcnn"', model))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("quickstar", "no file and no shipped suite; did you mean 'quickstart'?"),
        ("gone/suite.toml", "there is no such suite file"),
        ("a\0b", "no"),
        ("", "no"),
    ],
)
def test_a_suite_that_is_not_there(given, message):
    with pytest.raises(InputError, match=r"suite|file name") as raised:
        load_suite(given)
    assert message in str(raised.value)


def test_a_file_that_is_not_text(tmp_path):
    (tmp_path / "suite.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"suite\.toml: is not UTF-8"):
        load_suite(str(tmp_path / "suite.toml"))


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


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('attack = "PGD"', "attack[0]: unknown attack 'PGD'; did you mean 'pgd'?"),
        ('norm = "L2"', "norm[0]: unknown norm 'L2'; did you mean 'l2'?"),
        ("[[robustness.expect]]\nrobust_accuracy = 0.5",
         "robust_accuracy: must be a table, not 0.5; write robust_accuracy = { min = 0.5 }, or max"),
        ("[robustness.expect]\nrobust_accuracy = { min = 0.5 }",
         "expect: must be a list, not {'robust_accuracy': {'min': 0.5}}; each entry is a table: write "
         "[[robustness.expect]] in double brackets"),
        ('[[robustness.expect]]\nrobust_accuracy = { min = 0.5 }\nstrict = "yes"', "must be true or false, not 'yes'"),
    ],
)  # fmt: skip
def test_usual_slips_are_answered_with_what_to_write(tmp_path, line, message):
    path = tmp_path / "suite.toml"
    attack = "" if line.startswith("attack") else 'attack = "fgsm"\n'
    path.write_text(
        f'[robustness]\ndata = "digits"\n[robustness.matrix]\nmodel = "smallcnn"\n{attack}eps = 0.1\n{line}\n'
    )
    with pytest.raises(InputError, match=re.escape(message)):
        load_suite(str(path))
