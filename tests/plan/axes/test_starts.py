"""The axis ``start``: trainings that begin with the weights of another training."""

from __future__ import annotations

import pytest

FROM_OTHER_HALF = """
[robustness]
data = "mnist"
[robustness.matrix]
model = "smallcnn"
subset = "second-half"
start = ["scratch", { subset = "first-half" }, { data = "fashion-mnist", subset = "all" }]
attack = "fgsm"
eps = [0.1, 0.2]
"""


def test_scratch_is_the_default_and_no_part_of_a_cell(load, small):
    plain, written = load(small), load(small.replace("[robustness.matrix]", '[robustness.matrix]\nstart = "scratch"'))
    assert [cell.id for cell in written.cells] == [cell.id for cell in plain.cells]
    assert [cell.weights_key for cell in written.cells] == [cell.weights_key for cell in plain.cells]
    assert all("start" not in cell.canonical() for cell in plain.cells)


def test_what_a_start_does_not_name_is_the_cells_own(load):
    scratch, half, fashion = load(FROM_OTHER_HALF).cells[::2]
    assert scratch.start is None
    assert (half.start.data, half.start.subset, half.start.start) == ("mnist", "first-half", None)
    assert (fashion.start.data, fashion.start.subset) == ("fashion-mnist", "all")
    assert [half.start_label(), fashion.start_label()] == ["first-half", "fashion-mnist all"]
    assert {cell.start.training for cell in (half, fashion)} == {scratch.training}
    assert len({cell.weights_key for cell in (scratch, half, fashion)}) == 3


def test_a_start_is_the_model_that_a_suite_of_its_own_would_train(load):
    half = load(FROM_OTHER_HALF).cells[2].start
    alone = FROM_OTHER_HALF.replace("second-half", "first-half").partition("start =")
    own = load(alone[0] + alone[2].partition("\n")[2], "own")
    assert own.cells[0].weights_key == half.weights_key


def test_a_start_by_other_code_or_data_makes_another_cell(load):
    cells = load(FROM_OTHER_HALF).cells
    assert cells[2].code["start"] == cells[2].start.weights_key
    assert cells[2].canonical()["start"] == {
        "data": "mnist", "model": cells[2].model.as_dict(), "defense": {"name": "none"},
        "augmentation": "none", "subset": "first-half", "seed": 0,
    }  # fmt: skip


def test_expectations_and_excludes_name_starts(load):
    suite = load(
        FROM_OTHER_HALF
        + """
[[robustness.exclude]]
start = { data = "fashion-mnist" }
eps = 0.2
[[robustness.expect]]
where = { start = "scratch" }
clean_accuracy = { min = 0.5 }
[[robustness.expect]]
where = { start = { subset = "first-half" } }
clean_accuracy = { min = 0.5 }
"""
    )
    assert len(suite.cells) == 5
    assert [{cell.start is None for cell in each.cells} for each in suite.expectations] == [{True}, {False}]


FINE_TUNED = """
[robustness]
data = "mnist"
training = { epochs = 2, learning_rate = 0.05, small_epochs = 1 }
[robustness.matrix]
model = "smallcnn"
defense = ["none", { name = "n-fgsm", eps = 0.1 }]
start = { defense = "none", training = { epochs = 18, learning_rate = 0.2 } }
attack = "fgsm"
eps = 0.1
[[robustness.expect]]
where = { start = { training = { epochs = 18 } } }
clean_accuracy = { min = 0.5 }
"""


def test_a_start_may_change_the_recipe(load):
    suite = load(FINE_TUNED)
    for cell in suite.cells:
        own, first = dict(cell.training), dict(cell.start.training)
        assert {key for key in own if own[key] != first[key]} == {"epochs", "learning_rate"}
        assert (own["epochs"], first["epochs"], first["small_epochs"]) == (2, 18, 1)
        assert cell.canonical()["start"]["training"]["learning_rate"] == 0.2
    assert len({cell.start.weights_key for cell in suite.cells}) == 1
    assert {cell.start_label() for cell in suite.cells} == {"none (epochs = 18, learning_rate = 0.2)"}
    assert suite.expectations[0].cells == suite.cells
    whole = FINE_TUNED.replace("epochs = 2, learning_rate = 0.05", "epochs = 18, learning_rate = 0.2")
    alone = load(whole.replace("start = {", "#").partition("[[")[0], "alone")
    assert alone.cells[0].weights_key == suite.cells[0].start.weights_key


