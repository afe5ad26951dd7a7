"""An augmentation of the user's own: named by its file, versioned, tried before anything is trained."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from epsbench.harness.errors import InputError
from epsbench.harness.isolation import isolated
from epsbench.harness.options import Options
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.records import read_records
from epsbench.harness.run.data.augmentation import augmentation_problem
from epsbench.harness.run.runner import run_suite

SUITE = """
[robustness]
data = "digits"
limit = 60
[robustness.training]
epochs = 1
[robustness.matrix]
model = {{ name = "smallcnn", width = 2 }}
augmentation = {augmentation}
attack = "fgsm"
eps = 0.1
"""
INVERTED = """
import torch

def inverted(x, generator):
    mirrored = torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device) < 0.5
    return torch.where(mirrored, {}, x)
"""


def suite(tmp_path, augmentation):
    path = tmp_path / "own.toml"
    path.write_text(SUITE.format(augmentation=augmentation))
    return path


def test_an_own_augmentation_trains_and_is_part_of_the_id(tmp_path):
    (tmp_path / "mine.py").write_text(INVERTED.format("1 - x"))
    path = suite(tmp_path, '["none", "mine.py:inverted"]')
    results = tmp_path / "results"
    assert run_suite(load_suite(path), results, Options(quiet=True)) == 0
    records = {record.cell["augmentation"]: record for record in read_records(results)}
    assert set(records) == {"none", "mine.py:inverted"}
    digests = {record.training["weights_sha256"] for record in records.values()}
    assert len(digests) == 2, "the augmentation changed nothing"
    ids = {cell.augmentation: cell.id for cell in load_suite(path).cells}
    (tmp_path / "mine.py").write_text(INVERTED.format("0.5 * x"))
    changed = {cell.augmentation: cell.id for cell in load_suite(path).cells}
    assert changed["none"] == ids["none"]
    assert changed["mine.py:inverted"] != ids["mine.py:inverted"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("crop-flop", "unknown augmentation 'crop-flop'; did you mean 'crop-flip'?"),
        ("mine.py:inverted2", "has no 'inverted2'; did you mean 'inverted'?"),
        ("nowhere.py:inverted", "nowhere.py cannot be read"),
        ("mine.py:NUMBER", "is no augmentation: it is int and cannot be called"),
        ("mine.py:Class", "is a class; name a function"),
    ],
)
def test_a_wrong_name_is_refused_when_the_suite_is_read(tmp_path, name, message):
    (tmp_path / "mine.py").write_text(INVERTED.format("1 - x") + "\nNUMBER = 3\nclass Class: pass\n")
    with pytest.raises(InputError) as refusal:
        load_suite(suite(tmp_path, f'"{name}"'))
    assert message in str(refusal.value)


def test_what_it_returns_is_checked_before_anything_is_trained(tmp_path):
    (tmp_path / "mine.py").write_text("def dark(x, generator):\n    return x - 2\n")
    results = tmp_path / "results"
    with pytest.raises(InputError, match=r"'mine.py:dark' cannot be used on digits: it returns pixels from -2 to"):
        run_suite(load_suite(suite(tmp_path, '["none", "mine.py:dark"]')), results, Options(quiet=True))
    assert not read_records(results)


def in_place(x, generator):
    return x.mul_(0.5)


OWN = np.random.default_rng(0)


class Alternating:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x, generator):
        self.calls += 1
        return x / self.calls


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (lambda x, generator: x, None),
        (lambda x, generator: (x + torch.rand(x.shape, generator=generator)).clamp(0, 1), None),
        (lambda x, generator: (x + torch.rand(x.shape)).clamp(0, 1), None),
        (lambda x, generator: (x + np.random.rand()).clamp(0, 1).float(), None),
        (lambda x, generator: (x + random.random()).clamp(0, 1), None),
        (lambda x, generator: (x + OWN.random()).clamp(0, 1).float(), "could not be repeated"),
        (lambda x: x, "it raises"),
        (lambda x, generator: exit(3), "it raises"),
        (in_place, "it changes the images that it is given"),
        (lambda x, generator: x.numpy(), "it returns a ndarray"),
        (lambda x, generator: x[:1], "torch.float32 of shape (1, 1, 4, 4)"),
        (lambda x, generator: x.double(), "torch.float64 of shape (3, 1, 4, 4)"),
        (lambda x, generator: (x - 0.5) / 0.25, "clamp them to [0, 1]"),
        (lambda x, generator: x * float("nan"), "it returns pixels from nan"),
        (Alternating(), "could not be repeated"),
    ],
)
def test_what_can_be_wrong_with_an_augmentation(augment, message):
    with isolated(0):
        problem = augmentation_problem(augment, torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0)), 0)
    assert (problem is None) if message is None else (message in str(problem))


def test_the_augmentation_of_the_documentation_works():
    text = (Path(__file__).parents[3] / "docs/your-code.md").read_text(encoding="utf-8")
    block = text.split("## An augmentation")[1].split("```python\n")[1].split("```")[0]
    names: dict[str, object] = {}
    exec(block, names)
    x = torch.ones(6000, 1, 32, 32)
    with torch.random.fork_rng():
        assert augmentation_problem(names["cutout"], x, 0) is None
    out = names["cutout"](x, torch.Generator().manual_seed(0))
    black = out[:, 0] == 0
    assert black.sum((1, 2)).tolist() == [64] * 6000
    assert black.any(0).all(), "every place is covered by some image"
