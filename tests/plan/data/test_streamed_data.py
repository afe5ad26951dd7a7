"""Data beyond the memory for it: decoded once into files, read by position, the same to the last bit."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from epsbench.harness.errors import InputError
from epsbench.harness.plan.data.budget import budget
from epsbench.harness.plan.data.decoded import WorkFolder, decoded_folder
from epsbench.harness.plan.data.pixels import PixelFile
from epsbench.harness.plan.data.stored import open_data, stored
from epsbench.harness.plan.names.data import read_data, source_of

RNG = np.random.RandomState(3)
IMAGES = RNG.randint(0, 256, (30, 3, 6, 7)).astype(np.uint8)
LABELS = np.arange(30) % 3
CODE = """
import numpy as np
X = np.load(__file__.replace("mine.py", "x.npy"))
class Birds:
    def __init__(self, train=False, floats: bool = False):
        self.train, self.floats = train, floats
    def __len__(self):
        return 20 if self.train else 30
    def __getitem__(self, index):
        return (X[index] / np.float32(255) if self.floats else X[index]), int(index % 3)
arrays = X, np.arange(30) % 3
def unsteady():
    return np.random.randint(0, 256, (30, 3, 6, 7)).astype("uint8"), np.arange(30) % 3
"""


@pytest.fixture
def base(tmp_path, monkeypatch):
    monkeypatch.setenv("EPSBENCH_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "suite"
    folder.mkdir()
    np.savez(folder / "test.npz", images=IMAGES, labels=LABELS, x_train=IMAGES[:20], y_train=LABELS[:20])
    np.savez_compressed(folder / "last.npz", images=IMAGES.transpose(0, 2, 3, 1), labels=LABELS)
    np.savez(folder / "floats.npz", images=IMAGES / 255, labels=LABELS)
    np.savez(folder / "turned.npz", images=np.asfortranarray(IMAGES), labels=LABELS)
    np.save(folder / "x.npy", IMAGES)
    np.save(folder / "y.npy", LABELS)
    (folder / "ids.txt").write_text("7\n2\n29\n")
    (folder / "mine.py").write_text(CODE)
    for split in ("train", "val"):
        for number, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True)):
            place = folder / "photos" / split / "abc"[label]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.transpose(1, 2, 0)).save(place / f"{number}.png")
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, ns=(10**18, 10**18))
    return folder


def opened(entry, base):
    data = read_data(entry, base)
    return open_data(source_of(data.named, base), data.description)


ENTRIES = [
    "test.npz",
    "last.npz",
    "floats.npz",
    "turned.npz",
    {"name": "npz", "path": "test.npz", "ids": "ids.txt"},
    {"name": "npz", "path": "x.npy", "labels": "y.npy"},
    "photos",
    {"name": "folder", "path": "photos", "resize": 5, "crop": 4, "channels": 1},
    "mine.py:Birds",
    "mine.py:arrays",
    {"name": "mine.py:Birds", "floats": True},
]


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def test_in_files_data_is_what_it_is_in_memory(base, monkeypatch, entry):
    whole, kept = read_data(entry, base), opened(entry, base)
    assert not list(decoded_folder().iterdir())
    monkeypatch.setenv("EPSBENCH_CACHE", str(base.parent / "other"))
    monkeypatch.setenv("EPSBENCH_DATA_MEMORY", "0")
    assert read_data(entry, base).description == whole.description
    for _ in range(2):  # the second time without the source
        for part, expected in zip(opened(entry, base).parts, kept.parts, strict=True):
            assert (part is None) == (expected is None)
            if part is not None:
                assert isinstance(part.images, PixelFile)
                assert isinstance(expected.images, np.ndarray)
                assert part.images.dtype == expected.images.dtype
                assert np.array_equal(part.images[:], expected.images)
                assert np.array_equal(part.labels, expected.labels)
    monkeypatch.delenv("EPSBENCH_DATA_MEMORY")
    again = opened(entry, base).test.images
    assert isinstance(again, np.ndarray)
    assert np.array_equal(again, kept.test.images)


def test_files_are_decoded_once_and_the_source_stays(base, monkeypatch):
    monkeypatch.setenv("EPSBENCH_DATA_MEMORY", "0")
    before = sorted(path.name for path in base.rglob("*"))
    read_data("photos", base)
    monkeypatch.setattr(Image, "open", lambda *a, **k: pytest.fail("an image was decoded again"))
    assert isinstance(opened("photos", base).test.images, PixelFile)
    monkeypatch.undo()
    assert sorted(path.name for path in base.rglob("*")) == before


def test_a_changed_file_is_decoded_again_and_the_old_copy_goes(base, monkeypatch):
    monkeypatch.setenv("EPSBENCH_DATA_MEMORY", "0")
    old = opened("last.npz", base).test.images
    np.savez(base / "last.npz", images=IMAGES[::-1], labels=LABELS)
    os.utime(base / "last.npz", ns=(10**18 + 10**9, 10**18 + 10**9))
    assert np.array_equal(opened("last.npz", base).test.images[:], IMAGES[::-1])
    assert len(list(decoded_folder().glob("*/index.npz"))) == 1
    assert np.array_equal(old[:], IMAGES)  # who has it open reads on


def test_a_source_that_changes_after_the_plan_is_refused(base):
    data = read_data("test.npz", base)
    np.savez(base / "test.npz", images=IMAGES[::-1], labels=LABELS)
    with pytest.raises(InputError, match=r"test\.npz.*gives other images or labels than a moment before"):
        open_data(source_of(data.named, base), data.description)
    unsteady = read_data("mine.py:unsteady", base)
    with pytest.raises(InputError, match="let code of your own give the same every time"):
        open_data(source_of(unsteady.named, base), unsteady.description)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 29), max_size=60), st.integers(0, 29), st.integers(0, 40), st.integers(1, 4))
def test_any_choice_reads_what_an_array_would(tmp_path_factory, order, start, stop, step):
    path = tmp_path_factory.mktemp("pixels") / "x.npy"
    np.save(path, IMAGES)
    images, rows = PixelFile(path), np.asarray(order, dtype=np.int64)
    images.expect(rows)
    assert np.array_equal(images[rows], IMAGES[rows])
    chosen = images.take(rows).take(slice(start, stop, step))
    assert np.array_equal(chosen[:], IMAGES[rows][start:stop:step])
    assert chosen.shape == IMAGES[rows][start:stop:step].shape
    assert chosen.nbytes == IMAGES[rows][start:stop:step].nbytes
    assert np.array_equal(pickle.loads(pickle.dumps(chosen))[:], chosen[:])


@pytest.mark.parametrize("damage", [lambda content: content[:300], lambda content: content + b"x", lambda content: b""])
@pytest.mark.parametrize("name", ["test.npy", "index.npz"])
def test_a_damaged_copy_is_made_again(base, monkeypatch, damage, name):
    monkeypatch.setenv("EPSBENCH_DATA_MEMORY", "0")
    opened("test.npz", base)
    (copy,) = decoded_folder().glob(f"*/{name}")
    copy.write_bytes(damage(copy.read_bytes()))
    assert np.array_equal(opened("test.npz", base).test.images[:], IMAGES)


def test_without_a_cache_the_copy_ends_with_the_process(base, monkeypatch):
    monkeypatch.setenv("EPSBENCH_CACHE", "/dev/null/none")
    monkeypatch.setenv("EPSBENCH_DATA_MEMORY", "0")
    monkeypatch.setattr("tempfile.tempdir", str(base))
    splits = opened("photos", base)
    assert isinstance(splits.test.images, PixelFile)
    assert decoded_folder().parent == base


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from epsbench.harness.plan.data import decoded
from epsbench.harness.plan.names.data import read_data
begin = decoded.WorkFolder.begin
def slow(self, *arguments):
    file = begin(self, *arguments)
    file.write(b"half an image")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
decoded.WorkFolder.begin = slow
read_data("test.npz", Path(sys.argv[1]))
"""


