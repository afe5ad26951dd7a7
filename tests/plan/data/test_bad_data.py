"""Data that cannot be used, or looks as if it could not: one message with file and remedy, or the right images."""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

from epsbench.harness.api import evaluate
from epsbench.harness.cli import main
from epsbench.harness.errors import InputError
from epsbench.harness.plan.data.stored import open_data
from epsbench.harness.plan.names.data import read_data, source_of
from epsbench.harness.plan.suite import load_suite

RNG = np.random.RandomState(0)
IMAGES = RNG.randint(0, 256, (6, 8, 8, 3)).astype(np.uint8)


@pytest.fixture(params=["memory", "file"])
def base(request, tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("EPSBENCH_CACHE", str(tmp_path / "cache"))
    if request.param == "file":
        monkeypatch.setenv("EPSBENCH_DATA_MEMORY", "0")
    folder = tmp_path / "suite"
    for number, pixels in enumerate(IMAGES):
        place = folder / "photos" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number}.png")
    return folder


def images_of(base: Path, entry="photos") -> dict[bytes, int]:
    data = read_data(entry, base)
    test = open_data(source_of(data.named, base), data.description).test
    return {image.tobytes(): int(label) for image, label in zip(test.images[:], test.labels, strict=True)}


def message(base: Path, entry="photos") -> str:
    with pytest.raises(InputError) as caught:
        read_data(entry, base)
    (text,) = caught.value.messages
    assert "\n" not in text
    return text


def as_read(pixels: np.ndarray) -> bytes:
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)).tobytes()


OTHER = RNG.randint(0, 256, (8, 8, 3)).astype(np.uint8)
GREY = np.repeat(OTHER[..., :1], 3, 2)
PALETTE = Image.fromarray(OTHER).convert("P")
CMYK = Image.fromarray(OTHER).convert("CMYK")


