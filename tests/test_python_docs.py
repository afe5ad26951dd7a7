"""The Python of docs/python.md and of the top of the README runs as it is printed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parent.parent


def blocks(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)


def test_the_examples_of_the_python_page(network, digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x, y = (each[:6] for each in digits)
    names = {"model": network, "robust_model": network, "x": x, "y": y}
    for block in blocks("docs/python.md"):
        exec(compile(block, "docs/python.md", "exec"), names)
    assert names["adversarial"].shape == x.shape
    assert len(names["frame"]) == 2
    assert names["samples"].shape == (16, 1, 8, 8)
    assert Path("images-0.npz").is_file()


def test_the_first_lines_of_the_readme(network, digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    torch.save(network, "whole.pt")
    Path("victim.py").write_text("import torch\nmodel = torch.load('whole.pt', weights_only=False)\n")
    np.savez("test.npz", images=digits[0][:3].numpy(), labels=digits[1][:3].numpy())
    names: dict[str, object] = {}
    try:
        exec(compile(blocks("README.md")[0], "README.md", "exec"), names)
    finally:
        sys.modules.pop("victim", None)
    assert 0 <= names["result"].robust_accuracy <= names["result"].clean_accuracy <= 1
