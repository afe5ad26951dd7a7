"""A folder with images of some of the classes that a model knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from epsbench.harness.errors import InputError
from epsbench.harness.plan.data.class_list import IMAGENET, class_list
from epsbench.harness.plan.names.data import read_data, source_of

TENCH, SPANIEL, PARACHUTE = "n01440764", "n02102040", "n03888257"  # outputs 0, 217 and 701


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EPSBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def base(tmp_path) -> Path:
    """A project with the folder ``nette``: an image of each of two classes for training, and of three for testing."""
    for split, names in {"train": (TENCH, PARACHUTE), "val": (TENCH, SPANIEL, PARACHUTE)}.items():
        for at, name in enumerate(names):
            folder = tmp_path / "nette" / split / name
            folder.mkdir(parents=True)
            Image.fromarray(np.full((4, 4, 3), 10 * at + len(split), dtype=np.uint8)).save(folder / "0.ppm")
    return tmp_path


def entry(classes: str) -> dict[str, str]:
    return {"name": "folder", "path": "nette", "classes": classes}


def test_the_list_is_in_the_order_of_the_models_of_timm_and_torchvision():
    from timm.data import ImageNetInfo
    from torchvision.models import ResNet18_Weights

    known = class_list(IMAGENET, Path())
    assert list(known.labels) == ImageNetInfo().label_names()
    assert list(known.labels.values()) == list(range(1000))
    assert known.names[0] == f"tench ({TENCH})"
    assert len(set(known.names)) == 1000
    theirs = ResNet18_Weights.DEFAULT.meta["categories"]
    assert np.mean([a.lower() in b.lower() for a, b in zip(theirs, known.names, strict=True)]) > 0.8


def test_labels_are_the_outputs_of_the_model(base):
    data = read_data(entry(IMAGENET), base)
    assert data.description.classes == 1000
    splits = source_of(data.named, data.base).read()
    assert sorted(splits.test.labels) == [0, 217, 701]
    assert splits.train is not None
    assert splits.validation is not None
    assert sorted([*splits.train.labels, *splits.validation.labels]) == [0, 701]
    assert splits.class_names[217] == f"English springer ({SPANIEL})"


def test_a_list_of_her_own_decides_the_order_and_the_names(base):
    lines = [f"{PARACHUTE} parachute, chute", "", f"{SPANIEL}", "golden retriever\tgolden", f"{TENCH}\ttench"]
    (base / "names.txt").write_text("\n".join(lines), encoding="utf-8")
    known = class_list("names.txt", base)
    assert known.labels == {PARACHUTE: 0, SPANIEL: 1, "golden retriever": 2, TENCH: 3}
    assert known.names == ("parachute, chute", SPANIEL, "golden", "tench")
    before = read_data(entry("names.txt"), base)
    assert before.record()["classes"] == "names.txt"
    assert before.description.classes == 4
    (base / "names.txt").write_text("\n".join([*lines[2:], lines[0]]), encoding="utf-8")
    after = read_data(entry("names.txt"), base)
    assert after.description.identity != before.description.identity
    assert sorted(source_of(after.named, after.base).read().test.labels) == [0, 2, 3]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (f"{TENCH}\n{PARACHUTE}\nn02102041", f"nette/val/{SPANIEL}: is none of the 3 classes of names.* 'n02102041'"),
        (f"{TENCH}\n{TENCH}", f"names.txt: names the class '{TENCH}' twice"), (TENCH, "names.txt: names 1 classes"),
        (None, "names.txt: the list of classes cannot be read .No such file or directory.; give a text file"),
    ],
)  # fmt: skip
def test_lists_that_cannot_be_used(base, text, wanted):
    if text is not None:
        (base / "names.txt").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=wanted):
        read_data(entry("names.txt"), base)


def test_the_digest_without_a_list_is_that_of_before(base):
    """Records on a folder stay valid: what is not set counts for nothing."""
    (base / "nette" / "train").rename(base / "elsewhere")
    before = "d194e4e0857ba90ca461ef3578f8d48b"
    assert read_data({"name": "folder", "path": "nette"}, base).description.content == before
    assert read_data(entry(IMAGENET), base).description.content != before
