"""Subsets of the training split, and attacks that follow the gradients of another model of the suite."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epsbench.harness.errors import InputError
from epsbench.harness.plan.data import DATASETS, SUBSETS
from epsbench.harness.plan.plan import plan

HALVES = """
[robustness]
data = "digits"

[robustness.matrix]
model = "smallcnn"
subset = ["first-half", "second-half"]
source = ["self", { subset = "first-half" }, { subset = "second-half" }]
attack = "fgsm"
eps = [0.1]
"""
LINEAR = """
from torch import nn

def linear(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes, bias={bias}))
"""


def by_pair(suite):
    """The cells by subset of the victim and of the source; its own where there is none."""
    return {(cell.subset, cell.source.subset if cell.source else cell.subset): cell for cell in suite.cells}


@given(st.integers(0, 500))
def test_halves_share_nothing_and_leave_nothing_out(n):
    everything = list(range(n))
    first, second = (everything[SUBSETS[half](n)] for half in ("first-half", "second-half"))
    assert first + second == everything[SUBSETS["all"](n)] == everything
    assert 0 <= len(second) - len(first) <= 1


@pytest.mark.parametrize("name", DATASETS)
def test_halves_are_drawn_from_the_shuffled_split_and_have_identities_of_their_own(name):
    data = DATASETS[name]
    train = data.split()[0]
    halves = [train[SUBSETS[half](len(train))] for half in ("first-half", "second-half")]
    assert not np.intersect1d(*halves).size
    assert abs(np.mean(halves[0]) - np.mean(halves[1])) < 0.1 * len(train)  # shuffled, not the first and the last
    assert len({data.identity, *(data.subset_identity(subset) for subset in SUBSETS)}) == 4


def test_halves_are_digested_once(monkeypatch):
    """A permutation of 50,000 images takes milliseconds, and a suite asks for it in every cell."""
    data = replace(DATASETS["mnist"])
    known = [data.subset_identity(subset) for subset in SUBSETS]
    monkeypatch.setattr(type(data), "split", None)
    assert [data.subset_identity(subset) for subset in SUBSETS] == known


def test_the_defaults_are_no_part_of_a_cell(load, small):
    plain = load(small)
    written = load(small.replace('model = "smallcnn"', 'model = "smallcnn"\nsubset = "all"\nsource = "self"'))
    assert [cell.id for cell in written.cells] == [cell.id for cell in plain.cells]
    assert [cell.weights_key for cell in written.cells] == [cell.weights_key for cell in plain.cells]
    for cell in plain.cells:
        assert not {"subset", "source"} & cell.canonical().keys()
        assert cell.code.keys() == {"attack", "data", "defense", "model"}


def test_a_full_matrix_has_every_pair_once_and_the_white_box_on_its_diagonal(load):
    cells = by_pair(load(HALVES))
    white = by_pair(
        load(HALVES.replace('source = ["self", { subset = "first-half" }, { subset = "second-half" }]', ""))
    )
    halves = ("first-half", "second-half")
    assert cells.keys() == {(victim, source) for victim in halves for source in halves}
    assert len(load(HALVES).cells) == 4
    assert all(cells[half, half].id == white[half, half].id for half in halves)
    assert all((cell.source is None) == (pair[0] == pair[1]) for pair, cell in cells.items())


def test_a_source_decides_the_id_and_not_the_weights(load):
    cells = by_pair(load(HALVES))
    other, own = cells["first-half", "second-half"], cells["first-half", "first-half"]
    assert other.id != own.id
    assert other.weights_key == own.weights_key
    assert other.source.weights_key == cells["second-half", "second-half"].weights_key != own.weights_key
    assert other.canonical()["source"] == {
        "model": other.model.as_dict(),
        "defense": {"name": "none"},
        "augmentation": "none",
        "subset": "second-half",
        "seed": 0,
    }
    assert other.canonical()["subset"] == "first-half"
    assert other.code["source"] == other.source.weights_key
    assert other.stream != own.stream
    assert (own.early_stop, other.early_stop) == (True, False)


def test_the_code_of_a_source_is_part_of_the_id_and_not_of_the_victims_weights(load, tmp_path):
    text = HALVES.replace('subset = ["first-half", "second-half"]', "").replace(
        'model = "smallcnn"\n', 'model = ["smallcnn", "mine.py:linear"]\n'
    )
    text = text.replace('{ subset = "first-half" }, { subset = "second-half" }', '{ model = "mine.py:linear" }')
    seen = []
    for bias in (True, False):
        (tmp_path / "mine.py").write_text(LINEAR.format(bias=bias))
        seen.append(next(cell for cell in load(text).cells if cell.source))
    assert seen[0].model.name == "smallcnn"
    assert seen[0].id != seen[1].id
    assert seen[0].weights_key == seen[1].weights_key


def test_axes_left_out_are_the_cells_own(load):
    suite = load(
        HALVES.replace('model = "smallcnn"\n', 'model = "smallcnn"\ndefense = ["none", "fgsm-loss"]\nseed = [3, 4]\n')
    )
    other = [cell for cell in suite.cells if cell.source]
    assert len(other) == len(suite.cells) - len(other) == 8
    for cell in other:
        assert cell.source.subset != cell.subset
        assert (cell.source.model, cell.source.defense, cell.source.seed) == (cell.model, cell.defense, cell.seed)


def test_excludes_and_expectations_match_sources(load):
    suite = load(
        HALVES
        + """
        [[robustness.exclude]]
        subset = "first-half"
        source = { subset = "second-half" }
        [[robustness.expect]]
        where = { source = "self" }
        robust_accuracy = { min = 0.5 }
        [[robustness.expect]]
        where = { source = { model = { name = "smallcnn" }, subset = "first-half" } }
        robust_accuracy = { min = 0.5 }
        """
    )
    cells = by_pair(suite)
    assert ("first-half", "second-half") not in cells
    own, other = (expectation.cells for expectation in suite.expectations)
    assert set(own) == {cells["first-half", "first-half"], cells["second-half", "second-half"]}
    assert other == (cells["second-half", "first-half"],)


def test_an_include_may_add_one_source(load):
    text = HALVES.replace('source = ["self", { subset = "first-half" }, { subset = "second-half" }]', "")
    text += '[[robustness.include]]\nsubset = "first-half"\nsource = [{ subset = "second-half" }, "self"]\n'
    assert len(load(text).cells) == 3


def test_cells_of_a_curve_hold_the_eps_of_their_own_source_alone(load):
    text = HALVES.replace("[robustness.matrix]", 'curve = "nested"\n[robustness.matrix]').replace("[0.1]", "[0.1, 0.2]")
    text += '[[robustness.include]]\nsubset = "first-half"\nsource = { subset = "second-half" }\neps = 0.3\n'
    curves = {bool(cell.source): len(cell.curve_eps) for cell in load(text).cells if cell.subset == "first-half"}
    assert curves == {False: 2, True: 3}


def test_a_plan_counts_the_gradients_on_the_source(load, tmp_path):
    suite = load(HALVES.replace('"fgsm"', '{ name = "pgd", steps = 7 }'))
    planned = plan(suite, tmp_path / "results")
    assert len(planned.jobs) == 2
    assert {planned.predicted_gradients([cell]).at_most for cell in suite.cells} == {7 * 500}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"first-half",', '"first-hlf",', "matrix.subset[0]: unknown subset 'first-hlf'; did you mean 'first-half'?"),
        ("[robustness]", "[robustness]\nlimit = 1", "limit: 1 leaves 'first-half' no example to train on; give at"),
        ('"self"', '"slef"', 'matrix.source[0]: must be "self" or a table such as'),
        ('"self"', "{}", 'matrix.source[0]: is empty and so means the model itself; write "self"'),
        ('{ subset = "first-half" }', '{ sbset = 1 }', "matrix.source[1]: sbset: unknown key; did you mean 'subset'?"),
        ('{ subset = "first-half" }', "{ eps = 0.1 }", "matrix.source[1]: eps: is no part of a trained model"),
        ('{ subset = "first-half" }', '{ attack = "pgd" }', "matrix.source[1]: attack: is no part of a trained model"),
        ('{ subset = "first-half" }', '{ norm = "l2" }', "matrix.source[1]: norm: is no part of a trained model"),
        ('{ subset = "first-half" }', '{ model = ["smallcnn"] }', "matrix.source[1]: model: must be a name or a table"),
        ('{ subset = "first-half" }', '{ model = "smalcnn" }', "unknown model 'smalcnn'; did you mean 'smallcnn'?"),
        ('{ subset = "first-half" }', "{ seed = -1 }", "matrix.source[1]: seed: must be a whole number from 0"),
        ('{ subset = "first-half" }', '{ subset = "second-half" }', "entry 2 repeats entry 1"),
        (
            '{ subset = "first-half" }',
            "{ seed = 1 }",
            "matrix.source[1]: stands for model smallcnn, defense none, augmentation none, subset first-half, seed 1, "
            "which no cell of the suite trains; the nearest that one does train has seed 0: correct the table",
        ),
        (
            "eps = [0.1]",
            'eps = [0.1]\n[[robustness.include]]\nsubset = "all"\nsource = { defense = "fgsm-loss" }',
            "include[0].source[0]: stands for model smallcnn, defense fgsm-loss, augmentation none, subset all",
        ),
        (
            "eps = [0.1]",
            'eps = [0.1]\n[[robustness.exclude]]\nsource = { subst = "all" }',
            "exclude[0].source: subst: unknown key; did you mean 'subset'?",
        ),
        (
            "eps = [0.1]",
            'eps = [0.1]\n[[robustness.exclude]]\nsource = { seed = 7 }',
            "exclude[0].source: no cell has { seed = 7 }",
        ),
    ],
)  # fmt: skip
def test_a_wrong_source_gets_a_message_with_its_key(refused, old, new, message):
    assert message in refused(HALVES.replace(old, new, 1))


SEVERAL = """
[robustness]
data = "digits"

