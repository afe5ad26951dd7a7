"""Every bad value, table or file of a suite is refused with file, key and remedy."""

from __future__ import annotations

import re

import pytest

from epsbench.harness.errors import InputError
from epsbench.harness.plan.suite import load_suite

GENERATION = '[generation]\ndata = "digits"\n'


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
        ("[robustness.matrix]", "[robustness.matrix]\nnorm = 2", "norm[0]: must be a name, not 2; known: linf, l2, l1"),
        (
            "[robustness.matrix]",
            "[robustness.matrix]\nsubset = 2",
            "subset[0]: must be a name, not 2; known: all, first",
        ),
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
