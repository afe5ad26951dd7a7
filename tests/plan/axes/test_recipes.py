"""The axis ``training``: several recipes in one suite."""

from __future__ import annotations

import pytest

from epsbench.harness.errors import InputError

ROBUSTNESS = """
[robustness]
data = "digits"
[robustness.training]
epochs = 5
average = 0.9
[robustness.matrix]
model = "smallcnn"
training = {recipes}
attack = ["noise", "fgsm"]
eps = 0.1
"""
GENERATION = """
[generation]
data = "digits"
[generation.training]
epochs = 5
[generation.matrix]
z_dim = 2
training = {recipes}
"""


def recipes(suite):
    return list(dict.fromkeys(tuple(sorted(cell.canonical()["training"].items())) for cell in suite.cells))


@pytest.mark.parametrize("text", [ROBUSTNESS, GENERATION])
def test_a_value_changes_the_recipe_of_the_part(load, text):
    suite = load(text.format(recipes="[{}, { epochs = 9, weight_decay = 0.1 }]"))
    plain, changed = (dict(recipe) for recipe in recipes(suite))
    assert plain["epochs"] == 5
    assert changed == plain | {"epochs": 9, "weight_decay": 0.1}
    assert len({cell.weights_key for cell in suite.cells}) == 2
    assert "(epochs = 9, weight_decay = 0.1)" in suite.cells[-1].label()
    assert "(" not in suite.cells[0].label().partition(" ε")[0].replace("smallcnn()", "")


@pytest.mark.parametrize("text", [ROBUSTNESS, GENERATION])
def test_without_changes_the_ids_are_those_of_a_suite_without_the_axis(load, text):
    with_axis, without = load(text.format(recipes="{}")), load(text.replace("training = {recipes}\n", ""))
    assert [cell.id for cell in with_axis.cells] == [cell.id for cell in without.cells]


def test_recipes_that_come_to_the_same_are_one(load):
    assert len(load(GENERATION.format(recipes="[{}, { epochs = 5 }]")).cells) == 1


def test_the_default_of_a_key_is_a_change_where_the_part_says_otherwise(load):
    both = load(GENERATION.format(recipes="[{}, { epochs = 80 }]")).cells
    assert [dict(cell.training)["epochs"] for cell in both] == [5, 80]


def test_where_and_include_take_the_axis(load):
    text = (
        ROBUSTNESS.format(recipes="[{}, { epochs = 9 }]")
        + """
[[robustness.include]]
training = { epochs = 7 }
attack = "fgsm"
[[robustness.expect]]
where = { training = { epochs = 9, average = 0.9 } }
clean_accuracy = { min = 0.5 }
[[robustness.exclude]]
training = { epochs = 5 }
attack = "noise"
"""
    )
    suite = load(text)
    chosen = [(cell.attack.name, dict(cell.training)["epochs"]) for cell in suite.cells]
    assert sorted(chosen) == [("fgsm", 5), ("fgsm", 7), ("fgsm", 9), ("noise", 9)]
    (expectation,) = suite.expectations
    assert {dict(cell.training)["epochs"] for cell in expectation.cells} == {9}


@pytest.mark.parametrize(
    ("recipes", "message"),
    [
        ("[{}, { epoch = 3 }]", "generation.matrix.training[1].epoch: unknown key"),
        ("[{ epochs = -1 }]", "generation.matrix.training[0].epochs: must be"),
        ("[{}, {}]", "generation.matrix.training: entry 1 repeats entry 0"),
        ('"fast"', "generation.matrix.training"),
    ],
)
def test_a_wrong_value_is_named(load, recipes, message):
    with pytest.raises(InputError) as error:
        load(GENERATION.format(recipes=recipes))
    assert message in str(error.value)


def test_what_two_tables_say_together_is_checked(load):
    with pytest.raises(InputError, match=r"robustness\.training: small_epochs: 7 are more than the 5 epochs"):
        load(ROBUSTNESS.format(recipes="{ small_epochs = 7 }"))
    with pytest.raises(InputError, match=r"robustness\.training: unsmoothed_epochs: 7 are more than the 5 epochs"):
        load(ROBUSTNESS.format(recipes="{ unsmoothed_epochs = 7 }"))


@pytest.mark.parametrize(
    ("likelihood", "left"),
    [
        ('{ name = "discretised-logistic" }', {None}),
        ('"discretised-logistic"', {None}),
        ('{ name = "discretised-logistic", components = 3 }', {None, 5}),
        ('{ name = "categorical" }', {3, 5}),
    ],
)
def test_a_name_inside_another_matches_with_the_parameters_given(load, likelihood, left):
    suite = load(f"""
[generation]
data = "digits"
[generation.matrix]
z_dim = 2
model = [
    "vae",
    {{ name = "vae", likelihood = {{ name = "discretised-logistic", components = 3 }} }},
    {{ name = "vae", likelihood = {{ name = "discretised-logistic", components = 5 }} }},
]
[[generation.exclude]]
model = {{ name = "vae", likelihood = {likelihood} }}
""")
    # The default is no part of a cell, because the parameter was added later.
    assert {dict(dict(cell.model.params).get("likelihood", ())).get("components") for cell in suite.cells} == left


def test_a_key_that_no_recipe_has_is_named_in_where(load):
    text = GENERATION.format(recipes="{}") + "[[generation.exclude]]\ntraining = { epoch = 5 }\n"
    with pytest.raises(InputError, match="'epoch' is no key of a recipe; did you mean 'epochs'"):
        load(text)
