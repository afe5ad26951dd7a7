"""Evaluations on streamed data: images, files of images and scores are bit for bit those from memory."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from epsbench.harness.api import evaluate
from epsbench.harness.cli import main
from epsbench.harness.errors import InputError
from epsbench.harness.kept_images import PerImage
from epsbench.harness.plan.data.decoded import decoded_folder
from epsbench.harness.records import read_records
from epsbench.harness.run.attack import kept_images
from epsbench.harness.run.attack.kept_images import blank_images, in_parts, is_in_file, let_go
from epsbench.harness.run.attack.ledger import blank_outcome
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.robustness.partial import PartialResults
from epsbench.harness.saved_images import NAMES, SAVED

N = 60


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("EPSBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4)).eval()


@pytest.fixture
def images(model) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand(N, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    y = model(x).argmax(1)
    y[::7] = (y[::7] + 1) % 4  # some are wrong without an attack
    return x, y


ATTACKS = ["pgd:steps=4,random_start=true", "ddn:steps=10", "parts.py:Parts"]
PARTS = """
from dataclasses import dataclass
from epsbench.attacks import PGD, Ensemble, Noise

@dataclass(frozen=True, kw_only=True)
class Parts(Ensemble):
    parts: tuple = (Noise(), PGD(steps=4))
"""


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("kind", ["dataset", "loader"])
def test_images_and_rows_are_those_from_memory(place, monkeypatch, model, images, attack, kind):
    (place / "parts.py").write_text(PARTS)
    norm = "l2" if attack.startswith("ddn") else "linf"
    options = {"attack": attack, "norm": norm, "eps": [0.02, 0.1], "batch_size": 16, "compile": "off", "classes": 4}
    dataset = TensorDataset(*images)
    data = dataset if kind == "dataset" else DataLoader(dataset, 7)
    expected = evaluate(model, data, **options)
    monkeypatch.setenv("EPSBENCH_DATA_MEMORY", "0")
    monkeypatch.setattr(kept_images, "CHUNK", 3 * 8 * 8 * 4 * 5)  # five images at a time
    streamed = evaluate(model, data, **options)
    for one, other in zip(expected, streamed, strict=True):
        assert other.record.verdicts == one.record.verdicts
        assert np.array_equal(other.per_image["images"], one.per_image["images"])
        assert list(other.per_image) == list(one.per_image)
    assert np.array_equal(streamed.images, expected.images)
    assert streamed.frame().equals(expected.frame())
    assert pickle.loads(pickle.dumps(streamed)).images.tobytes() == expected.images.tobytes()
    for name, result in (("a", expected), ("b", streamed)):
        result.save_images(place / f"{name}.npz")
    for number in range(2):
        with np.load(place / f"a-{number}.npz") as a, np.load(place / f"b-{number}.npz") as b:
            assert a.files == b.files == ["images", *SAVED, *NAMES, "cell"]
            assert all(np.array_equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a.files)


def test_files_of_images_are_saved_and_scored_as_from_memory(place, monkeypatch, model, images):
    x, y = images
    np.savez(place / "test.npz", images=x, labels=y)
    (place / "net.py").write_text(
        "from torch import nn\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(192, 4))\n"
    )
    torch.save(model.state_dict(), place / "w.pt")

    def call(*arguments: str) -> None:
        given = ["epsbench", "evaluate", "net.py:net", "--weights", "w.pt", "--data", "test.npz", "--eps", "0.1",
                 "--batch-size", "16", "--quiet", *arguments]  # fmt: skip
        monkeypatch.setattr(sys, "argv", given)
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code in (0, None)

    for name in ("memory", "file"):
        call("--attack", "pgd:steps=4", "--save-images", f"{name}.npz", "--out", name)
        call("--score", f"{name}.npz", "--out", f"{name}-scored")
        monkeypatch.setenv("EPSBENCH_DATA_MEMORY", "0")
    with np.load("memory.npz") as a, np.load("file.npz") as b:
        assert all(np.array_equal(a[name], b[name]) for name in a.files)
    scored = [read_records(place / f"{name}-scored")[0] for name in ("memory", "file")]
    assert scored[0].verdicts == scored[1].verdicts == read_records(place / "memory")[0].verdicts


def test_images_in_a_file_are_a_tensor_whose_pages_can_go(place):
    images = blank_images((50, 3, 4, 4), True)
    assert is_in_file(images)
    assert not is_in_file(blank_images((50, 3, 4, 4), False))
    values = torch.rand(50, 3, 4, 4)
    images[torch.arange(49, -1, -1)] = values.flip(0)
    let_go(images)
    assert torch.equal(images, values)
    assert sum(rows.stop - rows.start for rows in in_parts(images)) == 50
    assert not list(decoded_folder().iterdir())  # the file has no name


def test_a_resumed_ensemble_keeps_large_images_in_a_file(place, monkeypatch):
    eps, n = Fraction(1, 10), 900
    x = torch.rand(n, 3, 8, 8)
    targets = Targets(lambda at: x[at], torch.zeros(n, dtype=torch.long), torch.arange(n))
    kept = PartialResults(place, [SimpleNamespace(id="one", eps=eps)], "weights")
    outcome = blank_outcome(targets, eps, n)
    outcome.images[:] = x
    kept.save(outcome)
    in_memory = kept.load(eps)
    monkeypatch.setenv("EPSBENCH_DATA_MEMORY", "0")
    in_file = kept.load(eps)
    assert (is_in_file(in_memory.images), is_in_file(in_file.images)) == (False, True)
    assert torch.equal(in_memory.images, x)
    assert torch.equal(in_file.images, x)
    content = bytearray(kept.path(eps).read_bytes())
    middle = len(content) // 2
    content[middle : middle + 300] = bytes(300)
    kept.path(eps).write_bytes(content)
    assert kept.load(eps) is None  # the parts are computed again


def test_no_room_for_the_images_is_one_message(place, monkeypatch):
    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept_images, "_reserve", full)
    with pytest.raises(InputError, match="no room for the adversarial images of streamed data"):
        blank_images((5, 3, 4, 4), True)


def test_images_that_cannot_be_read_any_more_are_one_message(place):
    images = np.random.RandomState(0).rand(900, 3, 8, 8).astype(np.float32)
    np.savez("kept.npz", images=images, labels=np.arange(900), of=900)
    content = bytearray(Path("kept.npz").read_bytes())
    content[400_000:400_300] = bytes(300)  # the checksum differs
    Path("kept.npz").write_bytes(content)
    kept = PerImage.read(Path("kept.npz"), 0)
    with pytest.raises(InputError, match=r"kept\.npz: the images of this evaluation cannot be read.*run it again"):
        kept["images"]
    Path("cut.npz").write_bytes(content[:500])
    with pytest.raises(InputError, match="cannot be read"):
        PerImage.read(Path("cut.npz"), 0)


def test_memory_does_not_grow_with_the_images(tmp_path):
    script = Path(__file__).parent / "measure_evaluation_memory.py"

    def of(images: str) -> dict:
        """In a process of its own: a second evaluation in one process has also what the first left of the heap."""
        command = [sys.executable, str(script), str(tmp_path / images), "64", "save", images]
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return next(json.loads(line) for line in shown.splitlines() if line.startswith("{"))

    few, many = of("1000"), of("6000")  # from about 1,000 on, all buffers have their size
    assert few["outcome"] == many["outcome"] == 0
    # Two peaks of one number of images differ by up to 70 MB where the machine is busy.
    assert many["peak_bytes"] - few["peak_bytes"] < (many["pixels_bytes"] - few["pixels_bytes"]) / 2
