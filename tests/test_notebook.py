"""The notebook of the docs runs, and shows what it shows in the repository."""

from __future__ import annotations

import getpass
import json
import re
from pathlib import Path

import pytest
from notebook_cells import code_cells, run

PATH = Path(__file__).parents[1] / "docs/notebook.ipynb"


@pytest.fixture(scope="module")
def notebook():
    return json.loads(PATH.read_text(encoding="utf-8"))


def test_every_cell_runs_and_shows_what_is_stored(notebook, tmp_path):
    """Numbers may differ from machine to machine; their number, words and columns do not."""
    for cell, outputs in zip(code_cells(notebook), run(notebook, tmp_path), strict=True):
        assert [_form(each) for each in outputs] == [_form(each) for each in cell["outputs"]], cell["source"][0]
    assert sum(bool(cell["outputs"]) for cell in code_cells(notebook)) >= 10


def _form(output: dict[str, object]) -> object:
    """What an output is, without its numbers."""
    data = output.get("data", {})
    if "image/png" in data:
        return "picture"
    text = "".join(data.get("text/plain", output.get("text", "")))
    return sorted(set(re.findall(r"[A-Za-z_]{3,}", text)) - {"NaN", "fgsm", "pgd", "True", "False"})


def test_nothing_stored_is_of_the_machine_it_ran_on(notebook):
    text = PATH.read_text(encoding="utf-8")
    assert not re.search(r'[" (](/home|/root|/tmp|/work|/Users|[A-Z]:\\\\)', text)
    assert len(getpass.getuser()) < 5 or getpass.getuser() not in text
    assert "Traceback" not in text
    assert len(text) < 200_000
    assert all(cell["outputs"] or "=" in cell["source"][-1] for cell in code_cells(notebook))


def test_the_notebook_shows_what_a_new_user_needs(notebook):
    code = "\n".join("".join(cell["source"]) for cell in code_cells(notebook))
    for call in ("evaluate(", ".frame()", ".images", "confusion()", "to_latex(", "load_model(", ".sample(", ".encode(",
                 "out=", "records("):  # fmt: skip
        assert call in code