[robustness.matrix]
model = "smallcnn"
seed = [0, 1, 2]
source = ["self", [{ seed = 1 }, { seed = 2 }], [{ seed = 2 }, { seed = 1 }], { seed = 1 }]
attack = "fgsm"
eps = [0.1]
"""


def test_a_source_of_several_models_is_one_source_in_any_order(load):
    suite = load(SEVERAL)
    of_seed_0 = [cell for cell in suite.cells if cell.seed == 0]
    assert [len(cell.sources) for cell in of_seed_0] == [0, 2, 1]
    several = of_seed_0[1]
    assert [source.seed for source in several.sources] == [1, 2]
    record = several.canonical()["source"]
    assert (record["seed"], [each["seed"] for each in record["with"]]) == (1, [2])
    assert not several.early_stop
    assert len({cell.id for cell in suite.cells}) == len(suite.cells)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("[[{ seed = 1 }]]", "fewer than two"),
        ('[[{ seed = 1 }, "self"]]', "must be a table"),
        ("[[{ seed = 1 }, { seeed = 2 }]]", "model 1: seeed: unknown key; did you mean 'seed'"),
        ("[[{ seed = 1 }, { seed = 7 }]]", "no cell of the suite trains"),
    ],
)
def test_sources_of_several_models_are_checked(load, source, reason):
    text = SEVERAL.replace('["self", [{ seed = 1 }, { seed = 2 }], [{ seed = 2 }, { seed = 1 }], { seed = 1 }]', source)
    with pytest.raises(InputError, match=re.escape(reason)):
        load(text)


def test_an_exclude_names_several_models(load):
    text = SEVERAL + "[[robustness.exclude]]\nsource = [[{ seed = 1 }, { seed = 2 }]]\n"
    assert all(len(cell.sources) < 2 or {s.seed for s in cell.sources} != {1, 2} for cell in load(text).cells)