def test_a_start_with_the_cells_recipe_is_the_same_cell_as_one_without(load):
    one = load(FINE_TUNED.replace("epochs = 18, learning_rate = 0.2", "epochs = 2").partition("[[")[0])
    other = load(
        FINE_TUNED.replace(", training = { epochs = 18, learning_rate = 0.2 }", "").partition("[[")[0], "other"
    )
    assert [cell.id for cell in one.cells] == [cell.id for cell in other.cells]
    both = FINE_TUNED.replace("start = {", 'start = [{ defense = "none" }, {', 1).replace("= 0.2 } }", "= 0.2 } }]")
    cells = load(both, "both").cells
    assert len(cells) == len({cell.id for cell in cells}) == 4


@pytest.mark.parametrize(
    ("start", "cells"),
    [
        ('[{ defense = "none" }, { data = "mnist" }, { training = { epochs = 2 } }]', 3),
        ('[{ data = "mnist" }, { augmentation = "none" }, { training = { epochs = 2 } }]', 2),
        ('[{ training = { epochs = 3 } }, { training = { epochs = 3, learning_rate = 0.05 } }, "scratch"]', 4),
    ],
)
def test_starts_that_are_one_training_make_one_cell(load, start, cells):
    """Of the two defenses, one is none: `run` would otherwise measure its cell twice, and fail at the second record."""
    suite = FINE_TUNED.partition("[[")[0]
    written = 'start = { defense = "none", training = { epochs = 18, learning_rate = 0.2 } }'
    assert written in suite
    suite = suite.replace(written, f"start = {start}")
    made = load(suite).cells
    assert len(made) == len({cell.id for cell in made}) == cells


def test_an_include_with_a_start_that_is_there_already_adds_nothing(refused):
    suite = FINE_TUNED.partition("[[")[0].replace(", training = { epochs = 18, learning_rate = 0.2 }", "")
    more = '[[robustness.include]]\ndefense = "none"\nstart = { data = "mnist" }\n'
    assert "include[0]: adds no cell that is not there already" in refused(suite + more)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (
            '{ data = "cifar10" }',
            "weights trained on 'cifar10' (3×32×32, 10 classes) fit no model for 'mnist' (1×28×28",
        ),
        ('{ model = "resnet18" }', "model: is the cell's own, for weights fit no other architecture: leave model out"),
        ("{ seed = 1 }", "seed: is the cell's own"),
        ('{ subset = "first" }', "subset: unknown subset 'first'; did you mean 'first-half'?"),
        ('{ attack = "fgsm" }', "attack: unknown key"),
        ("{ training = {} }", "training: must be a table of changes of the recipe, such as { epochs = 20 }, not {}"),
        ("{ training = 3 }", "training: must be a table of changes"),
        ("{ training = { epochs = -1 } }", "training: epochs: must be greater than or equal to 0, not -1"),
        ("{ training = { epoch = 3 } }", "training: epoch: unknown key; did you mean 'epochs'?"),
        ('{ training = { epochs = "3" } }', "training: epochs: must be an integer, not '3'"),
        (
            "{ training = { epochs = 3, small_epochs = 4 } }",
            "start[2]: training: small_epochs: 4 are more than the 3 epochs of the training",
        ),
        (
            "{ training = { small_epochs = 11 } }",
            "robustness.matrix.start.training: small_epochs: 11 are more than the 10 epochs of the training",
        ),
        ("{}", 'must be "scratch" or a table'),
        ('"fashion-mnist"', 'must be "scratch" or a table'),
        (
            '{ data = "mnits", defense = "non" }',
            "data: unknown data set 'mnits'; did you mean 'mnist'? (your own: ",
        ),
    ],
)
def test_starts_that_cannot_be(refused, start, message):
    suite = FROM_OTHER_HALF.replace('{ data = "fashion-mnist", subset = "all" }', start)
    assert message in refused(suite)


def test_classes_must_agree_too(refused):
    suite = FROM_OTHER_HALF.replace('"mnist"\n[', '"cifar100"\n[').replace("fashion-mnist", "cifar10")
    assert "10 classes) fit no model for 'cifar100' (3×32×32, 100 classes)" in refused(suite)


def test_a_limit_that_leaves_a_start_nothing_is_refused(refused):
    suite = FROM_OTHER_HALF.replace('subset = "second-half"\n', "").replace(
        "[robustness.matrix]", "limit = 1\n[robustness.matrix]"
    )
    assert "1 leaves 'first-half' no example to train on" in refused(suite)