@pytest.mark.parametrize(
    ("name", "image", "options", "expected"),
    [
        ("grey.png", Image.fromarray(OTHER[..., 0]), {}, GREY),
        ("bits.png", Image.fromarray(GREY[..., 0] > 127), {}, np.where(GREY > 127, 255, 0).astype(np.uint8)),
        ("alpha.png", Image.fromarray(np.dstack([OTHER, OTHER[..., 0]])), {}, OTHER),
        ("palette.png", PALETTE, {}, np.asarray(PALETTE.convert("RGB"))),
        ("clear.png", PALETTE, {"transparency": bytes([0, 128, 255])}, np.asarray(PALETTE.convert("RGB"))),
        ("cmyk.tif", CMYK, {}, np.asarray(CMYK.convert("RGB"))),
        ("ß 日本.png", Image.fromarray(OTHER), {}, OTHER),
    ],
    ids=["grey", "one bit", "alpha", "palette", "transparent palette", "cmyk", "unicode"],
)
def test_images_of_other_kinds_are_read_as_three_colours(base, name, image, options, expected):
    image.save(base / "photos" / "b" / name, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert images_of(base)[as_read(expected)] == 1


def test_a_rotation_noted_beside_the_pixels_is_not_made(base):
    """As torchvision reads them."""
    wide = np.concatenate([IMAGES[0], IMAGES[1]], 1)
    for number, orientation in enumerate((1, 6)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(wide).save(base / "photos" / "b" / f"wide{number}.png", exif=exif)
    for path in (base / "photos").rglob("[0-9].png"):
        path.unlink()
    Image.fromarray(wide).save(base / "photos" / "a" / "wide.png")
    assert read_data("photos", base).description.shape == (3, 8, 16)


def _only_for_training(photos: Path) -> None:
    photos.rename(photos.with_name("train"))
    photos.mkdir()
    photos.with_name("train").rename(photos / "train")


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda photos: (photos / "a" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\nxx"), "a/0.png: is no image"),
        (
            lambda photos: (photos / "a" / "0.png").write_bytes((photos / "a" / "0.png").read_bytes()[:120]),
            "a/0.png: is no image, or damaged (image file is truncated",
        ),
        (lambda photos: (photos / "a" / "0.png").write_bytes(b""), "a/0.png: is no image, or damaged"),
        (
            lambda photos: Image.fromarray(IMAGES[0, ..., 0].astype(np.uint16) * 256).save(photos / "a" / "deep.png"),
            "a/deep.png: has more than 8 bits a channel (mode I;16); save it with 8 bits",
        ),
        (
            lambda photos: Image.fromarray(np.tile(IMAGES[0], (2, 1, 1))).save(photos / "b" / "tall.png"),
            "b/tall.png: has 16×8 pixels, and the first image 8×8; set resize and crop",
        ),
        (lambda photos: (photos / "b" / "link.png").symlink_to("/nowhere.png"), "link.png: is a link to a file"),
        (lambda photos: (photos / "c").mkdir(), "photos/c: holds no image (.bmp"),
        (lambda photos: [path.unlink() for path in photos.rglob("*.png")], "photos: holds no image"),
        (lambda photos: shutil.rmtree(photos / "b"), "all labels are 0"),
        (_only_for_training, "photos: has train, and neither test nor val; give"),
    ],
    ids=["broken", "truncated", "empty file", "16 bits", "size", "dangling link", "empty class", "none", "one class",
         "only train"],
)  # fmt: skip
def test_folders_that_cannot_be_used(base, change, wanted):
    change(base / "photos")
    assert wanted in message(base)


def test_a_model_of_one_channel_is_told_how_a_folder_is_read_as_grey(base):
    model = nn.Sequential(nn.Conv2d(1, 2, 8), nn.Flatten())
    with pytest.raises(InputError, match=r"cannot be used on .* got 3 channels instead; if its images are grey, say"):
        evaluate(model, base / "photos", attack="none")
    result = evaluate(model, {"name": "folder", "path": str(base / "photos"), "channels": 1}, attack="none")
    assert result.clean_accuracy.n == len(IMAGES)


def test_a_class_may_be_called_train(base):
    (base / "photos" / "b").rename(base / "photos" / "train")
    assert read_data("photos", base).description.class_names == ("a", "train")


def test_hidden_files_and_links_in_circles_are_no_images(base):
    known = images_of(base)
    (base / "photos" / ".thumbnails").mkdir()
    (base / "photos" / "a" / "._0.png").write_bytes(b"x")
    (base / "photos" / "a" / "Thumbs.db").write_bytes(b"x")
    (base / "photos" / "a" / "again").symlink_to(base / "photos" / "a", target_is_directory=True)
    assert images_of(base) == known
    elsewhere = base / "elsewhere"
    elsewhere.mkdir()
    Image.fromarray(255 - IMAGES[0]).save(elsewhere / "x.png")
    (base / "photos" / "b" / "more").symlink_to(elsewhere, target_is_directory=True)
    assert images_of(base) == known | {as_read(255 - IMAGES[0]): 1}


def test_a_source_that_cannot_be_written_is_read(base):
    known = images_of(base)
    for path in (base / "photos", *(base / "photos").rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    Path(os.environ["EPSBENCH_CACHE"]).rename(base / "old-cache")
    assert images_of(base) == known
    for path in ((base / "photos"), *(base / "photos").rglob("*")):
        path.chmod(0o755)


X = RNG.randint(0, 256, (12, 3, 8, 8)).astype(np.uint8)
Y = np.arange(12) % 3


@pytest.mark.parametrize(
    ("arrays", "wanted"),
    [
        ({"images": X > 128, "labels": Y}, "images are bool; save them as uint8"),
        ({"images": X.astype(complex), "labels": Y}, "images are complex128"),
        ({"images": X, "labels": np.array(list("abc") * 4)}, "labels are text; number the classes: names, labels = "),
        ({"images": X, "labels": Y[:, None]}, "labels have the shape (12, 1); give one integer for each image"),
        ({"images": X, "labels": Y, "x_train": X[:0], "y_train": Y[:0]}, "[x_train]: holds no image"),
        ({"images": X, "labels": Y, "x_train": X[:, :, :4], "y_train": Y}, "those of 'train' are 3 × 4 × 8"),
        ({"images": X, "labels": Y, "x_train": X, "y_train": Y[:3]}, "[y_train]: 12 images and 3 labels"),
        ({"images": X}, 'has no array of labels; known: images; name it: labels = "…"'),
        ({"images": np.concatenate([X, X], 1)[:, :4], "labels": Y}, 'say layout = "nchw" or "nhwc"'),
    ],
)
def test_arrays_that_cannot_be_used(base, arrays, wanted):
    np.savez(base / "test.npz", **arrays)
    assert wanted in message(base, "test.npz")


@pytest.mark.parametrize("size", [0, 5, 900, 2200])
def test_a_truncated_archive_is_named(base, size):
    np.savez(base / "test.npz", images=X, labels=Y)
    (base / "test.npz").write_bytes((base / "test.npz").read_bytes()[:size])
    kind = "damaged: its end is missing" if size else "empty"
    assert f"test.npz: is no NumPy file, it is {kind}" in message(base, "test.npz")


def test_floats_of_other_sizes_and_channels_last(base):
    for number, images in enumerate([(X / 255).astype(np.float16), (X / 255), X.transpose(0, 2, 3, 1)]):
        np.savez(base / f"{number}.npz", images=images, labels=Y)
        whole = read_data(f"{number}.npz", base).description
        assert (whole.shape, whole.sizes) == ((3, 8, 8), (0, 0, 12))


CODE = """
import numpy as np
X, Y = np.random.RandomState(0).rand(12, 3, 8, 8).astype("float32"), np.arange(12) % 3
class Birds:
    def __init__(self, odd: str = ""):
        self.odd = odd
    def __len__(self):
        if self.odd == "length":
            raise RuntimeError("how many?")
        return 0 if self.odd == "empty" else 12
    def __getitem__(self, index):
        x, y, last = X[index], int(Y[index]), index == 7
        if self.odd == "raises" and last:
            raise OSError("disk on fire")
        if self.odd == "exits" and last:
            raise SystemExit(3)
        if self.odd == "nothing" and last:
            return None
        x = x[:, :4] if self.odd == "size" and last else x[:1] if self.odd == "grey" and last else x
        x = (x * 255).astype("uint8") if self.odd == "type" and last else x
        x = x * np.nan if self.odd == "nan" and last else x
        x = "img.png" if self.odd == "path" else x.reshape(-1) if self.odd == "flat" else x
        return x, {"text": "cat", "bool": True, "float": 1.0, "one-hot": [0, 1, 0]}.get(self.odd, y)
"""


@pytest.mark.parametrize(
    ("odd", "wanted"),
    [
        ("length", "its __len__ raises RuntimeError: how many?"),
        ("empty", "the dataset is empty"),
        ("raises", "example 7: raises OSError: disk on fire; correct it, or leave it out"),
        ("exits", "example 7: raises SystemExit: 3"),
        ("nothing", "example 7: is a NoneType; a dataset must return (image, label)"),
        ("size", "example 7: is 3 × 4 × 8, and the first image 3 × 8 × 8; resize them alike"),
        ("grey", "example 7: is 1 × 8 × 8, and the first image 3 × 8 × 8"),
        ("type", "example 7: is uint8, and the first image float32; give all the same type"),
        ("nan", "image 7 holds NaN or infinity"),
        ("path", "example 0: holds str objects where an array of numbers is needed"),
        ("flat", "images have the shape N×192; give (N, C, H, W)"),
        ("text", "example 0: its label is 'cat'; return an integer from 0"),
        ("bool", "example 0: its label is True; return an integer from 0"),
        ("float", "example 0: its label is 1.0; return an integer from 0"),
        ("one-hot", "as if one-hot; return the class: label.argmax()"),
    ],
)
def test_a_dataset_that_cannot_be_used(base, odd, wanted):
    (base / "mine.py").write_text(CODE)
    assert wanted in message(base, {"name": "mine.py:Birds", "odd": odd})


SUITE = """
[robustness]
data = "{data}"
training = {{ epochs = 0 }}
[robustness.matrix]
model = "smallcnn"
attack = "fgsm"
eps = "8/255"
"""


@pytest.mark.parametrize("data", ["few.npz", "photos"])
def test_suite_shell_and_python_say_the_same(base, monkeypatch, capsys, data):
    np.savez(base / "few.npz", images=X, labels=Y[:5])
    (base / "photos" / "a" / "0.png").write_bytes(b"broken")
    expected = message(base, data)
    (base / "own.toml").write_text(SUITE.format(data=data))
    monkeypatch.chdir(base)
    with pytest.raises(InputError) as of_suite:
        load_suite("own.toml")
    with pytest.raises(InputError) as of_python:
        evaluate("smallcnn", data, attack="fgsm")
    monkeypatch.setattr(sys, "argv", ["epsbench", "evaluate", "smallcnn", "--data", data, "--attack", "fgsm"])
    with pytest.raises(SystemExit) as of_shell:
        main()
    assert of_shell.value.code == 2
    shown = capsys.readouterr().err
    for text in (*of_suite.value.messages, *of_python.value.messages, shown.strip()):
        assert text.endswith(expected), text