def test_after_a_kill_nothing_is_left_that_the_next_run_does_not_clean(base, monkeypatch):
    monkeypatch.setenv("EPSBENCH_DATA_MEMORY", "0")
    done = subprocess.run([sys.executable, "-c", KILLED, str(base)], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = decoded_folder().glob(".work-*")
    living = WorkFolder("another run's data")
    assert not left.exists()
    assert np.array_equal(opened("test.npz", base).test.images[:], IMAGES)
    assert living.path.is_dir()  # a run that is still decoding keeps its folder
    del living
    assert not list(decoded_folder().glob(".work-*"))


def test_two_runs_at_once_leave_one_whole_copy(base, monkeypatch):
    monkeypatch.setenv("EPSBENCH_DATA_MEMORY", "0")
    script = (
        "import sys; from pathlib import Path; from epsbench.harness.plan.names.data import read_data, source_of;"
        "from epsbench.harness.plan.data.stored import open_data; base = Path(sys.argv[1]);"
        "data = read_data('photos', base); splits = open_data(source_of(data.named, base), data.description);"
        "print(splits.test.images[:].sum())"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", script, str(base)], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    sums = {run.communicate()[0].strip() for run in runs}
    assert sums == {str(IMAGES.sum())}
    assert len(list(decoded_folder().glob("*/index.npz"))) == 1
    assert not list(decoded_folder().glob(".work-*"))


def test_a_full_disk_is_one_message_and_leaves_nothing(base, monkeypatch):
    monkeypatch.setenv("EPSBENCH_DATA_MEMORY", "0")
    np.savez(base / "big.npz", images=np.tile(IMAGES, (80, 1, 1, 1)), labels=np.tile(LABELS, 80))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        with pytest.raises(InputError) as caught:
            read_data("big.npz", base)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    (text,) = caught.value.messages
    assert "big.npz" in text
    assert "make room, name another folder with EPSBENCH_CACHE, or allow more memory with --data-memory" in text
    assert not list(decoded_folder().glob(".work-*"))


@pytest.mark.parametrize(("text", "size"), [("1000", 1000), ("2k", 2048), ("1.5GiB", 3 * 2**29), ("8 MB", 2**23)])
def test_sizes(monkeypatch, text, size):
    monkeypatch.setenv("EPSBENCH_DATA_MEMORY", text)
    assert budget() == size


@pytest.mark.parametrize("text", ["much", "-1", "nan", "1Q", "B"])
def test_a_budget_that_is_no_size(monkeypatch, text):
    monkeypatch.setenv("EPSBENCH_DATA_MEMORY", text)
    with pytest.raises(InputError, match=r"EPSBENCH_DATA_MEMORY: .* is no size; give bytes, or such as 500M or 8G"):
        budget()


def test_without_a_size_a_quarter_of_the_memory_is_for_data(monkeypatch):
    monkeypatch.delenv("EPSBENCH_DATA_MEMORY", raising=False)
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < budget() <= physical // 4


@pytest.mark.parametrize(
    ("arrays", "wanted"),
    [
        ({"images": IMAGES // 200}, "no value is above 1; uint8 means 0 to 255"),
        ({"images": IMAGES.astype(np.float32)}, "pixels go from 0 to 2"),
        ({"images": np.where(np.arange(30)[:, None, None, None] == 17, np.nan, IMAGES / 255)}, "image 17 holds NaN"),
    ],
)
def test_images_are_checked_on_their_way(base, monkeypatch, arrays, wanted):
    monkeypatch.setenv("EPSBENCH_DATA_MEMORY", "0")
    np.savez(base / "test.npz", labels=LABELS, **arrays)
    with pytest.raises(InputError) as caught:
        read_data("test.npz", base)
    assert wanted in str(caught.value)
    assert stored("") is None
    assert not [path for path in decoded_folder().iterdir() if path.name != ".lock"]
