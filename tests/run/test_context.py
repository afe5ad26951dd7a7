"""What a run writes beside its records may fail without failing a cell."""

from __future__ import annotations

import pytest

from epsbench.harness.run.context import GuardedBoard


def test_curves_that_cannot_be_written_stop_nothing(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    board = GuardedBoard(tmp_path / "file" / "key")
    board.add_scalar("training/loss", 1.0, 1)
    board.close()
    assert "no curves for TensorBoard" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["add_scalar", "close"])
def test_a_writer_that_fails_on_its_way_is_given_up(tmp_path, capsys, monkeypatch, method):
    board = GuardedBoard(tmp_path / "key")
    writer = board._writer

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, method, full)
    board.add_scalar("training/loss", 1.0, 1)
    board.close()
    board.add_scalar("training/loss", 1.0, 2)
    assert capsys.readouterr().err.count("No space left on device") == 1


def test_curves_are_written(tmp_path):
    board = GuardedBoard(tmp_path / "key")
    board.add_scalar("training/loss", 1.0, 1)
    board.close()
    assert list((tmp_path / "key").glob("events.out.tfevents.*"))
