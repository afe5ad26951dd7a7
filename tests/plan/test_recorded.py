"""The index of a results folder: each record is read once."""

from __future__ import annotations

import numpy as np
import pytest

from epsbench.harness.digest import cell_id
from epsbench.harness.errors import InputError
from epsbench.harness.plan import recorded
from epsbench.harness.plan.recorded import RecordIndex
from epsbench.harness.records import Record, Verdicts, record_path, write_record

SHA = "ab" * 32


def record(number: int, weights: str = SHA, status: str = "ok", **others: object) -> Record:
    bits = np.arange(8) < number
    cell = {"task": "robustness", "attack": {"name": "fgsm"}, "norm": "linf", "eps": "0.1", "seed": number}
    cell |= others
    return Record(
        id=cell_id(cell, {}),
        status=status,
        cell=cell,
        cost={"backwards": 3, "seconds": 1.0},
        training={"weights_sha256": weights},
        verdicts=Verdicts.pack(np.ones(8, bool), bits),
    )


def ids(*numbers: int) -> list[str]:
    return sorted(record(number).id for number in numbers)


def test_an_entry_holds_what_a_run_needs_again(tmp_path):
    write_record(tmp_path, record(3))
    entry = RecordIndex(tmp_path).entry(record(3).id)
    assert (entry.status, entry.weights) == ("ok", SHA)
    assert entry.cell == {"attack": {"name": "fgsm"}, "norm": "linf", "eps": "0.1"}
    assert entry.cost == {"backwards": 3}
    assert entry.verdicts == record(3).verdicts


@pytest.mark.parametrize("made", [record(1, status="void"), record(1, source={"model": "other"}), record(1, task="x")])
def test_only_white_box_measurements_keep_their_verdicts(tmp_path, made):
    write_record(tmp_path, made)
    assert RecordIndex(tmp_path).entry(made.id).verdicts is None


def test_every_file_is_read_once_however_often_it_is_asked_for(tmp_path, read):
    for number in range(4):
        write_record(tmp_path, record(number, weights=SHA if number % 2 else "cd" * 32))
    index = RecordIndex(tmp_path)
    for _ in range(3):
        assert index.entry(record(2).id).id == record(2).id
        assert [entry.id for entry in index.of_weights(SHA)] == ids(1, 3)
    index.list_again()
    index.of_weights(SHA)
    assert sorted(read) == ids(*range(4))


def test_what_a_run_writes_is_known_without_reading(tmp_path, read):
    index = RecordIndex(tmp_path)
    assert index.of_weights(SHA) == []
    for number in (2, 1):
        write_record(tmp_path, record(number))
        index.add(record(number))
    assert [entry.id for entry in index.of_weights(SHA)] == ids(1, 2)
    assert index.is_unchanged(record(1).id)
    write_record(tmp_path, record(1, status="failed"))
    assert not index.is_unchanged(record(1).id)
    assert index.entry(record(1).id).status == "failed"
    assert read == [record(1).id]


def test_records_of_other_processes_are_seen_after_listing_again(tmp_path):
    index = RecordIndex(tmp_path)
    index.of_weights(SHA)
    write_record(tmp_path, record(1))
    assert index.of_weights(SHA) == []
    index.list_again()
    assert [entry.id for entry in index.of_weights(SHA)] == [record(1).id]
    record_path(tmp_path, record(1).id).unlink()
    index.list_again()
    assert index.of_weights(SHA) == []


def test_an_unreadable_record_matters_only_to_the_weights_that_it_names(tmp_path):
    path = write_record(tmp_path, record(1))
    path.write_bytes(path.read_bytes()[:-20])
    index = RecordIndex(tmp_path)
    assert index.of_weights("cd" * 32) == []
    with pytest.raises(InputError, match="not a record"):
        index.of_weights(SHA)
    with pytest.raises(InputError, match="not a record"):
        index.entry(record(1).id)


def test_the_folder_may_have_another_path(tmp_path, monkeypatch, read):
    write_record(tmp_path / "results", record(1))
    monkeypatch.chdir(tmp_path)
    index = RecordIndex(recorded.Path("results"))
    index.entry(record(1).id)
    moved = index.moved(tmp_path / "results")
    monkeypatch.chdir("/")
    assert moved.of_weights(SHA) == [moved.entry(record(1).id)]
    assert read == [record(1).id]


def test_the_newest_record_of_some_cells(tmp_path):
    times = {1: "2026-11-02T14:03:59+00:00", 2: "2026-11-02T16:30:00+05:00", 3: "", 4: "yesterday"}
    for number, finished in times.items():
        write_record(tmp_path, record(number).model_copy(update={"finished": finished}))
    index = RecordIndex(tmp_path)
    ids = [record(number).id for number in times]
    assert f"{index.newest(ids):%Y-%m-%d %H:%M}" == "2026-11-02 14:03"
    assert f"{index.newest(ids[1:]):%Y-%m-%d %H:%M}" == "2026-11-02 11:30"
    assert index.newest(ids[2:]) is None
    assert index.newest(["ffffffff"]) is None
