"""Changes of a suite from the command line: typed values, places in lists, messages that name the key."""

from __future__ import annotations

import tomllib

import pytest

from epsbench.harness.errors import InputError
from epsbench.harness.plan.changes import apply_changes, read_changes
from epsbench.harness.plan.suite import load_suite, shipped_suites, suite_text
from epsbench.harness.plan.toml import as_toml, toml_value


def changed(suite: str, *texts: str):
    return load_suite(suite, changes=texts)


def test_a_key_is_changed_and_the_suite_says_so():
    before, after = load_suite("quickstart"), changed("quickstart", "generation.training.epochs=3")
    (vae,) = (cell for cell in after.cells if cell.task == "generation")
    assert dict(vae.training)["epochs"] == 3
    assert after.description == f"{before.description} (changed: generation.training.epochs = 3)"
    classifiers = {cell.id for cell in before.cells if cell.task == "robustness"}
    assert classifiers == {cell.id for cell in after.cells} - {vae.id}
    assert vae.id not in {cell.id for cell in before.cells}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3), ("0.5", 0.5), ("true", True), ("8/255", "8/255"), ("digits", "digits"), ('"3"', "3"),
        ('[0.1, "8/255"]', [0.1, "8/255"]), ('{ name = "pgd", steps = 3 }', {"name": "pgd", "steps": 3}),
    ],
)  # fmt: skip
def test_values_are_typed_as_in_a_suite(text, value):
    assert toml_value(text) == value
    assert type(toml_value(text)) is type(value)


def test_places_in_lists_and_parameters_of_names():
    suite = changed("quickstart", "robustness.matrix.attack[2].steps=4", "robustness.matrix.defense.1.eps=0.2",
                    "robustness.matrix.attack[0]=mi-fgsm", "robustness.expect=[]")  # fmt: skip
    cells = [cell for cell in suite.cells if cell.task == "robustness"]
    assert {cell.attack.name for cell in cells} == {"mi-fgsm", "fgsm", "pgd"}
    assert {dict(cell.attack.params)["steps"] for cell in cells if cell.attack.name == "pgd"} == {4}
    assert any("eps=0.2" in cell.defense.label() for cell in cells)


def test_a_table_that_the_file_leaves_out_is_made_and_a_name_alone_gets_parameters():
    document = {"robustness": {"matrix": {"model": "smallcnn"}}}
    wanted = read_changes(["robustness.training.epochs=1", "robustness.matrix.model.width=8"])
    assert apply_changes(document, wanted) == {
        "robustness": {"matrix": {"model": {"name": "smallcnn", "width": 8}}, "training": {"epochs": 1}}
    }
    assert document == {"robustness": {"matrix": {"model": "smallcnn"}}}


def test_a_start_from_scratch_is_no_name():
    """``scratch`` and ``self`` stand where there is no table: a key of them makes a table of that key alone."""
    document = {"robustness": {"matrix": {"start": ["scratch", {"data": "digits"}], "source": "self"}}}
    wanted = read_changes(["robustness.matrix.start[0].defense=none", "robustness.matrix.source.seed=1"])
    assert apply_changes(document, wanted)["robustness"]["matrix"] == {
        "start": [{"defense": "none"}, {"data": "digits"}], "source": {"seed": 1}
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs=3", "--set epochs: unknown key; did you mean 'robustness.training.epochs' or 'generation.training."),
        ("generation.training.epoch=3", "training.epoch: unknown key; did you mean 'generation.training.epochs'?"),
        ("generatoin.training.epochs=3", "--set generatoin.training.epochs: unknown key; did you mean 'generation."),
        ("generation.training.epochs=abc",
         "generation.training.epochs: must be an integer, not 'abc' (from --set generation.training.epochs=abc)"),
        ("robustness.matrix.eps[9]=1", "robustness.matrix.eps has 3 entries, the last is robustness.matrix.eps[2]"),
        ("robustness.matrix.attack.steps=3", "is a list; say which entry: robustness.matrix.attack[0].steps"),
        ("robustness.matrix.attack[2].stepz=3", "unknown parameter 'stepz'; did you mean 'steps'? (from --set robust"),
        ("robustness.matrix.attack[1].steps=4", "pgd takes more steps (from --set robustness.matrix.attack[1].steps"),
        ("robustness.training.epochs=nan", "--set: robustness.training.epochs: must be a finite number"),
        ("robustness.include[0].seed=1", "robustness.include is not in the suite; set it as a whole"),
        ("robustness.matrix.eps[0].x=1", "robustness.matrix.eps[0] is 0.05, which has no 'x'"),
        ("robustness.matrix.eps=[0.1,8/255]",
         '--set robustness.matrix.eps: [0.1,8/255] is no list or table; texts in it need quotes'),
        ("epochs", "--set 'epochs': must be KEY=VALUE"), ("=3", "must be KEY=VALUE"), ("a..b=1", "must be KEY=VALUE"),
    ],
)  # fmt: skip
def test_a_change_that_cannot_be_made_is_one_message_with_the_key(text, message):
    with pytest.raises(InputError) as error:
        changed("quickstart", text)
    assert len(error.value.messages) == 1
    assert message in str(error.value)


def test_a_part_that_the_suite_lacks_is_named():
    with pytest.raises(InputError, match=r"this suite has no \[generation\]; its parts are \[robustness\]"):
        changed("mnist", "generation.training.epochs=3")


@pytest.mark.parametrize("name", sorted(shipped_suites()))
def test_a_suite_written_anew_is_the_same_suite(name):
    document = tomllib.loads(shipped_suites()[name].read_text(encoding="utf-8"))
    assert tomllib.loads(as_toml(document)) == document


def test_odd_texts_survive_being_written():
    document = {"description": 'a "b"\\\n\tε \x01', "robustness": {"odd key": {"x": []}, "y": [{}], "z": -1e-9}}
    assert tomllib.loads(as_toml(document)) == document


def test_a_changed_suite_is_shown_with_its_change():
    assert suite_text("mnist") == shipped_suites()["mnist"].read_text(encoding="utf-8")
    text = suite_text("quickstart", ["generation.training.epochs=3"])
    assert tomllib.loads(text)["generation"]["training"]["epochs"] == 3
