"""Data of a user's own: what is read, what identifies it, and what is refused with which message."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from epsbench.harness.errors import InputError
from epsbench.harness.plan.data.source import Splits
from epsbench.harness.plan.names.data import read_data, source_of
from epsbench.harness.plan.names.kinds import entry_points_of

RNG = np.random.RandomState(0)
IMAGES = RNG.randint(0, 256, (12, 3, 6, 7)).astype(np.uint8)
LABELS = np.arange(12) % 3


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EPSBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def base(tmp_path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def splits(entry, base: Path) -> Splits:
    data = read_data(entry, base)
    return source_of(data.named, data.base).read()


def save(base: Path, name: str = "test.npz", **arrays) -> str:
    np.savez(base / name, **arrays)
    return name


def message(entry, base: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_data(entry, base)
    return "\n".join(caught.value.messages)


@pytest.mark.parametrize(
    ("arrays", "parameters"),
    [
        ({"images": IMAGES, "labels": LABELS}, {}),
        ({"x": IMAGES.transpose(0, 2, 3, 1), "y": LABELS.astype(np.uint8)}, {}),
        ({"x_test": IMAGES, "y_test": LABELS}, {}),
        ({"pictures": IMAGES, "kinds": LABELS}, {"images": "pictures", "labels": "kinds"}),
    ],
)
def test_arrays_are_read_whatever_they_are_called(base, arrays, parameters):
    read = splits({"name": "npz", "path": save(base, **arrays), **parameters}, base)
    assert np.array_equal(read.test.images, IMAGES)
    assert read.test.labels.tolist() == LABELS.tolist()
    assert read.test.labels.dtype == np.int64
    assert read.train is None


def test_a_description_says_what_is_there(base):
    data = read_data(save(base, images=IMAGES, labels=LABELS, class_names=np.array(["a", "b", "c"])), base)
    known = data.description
    assert (known.shape, known.classes, known.sizes, known.class_names) == ((3, 6, 7), 3, (0, 0, 12), ("a", "b", "c"))
    assert known.mean == pytest.approx(IMAGES.mean((0, 2, 3)) / 255, abs=1e-4)
    assert known.std == pytest.approx(IMAGES.std((0, 2, 3)) / 255, abs=1e-4)
    assert str(data) == f"test.npz ({known.identity[:8]})"


def test_training_examples_are_shuffled_and_a_tenth_is_for_validation(base):
    x, y = np.repeat(IMAGES, 5, 0), np.repeat(LABELS, 5)
    x[:, 0, 0, 0] = np.arange(60)
    read = splits(save(base, x_train=x, y_train=y, x_test=IMAGES, y_test=LABELS), base)
    assert (len(read.train), len(read.validation), len(read.test)) == (54, 6, 12)
    marks = np.concatenate([read.train.images[:, 0, 0, 0], read.validation.images[:, 0, 0, 0]])
    assert sorted(marks) == list(range(60))
    assert marks.tolist() != list(range(60))


def test_the_identity_is_that_of_the_content(base):
    first = read_data(save(base, "a.npz", images=IMAGES, labels=LABELS), base)
    again = read_data(save(base, "b.npz", x=IMAGES, y=LABELS.astype(np.int32)), base)
    other = read_data(save(base, "c.npz", images=IMAGES[::-1], labels=LABELS), base)
    assert first.description.identity == again.description.identity != other.description.identity


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(base, monkeypatch):
    path = base / save(base, images=IMAGES, labels=LABELS)
    os.utime(path, ns=(10**18, 10**18))
    before = read_data("test.npz", base).description
    monkeypatch.setattr(np, "load", lambda *a, **k: pytest.fail("the file was read again"))
    assert read_data("test.npz", base).description == before
    monkeypatch.undo()
    monkeypatch.setenv("EPSBENCH_CACHE", str(base.parent / "cache"))
    save(base, images=IMAGES, labels=LABELS[::-1])
    assert read_data("test.npz", base).description.identity != before.identity


def test_a_cache_that_cannot_be_written_costs_nothing_else(base, monkeypatch):
    monkeypatch.setenv("EPSBENCH_CACHE", "/dev/null/none")
    assert read_data(save(base, images=IMAGES, labels=LABELS), base).description.sizes == (0, 0, 12)


def test_a_record_holds_no_place_of_the_machine(base):
    save(base, images=IMAGES, labels=LABELS)
    (base / "sub").mkdir()
    absolute = read_data({"name": "npz", "path": str(base / "test.npz"), "classes": 5}, base / "sub")
    above = read_data("../test.npz", base / "sub")
    assert absolute.record()["path"] == above.record()["path"] == "test.npz"
    assert absolute.record()["classes"] == 5
    assert set(above.record()) == {"name", "path", "content"}


def test_ids_choose_examples_in_their_order(base):
    save(base, images=IMAGES, labels=LABELS)
    (base / "ids.txt").write_text("# chosen\n7\n2 ignored\n")
    read = splits({"name": "npz", "path": "test.npz", "ids": "ids.txt"}, base)
    assert np.array_equal(read.test.images, IMAGES[[7, 2]])
    (base / "ids.txt").write_text("7\n3\n")  # labels 1 and 0: the classes are those of all the images
    assert read_data({"name": "npz", "path": "test.npz", "ids": "ids.txt"}, base).description.classes == 3
    (base / "ids.txt").write_text("12\n")
    assert "'12' is no position in the data; give whole numbers from 0 to 11" in message(
        {"name": "npz", "path": "test.npz", "ids": "ids.txt"}, base
    )


def test_classes_of_one_name_are_told_apart_by_their_numbers(base):
    save(base, images=IMAGES, labels=LABELS, class_names=np.array(["crane", "cat", "crane", "dog"]))
    assert read_data("test.npz", base).description.class_names == ("crane (0)", "cat", "crane (2)", "dog")


def test_images_and_labels_in_two_files(base):
    np.save(base / "fog.npy", IMAGES.transpose(0, 2, 3, 1))
    np.save(base / "labels.npy", LABELS)
    read = splits({"name": "npz", "path": "fog.npy", "labels": "labels.npy"}, base)
    assert np.array_equal(read.test.images, IMAGES)


FLOATS = IMAGES.astype(np.float32) / 255


@pytest.mark.parametrize(
    ("arrays", "wanted"),
    [
        ({"images": IMAGES.astype(np.float32), "labels": LABELS}, "pixels go from 0 to 255, and must lie in [0, 1]"),
        ({"images": FLOATS * 2 - 1, "labels": LABELS}, "undo the normalisation: it belongs into the model"),
        ({"images": IMAGES.astype(np.int64), "labels": LABELS}, "images are int64; save them as uint8"),
        ({"images": IMAGES // 200, "labels": LABELS}, "no value is above 1; uint8 means 0 to 255"),
        ({"images": np.where(FLOATS > 0.99, np.nan, FLOATS), "labels": LABELS}, "holds NaN or infinity"),
        ({"images": IMAGES.reshape(12, -1), "labels": LABELS}, "images have the shape N×126; give (N, C, H, W)"),
        ({"images": np.zeros((4, 3, 5, 3)), "labels": LABELS[:4]}, 'say layout = "nchw" or "nhwc"'),
        ({"images": IMAGES, "labels": LABELS[:5]}, "12 images and 5 labels"),
        ({"images": IMAGES, "labels": np.eye(3)[LABELS]}, "as if one-hot; give labels.argmax(1)"),
        ({"images": IMAGES, "labels": LABELS.astype(float)}, "labels are float64; give integers"),
        ({"images": IMAGES, "labels": LABELS - 1}, "label -1 of example 0 is out of range"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "holds no image"),
        ({"images": IMAGES, "labels": LABELS * 0}, "all labels are 0; a classifier needs two classes"),
        ({"image": IMAGES, "labels": LABELS}, "has no array of images; did you mean 'image'?"),
        ({"images": np.array([{}, 1], dtype=object), "labels": LABELS}, "holds pickled objects"),
    ],
)  # fmt: skip
def test_what_is_no_data_is_refused_with_its_remedy(base, arrays, wanted):
    text = message(save(base, **arrays), base)
    assert wanted in text
    assert "test.npz" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("entry", "wanted"),
    [
        ("gone.npz", "there is no such file|cannot be read"),
        ({"name": "npz"}, "path is missing"),
        ({"name": "npz", "path": "test.npz", "imgs": "x"}, "unknown parameter 'imgs'; did you mean 'images'"),
        ({"name": "npz", "path": "test.npz", "classes": 2}, "label 2 of example 2 is out of range"),
        ({"name": "npz", "path": "test.npz", "layout": "nhcw"}, "layout must be one of auto, nchw, nhwc"),
        ({"name": "npz", "path": "test.npz", "mean": [0.5]}, "mean has 1 values, and the images have 3 channels"),
        ({"name": "digits", "path": "x"}, "takes no parameters"),
        ("mnits", "did you mean 'mnist'"),
        (3, "must be the name of a data set or a table"),
    ],
)
def test_entries_that_cannot_be_used(base, entry, wanted):
    save(base, images=IMAGES, labels=LABELS)
    text = message(entry, base)
    assert any(part in text for part in wanted.split("|")), text


def test_a_damaged_file_is_named(base):
    (base / "test.npz").write_bytes(b"PK\x03\x04 nothing")
    assert "damaged: its end is missing" in message("test.npz", base)


@pytest.fixture
def photos(base) -> Path:
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            folder = base / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(4):
                pixels = RNG.randint(0, 256, (20 + number, 30, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{name}{number}.png")
    return base / "photos"


def test_a_folder_is_read_as_torchvision_reads_it(base, photos):
    from torchvision import datasets, transforms

    read = splits({"name": "folder", "path": "photos", "resize": 12, "crop": 10}, base)
    steps = [transforms.Resize(12), transforms.CenterCrop(10), transforms.ToTensor()]
    expected = datasets.ImageFolder(photos / "val", transforms.Compose(steps))
    order = np.random.RandomState(42).permutation(8)
    for position, at in enumerate(order):
        image, label = expected[at]
        assert np.array_equal(read.test.images[position].astype(np.float32) / np.float32(255), image.numpy())
        assert read.test.labels[position] == label
    assert read.class_names == ("cat", "dog")
    assert (len(read.train), len(read.validation)) == (7, 1)


def test_a_folder_is_known_by_its_files(base, photos):
    first = read_data({"name": "folder", "path": "photos", "resize": 12, "crop": 10}, base)
    assert first.description.class_names == ("cat", "dog")
    assert first.description.shape == (3, 10, 10)
    other = read_data({"name": "folder", "path": "photos", "resize": 11, "crop": 10}, base)
    assert other.description.identity != first.description.identity
    (photos / "val" / "cat" / "cat0.png").rename(photos / "val" / "dog" / "cat0.png")
    moved = read_data({"name": "folder", "path": "photos", "resize": 12, "crop": 10}, base)
    assert moved.description.identity != first.description.identity


def test_ids_of_a_folder_are_names(base, photos):
    (base / "ids.txt").write_text("dog/dog1.png\ncat2\n")
    read = splits({"name": "folder", "path": "photos", "resize": 12, "crop": 10, "ids": "ids.txt"}, base)
    assert read.test.labels.tolist() == [1, 0]
    (base / "ids.txt").write_text("cow9\n")
    assert "'cow9' names no image" in message(
        {"name": "folder", "path": "photos", "resize": 12, "crop": 10, "ids": "ids.txt"}, base
    )


def test_ids_may_have_spaces_and_a_byte_order_mark(base, photos):
    """A name is the whole line; what follows a name that is no such line is ignored, as a label in a list would be."""
    (photos / "val" / "dog" / "dog1.png").rename(photos / "val" / "dog" / "dog 1 (b), c=#2.png")
    (photos / "val" / "cat" / "cat0.png").rename(photos / "val" / "cat" / "#0.png")
    lines = ["# a comment", " cat/#0.png", "dog/dog 1 (b), c=#2.png", "cat2 0", "#0", ""]
    for encoding in ("utf-8", "utf-8-sig"):
        (base / "ids.txt").write_text("\n".join(lines[:4]), encoding=encoding)
        read = splits({"name": "folder", "path": "photos", "resize": 12, "crop": 10, "ids": "ids.txt"}, base)
        assert read.test.labels.tolist() == [0, 1, 0]
    (base / "ids.txt").write_text("\n".join(lines))
    assert "names an example twice" in message(
        {"name": "folder", "path": "photos", "resize": 12, "crop": 10, "ids": "ids.txt"}, base
    )


def test_folders_that_cannot_be_used(base, photos):
    assert "set resize and crop, such as" in message({"name": "folder", "path": "photos"}, base)
    assert "too few for crop = 64" in message({"name": "folder", "path": "photos", "crop": 64}, base)
    (photos / "val" / "cat" / "cat1.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    text = message({"name": "folder", "path": "photos", "resize": 12, "crop": 10}, base)
    assert "photos/val/cat/cat1.png: is no image, or damaged" in text
    (photos / "train" / "cow").mkdir()
    assert "its classes are not those of" in message("photos", base)
    (base / "empty").mkdir()
    assert "is empty; one folder for each class" in message("empty", base)
    assert "there is no such folder" in message({"name": "folder", "path": "gone"}, base)
    assert "holds images and no class folders" in message({"name": "folder", "path": "photos/train/dog"}, base)


CODE = """
import numpy as np
X = np.random.RandomState(0).rand(6, 1, 4, 4).astype("float32")
Y = np.arange(6) % 3
arrays = (X, Y)

