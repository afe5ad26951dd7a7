"""Splits, pixels and augmentations; and data that is not there."""

from __future__ import annotations

import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F

from epsbench.harness.errors import InputError
from epsbench.harness.plan.data import DATASETS
from epsbench.harness.plan.names.augmentations import AUGMENTATIONS as NAMED_AUGMENTATIONS
from epsbench.harness.run.data.augmentation import AUGMENTATIONS
from epsbench.harness.run.data.load import SOURCES, load_data

CPU = torch.device("cpu")


def test_every_named_data_set_and_augmentation_is_there():
    assert set(SOURCES) == set(DATASETS)
    assert set(AUGMENTATIONS) == set(NAMED_AUGMENTATIONS)


def test_digits_are_split_as_described():
    data = load_data("digits", None, CPU)
    parts = (data.train, data.validation, data.test)
    assert tuple(len(part) for part in parts) == data.description.sizes == (1197, 100, 500)
    for part in parts:
        assert part.pixels().shape == (len(part), 1, 8, 8)
        assert part.pixels().dtype == torch.float32
        assert 0 <= part.pixels().min() <= part.pixels().max() == 1
        assert part.labels.dtype == torch.int64
    together = torch.cat([part.pixels() for part in parts])
    assert together.sum().item() == pytest.approx(load_digits().images.sum() / 16)
    assert together.mean().item() == pytest.approx(data.description.mean[0], abs=5e-3)


def test_pixels_by_index_are_the_same_pixels():
    train = load_data("digits", None, CPU).train
    index = torch.tensor([5, 0, 5])
    assert torch.equal(train.pixels(index), train.pixels()[index])
    assert torch.equal(train.pixels(slice(2, 4)), train.pixels()[2:4])


def test_limit_keeps_the_first_of_each_split():
    whole, few = load_data("digits", None, CPU), load_data("digits", None, CPU, limit=30)
    for name in ("train", "validation", "test"):
        assert len(getattr(few, name)) == 30
        assert torch.equal(getattr(few, name).pixels(), getattr(whole, name).pixels(slice(0, 30)))


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_torchvision_data(data_root, name):
    data = load_data(name, data_root, CPU)
    assert tuple(len(part) for part in (data.train, data.validation, data.test)) == data.description.sizes
    few = data.train.pixels(slice(0, 5000))
    assert few.shape == (5000, *data.description.shape)
    torch.testing.assert_close(few.mean((0, 2, 3)), torch.tensor(data.description.mean), atol=0.01, rtol=0)
    torch.testing.assert_close(few.std((0, 2, 3)), torch.tensor(data.description.std), atol=0.01, rtol=0)
    assert len(data.test.labels.unique()) == 10


def test_splits_are_disjoint_and_stable():
    train, validation, test = DATASETS["mnist"].split()
    assert not set(train) & set(validation)
    assert len(np.union1d(train, validation)) == 60_000
    assert test.tolist() == list(range(10_000))
    assert train[:5].tolist() == np.random.RandomState(42).permutation(60_000)[:5].tolist()


@pytest.mark.parametrize(
    "error", [urllib.error.URLError("no network"), PermissionError(13, "Permission denied"), RuntimeError("corrupted")]
)
@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_missing_data_offline_is_one_clear_line(name, error, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", fail)
    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", fail)
    with pytest.raises(InputError) as caught:
        load_data(name, tmp_path, CPU)
    (message,) = caught.value.messages
    assert f"data '{name}': not in {tmp_path}" in message
    assert "--data-folder or EPSBENCH_DATA" in message
    assert "\n" not in message


def test_the_folder_comes_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("EPSBENCH_DATA", str(tmp_path / "there"))
    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", lambda *args, **kwargs: None)
    with pytest.raises(InputError, match=r"not in .*there"):
        load_data("mnist", None, CPU)


def test_damaged_files_raise_a_clear_error(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            Path(raw / f"{part}-{kind}-ubyte").write_bytes(b"\0\0\x08\x03")
    with pytest.raises(InputError, match="data 'mnist'"):
        load_data("mnist", tmp_path, CPU)


def test_unknown_data():
    with pytest.raises(InputError, match="did you mean 'mnist'"):
        load_data("mnits", None, CPU)


def windows(image, margin, border="constant"):
    """Every crop of an image (C, H, W) padded with black, or with what `torch.nn.functional.pad` calls ``border``."""
    _, height, width = image.shape
    padded = F.pad(image[None], (margin,) * 4, mode=border)[0]
    return [
        padded[:, top : top + height, left : left + width]
        for top in range(2 * margin + 1)
        for left in range(2 * margin + 1)
    ]


@pytest.mark.parametrize(
    ("name", "margin", "border", "flips"),
    [("crop-flip", 4, "constant", True), ("reflect-flip", 2, "reflect", True), ("shift", 2, "constant", False)],
)
def test_an_augmented_image_is_one_of_the_possible_crops(name, margin, border, flips):
    x = torch.rand(40, 3, 8, 10)
    augmented = AUGMENTATIONS[name](x, torch.Generator().manual_seed(0))
    assert augmented.shape == x.shape
    offsets = []
    for image, changed in zip(x, augmented, strict=True):
        possible = windows(image, margin, border)
        possible += windows(image.flip(2), margin, border) if flips else []
        matches = [number for number, window in enumerate(possible) if torch.equal(window, changed)]
        assert matches
        offsets.append(matches[0])
    assert len(set(offsets)) > 10  # each image at an offset of its own
    if flips:
        assert {number >= len(possible) // 2 for number in offsets} == {True, False}


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentations_follow_their_generator_and_leave_their_input(name):
    x = torch.rand(6, 1, 8, 8)
    before = x.clone()
    first, second = (AUGMENTATIONS[name](x, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(x, before)


def test_a_user_without_a_home_can_use_what_needs_no_folder(monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("EPSBENCH_DATA", raising=False)

    def nobody(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", nobody)
    assert len(load_data("digits", None, torch.device("cpu"), 20).test) == 20
