"""Runs the cells of a notebook, without Jupyter, and stores what they show.

``python tests/notebook_cells.py docs/notebook.ipynb`` stores the outputs; `test_notebook.py` compares them.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

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


def main(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="error"):
        for number, (cell, outputs) in enumerate(
            zip(code_cells(notebook), run(notebook, Path(folder)), strict=True), 1
        ):
            cell["execution_count"], cell["outputs"] = number, outputs
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