def by_split(split, width: int = 1):
    if split == "train":
        raise FileNotFoundError("train.bin is not here")
    return (X, Y) if split == "test" else None

class Birds:
    classes = ["owl", "wren", "gull"]
    def __init__(self, train=False, broken: bool = False):
        self.train, self.broken = train, broken
    def __len__(self):
        return 4 if self.train else 6
    def __getitem__(self, index):
        if self.broken and index == 3:
            raise OSError("disk on fire")
        return X[index], int(Y[index])

one_hot = [(X[0], [0, 1]), (X[1], [1, 0])]
floats = [(X[0], 0.0), (X[1], 1.0)]
nothing = 7
"""


@pytest.fixture
def code(base) -> Path:
    (base / "mine.py").write_text(CODE)
    return base


def test_arrays_and_datasets_of_the_users_code(code):
    arrays, birds = read_data("mine.py:arrays", code), read_data("mine.py:Birds", code)
    assert arrays.description.sizes == (0, 0, 6)
    assert birds.description.sizes == (3, 1, 6)
    assert birds.description.class_names == ("owl", "wren", "gull")
    assert arrays.record()["name"] == "mine.py:arrays"
    read = source_of(birds.named, code).read()
    assert np.array_equal(read.test.images, source_of(arrays.named, code).read().test.images)


def test_an_installed_package_adds_data(code, monkeypatch, tmp_path):
    site = tmp_path / "site"
    for file, text in {
        "their_birds.py": CODE,
        "their_birds-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: their-birds\nVersion: 1.0\n",
        "their_birds-1.0.dist-info/entry_points.txt": "[epsbench.data]\nbirds = their_birds:Birds\n",
    }.items():
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        (site / file).write_text(text)
    monkeypatch.syspath_prepend(str(site))
    entry_points_of.cache_clear()
    try:
        data = read_data({"name": "birds", "broken": False}, code)
        assert data.named.name == "their_birds:Birds"
        assert data.description.identity == read_data("mine.py:Birds", code).description.identity
        with pytest.raises(InputError, match=r"unknown data set 'brids'; did you mean 'birds'"):
            read_data("brids", code)
    finally:
        entry_points_of.cache_clear()
        sys.modules.pop("their_birds", None)


def test_a_function_is_asked_for_each_split(code):
    data = read_data({"name": "mine.py:by_split", "width": 2, "classes": 4}, code)
    assert (data.description.sizes, data.description.classes) == ((0, 0, 6), 4)
    assert "train.bin is not here" in dict(data.description.missing)["train"]


@pytest.mark.parametrize(
    ("entry", "wanted"),
    [
        ({"name": "mine.py:Birds", "broken": True}, "example 3: raises OSError: disk on fire"),
        ("mine.py:one_hot", "example 0: its label has 2 values, as if one-hot"),
        ("mine.py:floats", "example 0: its label is 0.0; return an integer"),
        ("mine.py:nothing", "is a int; give (x, y)"),
        ("mine.py:Brids", "did you mean 'Birds'"),
        ({"name": "mine.py:Birds", "widht": 1}, "unknown parameter 'widht'"),
        ({"name": "mine.py:Birds", "mean": 0.5}, "mean: must be a list of numbers, not 0.5"),
        ({"name": "mine.py:Birds", "std": ["a"]}, "std: must be a list of numbers, not ['a']"),
        ("gone.py:Birds", "cannot be read"),
    ],
)
def test_code_that_gives_no_data(code, entry, wanted):
    assert wanted in message(entry, code)


@pytest.mark.parametrize("memory", ["1G", "0"])
def test_describing_needs_no_torch(base, photos, memory):
    save(base, images=IMAGES, labels=LABELS)
    folder = {"name": "folder", "path": "photos", "resize": 12, "crop": 10}
    script = (
        "import sys; from pathlib import Path; from epsbench.harness.plan.names.data import read_data; "
        f"[print(read_data(data, Path({str(base)!r}))) for data in ('test.npz', {folder!r})]; "
        "assert 'torch' not in sys.modules"
    )
    environment = os.environ | {"EPSBENCH_DATA_MEMORY": memory}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
