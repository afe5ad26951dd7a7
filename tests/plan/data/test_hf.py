"""Data sets of the library ``datasets``, made by these tests and read from disk."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from epsbench.harness.errors import InputError
from epsbench.harness.plan.data.hf import HuggingFace
from epsbench.harness.plan.names.data import read_data, source_of

RNG = np.random.RandomState(5)
IMAGES = RNG.randint(0, 256, (12, 6, 7, 3)).astype(np.uint8)
LABELS = [int(each) for each in np.arange(12) % 3]
NAMES = ["owl", "wren", "gull"]


@pytest.fixture
def hf():
    return pytest.importorskip("datasets", reason="needs the library datasets: pip install 'epsbench[hf]'")


@pytest.fixture
def base(tmp_path, monkeypatch):
    monkeypatch.setenv("EPSBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "suite").mkdir()
    return tmp_path / "suite"


def png(pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def made(hf, images=IMAGES, labels=LABELS, label=None, **more):
    features = {"image": hf.Image(), "label": label or hf.ClassLabel(names=NAMES)}
    features |= {name: hf.Value("int64") for name in more}
    table = {"image": [{"bytes": png(each), "path": None} for each in images], "label": labels, **more}
    return hf.Dataset.from_dict(table, features=hf.Features(features))


def read(entry, base):
    data = read_data({"name": "hf", **entry}, base)
    return data, source_of(data.named, base).read()


def message(entry, base) -> str:
    with pytest.raises(InputError) as caught:
        read_data({"name": "hf", **entry}, base)
    (text,) = caught.value.messages
    return text


def test_a_saved_dict_of_splits(hf, base):
    saved = hf.DatasetDict({"test": made(hf), "train": made(hf, IMAGES[::-1], LABELS[::-1])})
    saved.save_to_disk(base / "birds")
    before = sorted(path.name for path in (base / "birds").rglob("*"))
    data, splits = read({"path": "birds"}, base)
    assert np.array_equal(splits.test.images, IMAGES.transpose(0, 3, 1, 2))
    assert splits.test.labels.tolist() == LABELS
    assert data.description.class_names == tuple(NAMES)
    assert (data.description.classes, data.description.shape) == (3, (3, 6, 7))
    assert data.description.sizes == (11, 1, 12)
    assert data.description.mean == pytest.approx(IMAGES[::-1].mean((0, 1, 2)) / 255, abs=0.02)
    assert str(data).startswith("birds (")
    assert data.record()["path"] == "birds"
    assert sorted(path.name for path in (base / "birds").rglob("*")) == before


def test_the_same_images_have_the_same_content_however_they_are_kept(hf, base):
    made(hf).save_to_disk(base / "saved")
    (base / "parquet").mkdir()
    made(hf).to_parquet(base / "parquet" / "test.parquet")
    np.savez(base / "arrays.npz", images=IMAGES, labels=LABELS, class_names=NAMES)
    contents = {
        read_data(entry, base).description.content
        for entry in (
            {"name": "hf", "path": "saved"}, {"name": "hf", "path": "parquet"},
            {"name": "hf", "path": "parquet/test.parquet"}, "arrays.npz",
        )
    }  # fmt: skip
    assert len(contents) == 1


def test_a_folder_of_images(hf, base):
    for number, (pixels, label) in enumerate(zip(IMAGES, LABELS, strict=True)):
        place = base / "photos" / "test" / NAMES[label]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:02}.png").write_bytes(png(pixels))
    data, splits = read({"path": "photos"}, base)
    folder = source_of(read_data("photos", base).named, base).read()
    assert data.description.class_names == tuple(sorted(NAMES))

    def as_bytes(part):
        return sorted((int(label), image.tobytes()) for image, label in zip(part.images, part.labels, strict=True))

    assert as_bytes(splits.test) == as_bytes(folder.test)


def test_resize_crop_grey_ids_and_streaming(hf, base, monkeypatch):
    made(hf).save_to_disk(base / "birds")
    (base / "ids.txt").write_text("7\n2\n")
    entry = {"path": "birds", "resize": 5, "crop": 4, "channels": 1, "ids": "ids.txt"}
    data, splits = read(entry, base)
    assert splits.test.images.shape == (2, 1, 4, 4)
    assert splits.test.labels.tolist() == [LABELS[7], LABELS[2]]
    monkeypatch.setenv("EPSBENCH_DATA_MEMORY", "0")
    monkeypatch.setenv("EPSBENCH_CACHE", str(base / "other"))
    streamed, again = read(entry, base)
    assert streamed.description == data.description
    assert np.array_equal(again.test.images[:], splits.test.images)


def test_it_is_loaded_again_only_where_it_changed(hf, base, monkeypatch):
    import os

    made(hf).save_to_disk(base / "birds")
    for path in (base / "birds").rglob("*"):
        os.utime(path, ns=(10**18, 10**18))
    known = read_data({"name": "hf", "path": "birds"}, base).description
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "datasets", None)
        assert read_data({"name": "hf", "path": "birds"}, base).description == known
    made(hf, IMAGES[::-1]).save_to_disk(base / "birds")
    assert read_data({"name": "hf", "path": "birds"}, base).description.content != known.content


def test_splits_and_columns_by_name(hf, base):
    saved = hf.DatasetDict({"a": made(hf, coarse=[0] * 12), "b": made(hf, IMAGES[:6], LABELS[:6], coarse=[0, 1] * 3)})
    saved.save_to_disk(base / "birds")
    text = message({"path": "birds"}, base)
    assert text == "data 'birds': has the splits a, b; say which to measure on: test = \"…\""
    data, splits = read({"path": "birds", "test": "b", "train": "a", "labels": "coarse"}, base)
    assert splits.test.labels.tolist() == [0, 1] * 3
    assert data.description.sizes == (11, 1, 6)
    assert "there is no such split; known: a, b" in message({"path": "birds", "test": "testing"}, base)
    assert "no such column; did you mean 'coarse'?" in message(
        {"path": "birds", "test": "b", "labels": "coarsely"}, base
    )


def test_what_cannot_be_used_is_one_message(hf, base):
    made(hf, labels=[-1] * 12).save_to_disk(base / "unlabelled")
    assert "all labels are -1: the split has none" in message({"path": "unlabelled"}, base)
    made(hf, labels=["owl"] * 12, label=hf.Value("string")).save_to_disk(base / "text")
    assert 'labels are text; number them: dataset.class_encode_column("label")' in message({"path": "text"}, base)
    made(hf, labels=[0.5] * 12, label=hf.Value("float32")).save_to_disk(base / "floats")
    assert "labels are float" in message({"path": "floats"}, base)
    broken = hf.Dataset.from_dict(
        {"image": [{"bytes": png(IMAGES[0]), "path": None}, {"bytes": b"broken", "path": None}], "label": [0, 1]},
        features=made(hf).features,
    )
    broken.save_to_disk(base / "broken")
    assert "data 'broken', example 1: is no image, or damaged" in message({"path": "broken"}, base)
    sizes = hf.concatenate_datasets([made(hf), made(hf, IMAGES[:, :5])])
    sizes.save_to_disk(base / "sizes")
    assert "data 'sizes', example 12: has 5×7 pixels, and the first image 6×7; set resize" in message(
        {"path": "sizes"}, base
    )
    other = made(hf, label=hf.ClassLabel(names=["owl", "wren", "crow"]))
    hf.DatasetDict({"test": made(hf), "train": other}).save_to_disk(base / "classes")
    assert "the classes of 'train' are not those of the test split ('crow', 'gull')" in message(
        {"path": "classes"}, base
    )
    made(hf).remove_columns("label").save_to_disk(base / "half")
    assert "no column holds labels (image); name it" in message({"path": "half"}, base)
    assert "cannot be loaded" in message({"path": "nobody/has-this"}, base)
    (base / "nothing").mkdir()
    assert "cannot be loaded" in message({"path": "nothing"}, base)
    assert "crop must not be negative" in message({"path": "text", "crop": -1}, base)


def test_an_empty_split_is_refused(hf, base, monkeypatch):
    made(hf).save_to_disk(base / "birds")
    monkeypatch.setattr(HuggingFace, "_load", lambda self, library: {"test": made(hf).select([])})
    assert message({"path": "birds"}, base) == "data 'birds': the split 'test' is empty"


def test_without_the_library_the_message_names_the_extra(base, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    (base / "birds").mkdir()
    assert "install it: pip install 'epsbench[hf]'" in message({"path": "birds"}, base)


def test_describing_needs_no_torch(hf, base):
    made(hf).save_to_disk(base / "birds")
    script = (
        "import sys; from pathlib import Path; from epsbench.harness.plan.names.data import read_data; "
        f"print(read_data({{'name': 'hf', 'path': 'birds'}}, Path({str(base)!r}))); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
