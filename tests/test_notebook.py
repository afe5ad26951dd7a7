"""The notebook of the docs runs, and shows what it shows in the repository.

``python tests/test_notebook.py`` runs its cells, without Jupyter, and stores what they show.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import getpass
import io
import json
import os
import re
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytest

PATH = Path(__file__).parents[1] / "docs/notebook.ipynb"
Outputs = list[dict[str, Any]]


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def run(notebook: dict[str, Any], folder: Path) -> list[Outputs]:
    """What each code cell of a notebook shows, all run in one namespace and in this folder."""
    import matplotlib

    matplotlib.use("Agg")
    names: dict[str, Any] = {"__name__": "__main__"}
    before = Path.cwd()
    os.chdir(folder)
    try:
        return [_outputs("".join(cell["source"]), number, names) for number, cell in enumerate(code_cells(notebook), 1)]
    finally:
        os.chdir(before)


def _outputs(source: str, number: int, names: dict[str, Any]) -> Outputs:
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, f"cell {number}", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
    outputs: Outputs = []
    if printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": _lines(printed.getvalue())})
    if value is not None:
        outputs.append(
            {"output_type": "execute_result", "execution_count": number, "metadata": {}, "data": _shown(value)}
        )
    return outputs


def _shown(value: Any) -> dict[str, Any]:
    """A value as Jupyter shows it: as text, and as HTML or a picture where it can be one."""
    data: dict[str, Any] = {"text/plain": _lines(repr(value))}
    if hasattr(value, "savefig"):
        picture = io.BytesIO()
        value.savefig(picture, format="png", dpi=60, metadata={"Software": None})
        return {"text/plain": ["<Figure>"], "image/png": base64.b64encode(picture.getvalue()).decode() + "\n"}
    if html := getattr(value, "_repr_html_", lambda: None)():
        data["text/html"] = _lines(html)
    return data


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def main() -> None:
    notebook = json.loads(PATH.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="error"):
        for number, (cell, outputs) in enumerate(
            zip(code_cells(notebook), run(notebook, Path(folder)), strict=True), 1
        ):
            cell["execution_count"], cell["outputs"] = number, outputs
    PATH.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


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


if __name__ == "__main__":
    main()
