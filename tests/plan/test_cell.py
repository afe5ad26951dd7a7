"""Ids: equal for equal cells however they are written, different for different code."""

from __future__ import annotations

import pickle
import re

import pytest

from epsbench.harness.plan.named import Named, freeze, thaw, without_places
from epsbench.harness.plan.suite import load_suite

MINE = '''"""Mine."""
from dataclasses import dataclass
from epsbench.attacks.base import GradientAttack

@dataclass(frozen=True, kw_only=True)
class Step(GradientAttack):
    def update(self, x_adv, gradient, eps, step):
        return x_adv + 0.5 * eps * self.norm.direction(gradient)
'''


def ids(suite):
    return {cell.id for cell in suite.cells}


def test_spelling_and_order_do_not_change_ids(load, small):
    other = """
    [robustness.matrix]
    eps = [1e-1, "16/510"]
    attack = [{ steps = 4, random_start = false, name = "pgd" }, { name = "fgsm" }, "noise"]
    defense = [{ alpha = 0.5, name = "fgsm-loss" }, "none"]
    model = [{ name = "smallcnn", width = 16 }]
    norm = "linf"
    seed = 0
    [robustness]
    early_stop = true
    training = { epochs = 10, momentum = 0.9 }
    data = "digits"
    """
    assert ids(load(other)) == ids(load(small))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[robustness.matrix]", "early_stop = false\n[robustness.matrix]"),
        ("[robustness.matrix]", "limit = 5\n[robustness.matrix]"),
        ("[robustness.matrix]", "training = { epochs = 3 }\n[robustness.matrix]"),
        ("[robustness.matrix]", "[robustness.matrix]\nseed = 1"),
        ("[robustness.matrix]", '[robustness.matrix]\nnorm = "l2"'),
        ('"digits"', '"mnist"'),
    ],
)
def test_whatever_is_measured_changes_the_id(load, small, old, new):
    assert not ids(load(small)) & ids(load(small.replace(old, new, 1)))


def test_a_recipe_key_younger_than_the_records_counts_only_where_it_is_used(load, small):
    """The ids are those of before there was averaging."""

    def with_average(value):
        return load(small.replace("[robustness.matrix]", f"training = {{ average = {value} }}\n[robustness.matrix]", 1))

    plain, off, on = load(small), with_average(0), with_average(0.999)
    assert ids(off) == ids(plain)
    assert not ids(on) & ids(plain)
    assert not {cell.weights_key for cell in on.cells} & {cell.weights_key for cell in plain.cells}
    assert "average" not in plain.cells[0].canonical()["training"]
    assert on.cells[0].canonical()["training"]["average"] == 0.999
    assert dict(plain.cells[0].training)["average"] == 0.0


def test_a_measure_that_is_left_out_leaves_no_trace(load):
    """The ids are those of before there was refinement; weights do not depend on it."""

    def vae(evaluation):
        text = f'[generation]\ndata = "digits"\n[generation.evaluation]\n{evaluation}\n[generation.matrix]\nz_dim = 2\n'
        (cell,) = load(text).cells
        return cell

    plain, off, idle = vae(""), vae("refinement_steps = 0"), vae("refined_images = 7")
    on = [vae(f"refinement_steps = 3\nrefined_images = {n}") for n in (7, 8)]
    assert plain.id == off.id == idle.id
    assert not {"refinement_steps", "refined_images"} & set(plain.canonical()["evaluation"])
    assert len({plain.id, *(cell.id for cell in on)}) == 3
    assert {cell.weights_key for cell in on} == {plain.weights_key}
    assert on[0].canonical()["evaluation"]["refined_images"] == 7


def test_ids_are_distinct_and_weights_are_shared_by_what_trains_them(load, small):
    suite = load(small)
    assert len(ids(suite)) == len(suite.cells)
    assert len({cell.weights_key for cell in suite.cells}) == 2
    attacks_apart = load(small.replace("steps = 4", "steps = 9").replace("0.1", "0.2"))
    assert {cell.weights_key for cell in attacks_apart.cells} == {cell.weights_key for cell in suite.cells}


def test_editing_an_attack_makes_its_cells_stale_and_no_others(load, tmp_path, small):
    text = small.replace('"noise"', '"mine.py:Step"')
    by_attack = {}
    for label, source in {
        "first": MINE,
        "comment": MINE.replace('"""Mine."""', '"""Said otherwise."""\n# And a comment.'),
        "code": MINE.replace("0.5", "0.25"),
    }.items():
        (tmp_path / "mine.py").write_text(source)
        cells = load(text).cells
        by_attack[label] = (
            {cell.id for cell in cells if cell.attack.name == "mine.py:Step"},
            {cell.id for cell in cells if cell.attack.name != "mine.py:Step"},
        )
    assert by_attack["first"] == by_attack["comment"]
    assert not by_attack["first"][0] & by_attack["code"][0]
    assert by_attack["first"][1] == by_attack["code"][1]


def test_other_weights_under_the_same_path_are_another_model(load, tmp_path, small):
    text = small.replace(
        '"smallcnn"', '{ name = "file:w.safetensors", architecture = { name = "smallcnn", width = 8 } }'
    )
    (tmp_path / "w.safetensors").write_bytes(b"one")
    before = load(text)
    (tmp_path / "w.safetensors").write_bytes(b"two")
    assert not ids(before) & ids(load(text))
    assert before.cells[0].canonical()["model"]["architecture"] == {"name": "smallcnn", "width": 8}


def test_a_cell_travels_between_processes(load, small):
    cell = load(small).cells[0]
    assert pickle.loads(pickle.dumps(cell)) == cell
    assert pickle.loads(pickle.dumps(cell)).id == cell.id


def test_a_label_shows_what_is_not_a_default():
    assert Named("pgd", (("restarts", 1), ("steps", 40)), ("steps",)).label() == "pgd(steps=40)"
    assert Named("noise").label() == "noise"


def test_freezing_loses_nothing():
    value = {"b": [1, [2.5, None]], "a": {"x": True, "y": "z"}}
    assert thaw(freeze(value)) == value
    assert hash(freeze(value))
    with pytest.raises(TypeError, match="has no place in a cell"):
        freeze(object())


def test_the_split_is_part_of_the_identity():
    cell = load_suite("mnist").cells[0]
    assert cell.code["data"] == "cf1c81f65bab32f9"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("file:/home/me/best.pt", r"file:best\.pt#[0-9a-f]{6}"),
        ("/home/me/victim.py:load", r"victim\.py#[0-9a-f]{6}:load"),
        ("file:best.pt", r"file:best\.pt"),
        ("timm:resnet18", "timm:resnet18"),
        ("8/255", "8/255"),
    ],
)
def test_a_record_holds_no_absolute_path(value, shown):
    assert re.fullmatch(shown, without_places({"a": [value]})["a"][0])
