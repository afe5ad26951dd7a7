"""Records survive what happens to files: torn, truncated, swapped, half-written, fuzzed."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import epsbench
from epsbench.harness.digest import cell_id
from epsbench.harness.errors import InputError
from epsbench.harness.findings import Finding
from epsbench.harness.frames import flatten, frame
from epsbench.harness.records import (
    Failure,
    Metric,
    Record,
    Verdicts,
    files,
    pack_bits,
    read_pictures,
    read_record,
    read_records,
    record_path,
    unpack_bits,
    write_pictures,
    write_record,
)
from epsbench.harness.records.numbers import finite_number

REFERENCE = Path(epsbench.__file__).parent / "results" / "reference"


def record(**fields) -> Record:
    """A record under the id of its cell and code, where ``fields`` have no other."""
    given_fields = {
        "status": "ok",
        "cell": {"task": "robustness", "attack": {"name": "pgd", "steps": 10}, "eps": "8/255"},
        "metrics": {"robust_accuracy": Metric(value=0.5, low=0.4, high=0.6, n=8)},
        "verdicts": Verdicts.pack(np.ones(8, dtype=bool), np.arange(8) < 4),
    }
    given_fields |= fields
    return Record(**({"id": cell_id(given_fields["cell"], given_fields.get("code", {}))} | given_fields))


@given(st.lists(st.booleans(), max_size=70))
def test_bits_come_back(bits):
    assert unpack_bits(pack_bits(np.array(bits, dtype=bool)), len(bits)).tolist() == bits


def test_fewer_bits_than_promised_are_refused():
    with pytest.raises(ValueError, match="8 packed bits where 9"):
        unpack_bits(pack_bits(np.ones(8, dtype=bool)), 9)


def test_a_record_comes_back(tmp_path):
    written = record(
        findings=(Finding(code="no-op", severity="void", message="m", evidence={"a": [1]}),),
        failure=Failure(type="E", message="m", traceback="t"),
        curves={"train_loss": [1.0, 0.5]},
    )
    assert read_record(write_record(tmp_path, written)) == written
    assert read_records(tmp_path) == [written]


def test_records_are_read_oldest_first_and_an_empty_folder_is_empty(tmp_path):
    assert read_records(tmp_path) == []
    later, earlier = (record(cell={"seed": seed}, started=f"2026-0{2 - seed}") for seed in range(2))
    for each in (later, earlier):
        write_record(tmp_path, each)
    assert [r.id for r in read_records(tmp_path)] == [earlier.id, later.id]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_could_not_be_read_back_is_refused_before_it_is_written(value):
    with pytest.raises(ValidationError, match="finite"):
        Metric(value=value)
    with pytest.raises(ValidationError, match="finite"):
        record(curves={"train_loss": [value]})


def damage_torn(text: str) -> str:
    return text[: len(text) // 2]


def damage_bits(text: str) -> str:
    tree = json.loads(text)
    tree["verdicts"]["robust"] = ""
    return json.dumps(tree)


def damage_base64(text: str) -> str:
    tree = json.loads(text)
    tree["verdicts"]["clean"] = tree["verdicts"]["clean"][:-1]
    return json.dumps(tree)


def damage_identity(text: str) -> str:
    return json.dumps(json.loads(text) | {"id": "f" * 16})


def damage_cell(text: str) -> str:
    return json.dumps(json.loads(text) | {"cell": {"task": "robustness", "eps": "4/255"}})


def damage_code(text: str) -> str:
    return json.dumps(json.loads(text) | {"code": {"attack": "2"}})


def damage_status(text: str) -> str:
    return json.dumps(json.loads(text) | {"status": "robust"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_torn, "not a record"),
        (lambda _: "", "not a record"),
        (lambda _: "[]", "not a record"),
        (damage_bits, "verdicts"),
        (damage_base64, "verdicts"),
        (damage_identity, "holds the record of cell ffffffffffffffff"),
        (damage_cell, "was changed after it was written: its id is not that of its cell and code"),
        (damage_code, "was changed after it was written: its id is not that of its cell and code"),
        (damage_status, "status"),
    ],
)
def test_damage_is_one_message_with_file_and_remedy(tmp_path, damage, message):
    path = write_record(tmp_path, record())
    path.write_text(damage(path.read_text()))
    with pytest.raises(InputError) as caught:
        read_records(tmp_path)
    (shown,) = caught.value.messages
    assert shown.startswith(str(path))
    assert message in shown
    assert "delete the file" in shown


def test_every_damaged_file_is_named_at_once(tmp_path):
    paths = sorted(write_record(tmp_path, record(cell={"seed": seed})) for seed in range(3))
    damaged = paths[::2]
    for path in damaged:
        path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError) as caught:
        read_records(tmp_path)
    assert [m.split(":")[0] for m in caught.value.messages] == [str(path) for path in damaged]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=6,
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_fuzzed_file_is_a_record_or_an_input_error(tmp_path, data):
    path = write_record(tmp_path, record())
    tree = json.loads(path.read_text())
    kind = data.draw(st.sampled_from(["replace", "delete", "nested", "bytes", "cut"]))
    content = path.read_bytes()
    if kind == "replace":
        tree[data.draw(st.sampled_from(sorted(tree)))] = data.draw(json_values)
        content = json.dumps(tree).encode()
    elif kind == "delete":
        del tree[data.draw(st.sampled_from(sorted(tree)))]
        content = json.dumps(tree).encode()
    elif kind == "nested":
        part = tree[data.draw(st.sampled_from(["verdicts", "metrics", "cell"]))]
        part[data.draw(st.sampled_from(sorted(part)))] = data.draw(json_values)
        content = json.dumps(tree).encode()
    elif kind == "bytes":
        place = data.draw(st.integers(0, len(content) - 1))
        content = content[:place] + data.draw(st.binary(max_size=4)) + content[place + 1 :]
    else:
        content = content[: data.draw(st.integers(0, len(content)))]
    path.write_bytes(content)
    try:
        read = read_record(path)
    except InputError as error:
        read = error
    assert isinstance(read, Record) or str(path) in read.messages[0]


def test_a_half_written_temporary_file_is_no_record(tmp_path):
    write_record(tmp_path, record())
    (tmp_path / "cells" / ".ffff.json.x.tmp").write_text("{")
    assert len(read_records(tmp_path)) == 1


def test_pictures_come_back_and_damage_is_reported(tmp_path):
    kept = record(pictures=True)
    assert read_pictures(tmp_path, kept) == {}
    write_pictures(tmp_path, kept.id, {"original": np.ones((2, 1, 3, 3), dtype=np.float32)})
    assert read_pictures(tmp_path, kept)["original"].shape == (2, 1, 3, 3)
    assert read_pictures(tmp_path, record()) == {}
    path = tmp_path / "pictures" / f"{kept.id}.npz"
    whole = path.read_bytes()
    flipped = whole[:70] + bytes([whole[70] ^ 0xFF]) + whole[71:]
    for content in (b"", b"not a zip", whole[:40], whole[: len(whole) // 2], flipped):
        path.write_bytes(content)
        with pytest.raises(InputError, match="not a picture archive"):
            read_pictures(tmp_path, kept)


def test_flat_rows_hold_numbers_as_numbers():
    row = flatten(record())
    assert row["attack"] == "pgd"
    assert (row["robust_accuracy"], row["robust_accuracy_n"]) == (0.5, 8)
    table = frame([record(), record(cell={"seed": 1})])
    assert len(table) == 2
    assert table["robust_accuracy"].mean() == 0.5
    samples = flatten(record(metrics={"precision": Metric(value=0.9, n=5)}, cell={"precision": "bf16"}))
    assert (samples["precision"], samples["metric.precision"], samples["metric.precision_n"]) == ("bf16", 0.9, 5)
    trained = frame([record(training={"seconds": 60.0, "epochs": 3, "form": "folded"})]).iloc[0]
    assert (trained["training_seconds"], trained["training_epochs"]) == (60.0, 3)
    assert "training_form" not in trained


def test_an_enormous_record_is_refused_unread(tmp_path):
    path = record_path(tmp_path, record().id)
    path.parent.mkdir()
    with path.open("wb") as file:
        file.truncate(100 << 20)
    with pytest.raises(InputError, match="larger than 32 MiB; delete the file"):
        read_record(path)


def test_what_is_no_regular_file_is_refused(tmp_path):
    path = record_path(tmp_path, record().id)
    path.parent.mkdir()
    os.mkfifo(path)
    with pytest.raises(InputError, match="no regular file"):
        read_record(path)


@pytest.mark.parametrize("identity", ["../../etc/passwd", "0123abcd/../x", "0123ABCD", "", "01234567\n", "a" * 65])
def test_an_id_that_is_no_hash_is_refused(identity):
    with pytest.raises(ValidationError, match="id"):
        record(id=identity)


def test_pictures_that_unpack_to_more_than_they_may_are_refused(tmp_path, monkeypatch):
    kept = record(pictures=True)
    write_pictures(tmp_path, kept.id, {"original": np.zeros((4, 1, 512, 512), dtype=np.float32)})
    monkeypatch.setattr(files, "LARGEST_PICTURES", 1 << 20)
    with pytest.raises(InputError, match="4 MiB when unpacked, more than 1"):
        read_pictures(tmp_path, kept)


def test_pictures_whose_header_promises_more_than_memory_are_refused(tmp_path):
    kept = record(pictures=True)
    (tmp_path / "pictures").mkdir()
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000, 64), }"
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    member = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(tmp_path / "pictures" / f"{kept.id}.npz", "w") as archive:
        archive.writestr("original.npy", member)
    with pytest.raises(InputError, match="not a picture archive"):
        read_pictures(tmp_path, kept)


def test_messages_carry_nothing_that_a_terminal_acts_on(tmp_path):
    path = write_record(tmp_path, record())
    path.write_text(json.dumps(json.loads(path.read_text()) | {"metrics": {"\x1b[31m\n": 1}}))
    with pytest.raises(InputError) as caught:
        read_record(path)
    (message,) = caught.value.messages
    assert message.isprintable()
    assert "\\x1b[31m" in message


@pytest.mark.parametrize(
    ("value", "number"),
    [(3, 3.0), (0.5, 0.5), (-2, -2.0), (True, None), (None, None), ("3", None), (float("nan"), None),
     (float("-inf"), None), (10**400, None), ([1], None)],
)  # fmt: skip
def test_a_number_in_a_record_is_finite_or_none(value, number):
    assert finite_number(value) == number


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (Metric(value=0.99, low=0.4, high=0.6, n=8), "robust_accuracy is 0.99, outside its interval from 0.4 to 0.6"),
        (Metric(value=0.55, low=0.4, high=0.6, n=8), "robust_accuracy is 0.55, and its verdicts say 0.5"),
        (Metric(value=0.99), "robust_accuracy is 0.99, and its verdicts say 0.5"),
    ],
)
def test_a_number_that_was_edited_is_named(tmp_path, metric, message):
    path = write_record(tmp_path, record(metrics={"robust_accuracy": metric}))
    with pytest.raises(InputError, match=f"{path}: was changed after it was written: {message}; delete the file and"):
        read_record(path)


def test_a_record_shows_itself_without_what_is_packed_of_each_image():
    records = read_records(REFERENCE / "mnist-robust")
    full = next(each for each in records if each.predictions and each.parts)
    assert f"n={full.verdicts.n}" in repr(full)
    for packed in (full.verdicts.robust, full.predictions.adversarial, full.parts[0].fooled):
        assert packed
        assert packed not in repr(full)


def test_every_committed_record_agrees_with_itself():
    folders = [cells.parent for cells in REFERENCE.glob("*/cells")]
    assert sum(len(read_records(folder)) for folder in folders) > 800
