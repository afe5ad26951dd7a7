"""A file holds its old content or all of the new, whatever happens while it is written."""

from __future__ import annotations

import pytest

from epsbench.harness import files
from epsbench.harness.errors import InputError
from epsbench.harness.files import keep, write_atomically


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
def test_a_failing_write_leaves_the_old_content_and_no_litter(tmp_path, monkeypatch, step):
    path = tmp_path / "kept.json"
    write_atomically(path, b"old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_the_old_content_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "kept.json"
    write_atomically(path, b"old")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (
            lambda folder: (folder / "weights").write_text("a file"),
            "the file that is where its folder belongs",
        ),
        (
            lambda folder: (folder / "weights" / "a.safetensors").mkdir(parents=True),
            "the folder of this name",
        ),
    ],
)
def test_what_is_in_the_way_is_named(tmp_path, make, named):
    make(tmp_path)
    with pytest.raises(
        InputError, match=f"a.safetensors: cannot be written .*: move away {named}, or give another folder"
    ):
        keep(tmp_path / "weights" / "a.safetensors", b"weights")
