"""Reports of many cells: the work grows with the number of cells, not with its square. Calls are counted, not timed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import factory
import numpy as np
import pytest
from generative_factory import model

from epsbench.harness.records import Record
from epsbench.harness.report.build import FORMATS
from epsbench.harness.report.content import Content
from epsbench.harness.report.results.loading import load_results
from tests.counting import calls

CLEAN = np.ones(8, dtype=bool)
FEW, TIMES = 75, 4
MOST = 1.25 * TIMES  # in proportion is TIMES; in proportion to the square would be TIMES ** 2


def robust(index: int) -> np.ndarray:
    return np.arange(8) >= index % 7


def _at_many_eps(index: int) -> Record:
    attack = {"name": ("noise", "fgsm")[index % 2]}
    return factory.robustness(CLEAN, robust(index), attack=attack, eps=f"{index // 2 + 1}/10000")


def _of_many_kinds(index: int) -> Record:
    """At many ε, each in three kinds: measured alone, on images of another model, and on a nested curve."""
    source = {"model": {"name": "resnet18"}, "defense": {"name": "none"}, "augmentation": "none", "seed": 0}
    kinds: tuple[dict[str, Any], ...] = ({}, {"source": source}, {"curve": "nested"})
    return factory.robustness(CLEAN, robust(index), eps=f"{index // 3 + 1}/10000", **kinds[index % 3])


SHAPES: dict[str, Callable[[int], Record]] = {
    "ε": _at_many_eps,
    "kinds": _of_many_kinds,
    "models": lambda i: factory.robustness(CLEAN, robust(i), model={"name": "smallcnn", "width": i + 1}),
    "defenses": lambda i: factory.robustness(CLEAN, robust(i), defense={"name": "pgd-batch", "steps": i}),
    "recipes": lambda i: factory.robustness(CLEAN, robust(i), training={"epochs": i + 1}),
    "seeds": lambda i: factory.robustness(CLEAN, robust(i), seed=i),
    "attacks": lambda i: factory.robustness(CLEAN, robust(i), attack={"name": "pgd", "steps": i + 1, "restarts": 1}),
    "void": lambda i: factory.void(CLEAN, robust(i), eps=f"{i + 1}/10000"),
    "z": lambda i: factory.generation(0.5 + i / 1000, z_dim=i + 1, epochs=2),
    "β": lambda i: model(0.5 + i / 1000, z_dim=3, beta=0.1 + i / 100),
    "seeds of a VAE": lambda i: factory.generation(0.5 + i / 1000, seed=i, epochs=2),
}  # fmt: skip


def folder_of(tmp_path: Path, shape: str, number: int) -> Path:
    folder = tmp_path / str(number)
    return factory.write(folder, *map(SHAPES[shape], range(number)))


def render(folder: Path, *formats: str) -> None:
    content = Content(load_results(folder))
    for name in formats:
        assert FORMATS[name](content)


@pytest.mark.parametrize("shape", SHAPES)
def test_four_times_the_cells_take_four_times_the_work(tmp_path, shape):
    formats = "text", "markdown", "csv", "json"
    render(folder_of(tmp_path, shape, 2), *formats)  # what is imported and cached once
    few, many = (calls(partial(render, folder_of(tmp_path, shape, number), *formats)) for number in (FEW, TIMES * FEW))
    assert many < MOST * few


@pytest.mark.parametrize("shape", ["models", "attacks", "z"])
def test_a_page_of_many_models_or_attacks_draws_the_first_and_says_so(tmp_path, shape):
    content = Content(load_results(folder_of(tmp_path, shape, 40)))
    page = FORMATS["html"](content)
    assert page.count("<figure") <= 20
    if shape != "attacks":
        assert "more models not drawn." in page
