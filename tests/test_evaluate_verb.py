"""`epsbench evaluate`: from a research repository to its accuracies in one command, right to the last image."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from epsbench.attacks import PGD
from epsbench.attacks.norms import NORMS
from epsbench.attacks.plain import path as plain_path
from epsbench.harness.records import read_records
from epsbench.harness.run.attack.gradient import loss_gradient
from epsbench.harness.run.noise import KeyedNoise

NET = '''
import torch.nn as nn
from utils import act

class ConvNet(nn.Module):
    """As in most repositories: no normalisation inside."""
    def __init__(self, num_classes=10, width=8):
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, padding=1)
        self.bn = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width * 16, num_classes)

    def forward(self, x):
        return self.fc(nn.functional.max_pool2d(act(self.bn(self.conv(x))), 2).flatten(1))
'''
UTILS = "import torch.nn.functional as F\n\ndef act(x):\n    return F.relu(x)\n"
MEAN, STD, N = 0.305, 0.376, 120


@pytest.fixture(scope="module")
def project(tmp_path_factory, digits) -> Path:
    """A clone of somebody's repository: models/, utils.py, a checkpoint of DataParallel, and a test set."""
    root = tmp_path_factory.mktemp("clone")
    (root / ".git").mkdir()
    (root / "models").mkdir()
    (root / "models" / "convnet.py").write_text(NET, encoding="utf-8")
    (root / "utils.py").write_text(UTILS, encoding="utf-8")
    x, y = digits
    network = own_network(root)
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(6):
        for rows in torch.randperm(len(x), generator=torch.Generator().manual_seed(0)).split(128):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network((x[rows] - MEAN) / STD), y[rows]).backward()
            optimiser.step()
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 6, "best_acc1": np.float64(97.0)}, root / "best.pt")
    np.savez(root / "test.npz", images=x[:N].numpy(), labels=y[:N].numpy())
    return root


def own_network(root: Path) -> nn.Module:
    """The network as its own author builds it."""
    torch.manual_seed(0)
    sys.path.insert(0, str(root))
    try:
        spec = importlib.util.spec_from_file_location("convnet", root / "models" / "convnet.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(root))
        sys.modules.pop("utils", None)
    return module.ConvNet()


@pytest.fixture
def call(shell, monkeypatch, project, tmp_path):
    monkeypatch.chdir(project)
    monkeypatch.setenv("EPSBENCH_CACHE", str(tmp_path / "cache"))
    return shell


OWN = ("evaluate", "models/convnet.py:ConvNet", "--weights", "best.pt", "--mean", MEAN, "--std", STD, "--data",
       "test.npz", "--device", "cpu", "--quiet")  # fmt: skip


def test_one_command_is_right_to_the_last_image(call, project, tmp_path):
    out = tmp_path / "out"
    code, text, _ = call(*OWN, "--attack", "pgd:steps=7,random_start=true,restarts=2", "--eps", "0.08", "--out", out)
    assert code == 0
    (record,) = read_records(out)
    clean, robust = record.verdicts.unpack()
    assert f"{100 * robust.mean():.1f} %" in text

    network = own_network(project)
    stored = torch.load(project / "best.pt", weights_only=False)["state_dict"]
    network.load_state_dict({name.removeprefix("module."): value for name, value in stored.items()})
    network.eval()
    with np.load(project / "test.npz") as file:
        x, y = torch.from_numpy(file["images"]), torch.from_numpy(file["labels"])

    def logits(points):
        return network((points - MEAN) / STD)

    with torch.no_grad():
        right = logits(x).argmax(1) == y
    assert clean.tolist() == right.tolist()
    attack = PGD(steps=7, random_start=True, restarts=2, norm=NORMS["linf"])
    eps, index, expected = torch.full((N, 1, 1, 1), 0.08), torch.arange(N), right.clone()
    for restart in range(2):
        attempt = torch.full((N,), restart)
        points = plain_path(
            attack, lambda point, loss, *inputs: loss_gradient(logits, point, loss, inputs), x, y, eps, attempt,
            lambda step, attempt=attempt: KeyedNoise(0, index, attempt, step), lambda: logits(x),
        )  # fmt: skip
        for point in points:
            with torch.no_grad():
                expected &= logits(point).argmax(1) == y
    assert robust.tolist() == expected.tolist()
    assert 0.05 < expected.float().mean() < 0.95
    assert str(project) not in (out / "cells" / f"{record.id}.json").read_text()


def test_the_same_command_goes_on_from_there(call, tmp_path):
    out = tmp_path / "out"
    first = call(*OWN, "--attack", "fgsm", "--eps", "0.05", "--out", out)
    again = call(*OWN, "--attack", "fgsm", "--eps", "0.05", "--out", out)
    assert "nothing to do: the cell was recorded" in again[1]
    more = call(*OWN, "--attack", "fgsm", "--attack", "noise", "--eps", "0.05", "--eps", "8/255", "--out", out)
    assert (first[0], again[0], more[0]) == (0, 0, 0)
    assert len(read_records(out)) == 4


def test_files_of_images_are_told_apart(call, tmp_path):
    images = tmp_path / "all.npz"
    two = ("--attack", "pgd:steps=2", "--attack", "pgd:steps=5", "--eps", "0.08")
    code, text, _ = call(*OWN, *two, "--out", tmp_path / "out", "--save-images", images)
    assert code == 0
    (line,) = (each for each in text.splitlines() if each.startswith("wrote "))
    first, second = line.split("all-1.npz")
    assert "steps=2" in first
    assert "steps=5" in second
    # The files say it themselves.
    for number, steps in enumerate((2, 5)):
        with np.load(tmp_path / f"all-{number}.npz") as file:
            assert (file["attack"], file["norm"], file["model"]) == ("pgd", "linf", "file:best.pt")
            assert json.loads(str(file["cell"]))["attack"]["steps"] == steps


def test_images_are_saved_and_scored(call, tmp_path):
    out, images = tmp_path / "out", tmp_path / "adversarial.npz"
    code, text, _ = call(*OWN, "--attack", "pgd:steps=5", "--eps", "0.08", "--out", out, "--save-images", images)
    assert code == 0
    assert f"wrote {images}" in text
    (record,) = read_records(out)
    with np.load(images) as file:
        saved = {name: file[name] for name in file.files}
    assert (saved["predictions"] == saved["labels"]).tolist() == record.verdicts.unpack()[1].tolist()
    assert float(saved["eps"]) == pytest.approx(0.08)

    scored = tmp_path / "scored"
    assert call(*OWN, "--score", images, "--eps", "0.08", "--out", scored)[0] == 0
    (judged,) = read_records(scored)
    assert judged.verdicts == record.verdicts
    assert str(tmp_path) not in (scored / "cells" / f"{judged.id}.json").read_text()
    # In a smaller ball they are projected, and a finding says so.
    call(*OWN, "--score", images, "--eps", "0.02", "--out", tmp_path / "smaller")
    (smaller,) = read_records(tmp_path / "smaller")
    assert "beyond-ball" in {finding.code for finding in smaller.findings} or smaller.findings
    assert smaller.verdicts.unpack()[1].sum() >= judged.verdicts.unpack()[1].sum()


def test_no_file_that_somebody_needs_is_replaced_by_images(call, project, tmp_path):
    """The test images, weights, or images that are judged; nothing is measured before the message."""
    out = tmp_path / "out"
    measured = (*OWN, "--attack", "fgsm", "--eps", "0.05", "--out", out)
    for name in ("test.npz", "best.pt", "models/convnet.py"):
        before = (project / name).read_bytes()
        code, _, error = call(*measured, "--save-images", name)
        assert (code, (project / name).read_bytes()) == (2, before)
        assert f"{name}: is there, and no file of adversarial images; save them under another name" in error
    assert not list(out.glob("cells/*"))

    images = tmp_path / "images.npz"
    assert call(*measured, "--save-images", images)[0] == 0
    assert call(*measured, "--eps", "0.06", "--save-images", images)[0] == 0  # images-0.npz and images-1.npz
    assert call(*measured, "--save-images", images)[0] == 0  # its own file is replaced
    with np.load(images) as file:  # as earlier versions wrote it
        np.savez(images, **{name: file[name] for name in ("images", "labels", "predictions", "eps")})
    assert call(*measured, "--save-images", images)[0] == 0
    before = images.read_bytes()
    code, _, error = call(*OWN, "--score", images, "--eps", "0.01", "--out", out, "--save-images", images)
    assert (code, images.read_bytes()) == (2, before)
    assert "images.npz: is what the images are made from; save them under another name" in error
    (tmp_path / "images-1.npz").write_text("notes")
    assert call(*measured, "--eps", "0.06", "--save-images", images)[0] == 2


def test_images_in_another_order_are_not_judged(call, tmp_path):
    """With the labels in the file, an order that is not that of the test images is seen."""
    images, mixed = tmp_path / "images.npz", tmp_path / "mixed.npz"
    call(*OWN, "--attack", "fgsm", "--eps", "0.05", "--out", tmp_path / "out", "--save-images", images)
    with np.load(images) as file:
        saved = {name: file[name][::-1] for name in ("images", "labels")}
    np.savez(mixed, **saved)
    code, _, error = call(*OWN, "--score", mixed, "--eps", "0.05", "--out", tmp_path / "scored")
    first = int(np.flatnonzero(saved["labels"] != saved["labels"][::-1])[0])
    assert code == 2
    assert f"mixed.npz: its labels are not those of the test images (image {first} has the label" in error
    assert not list((tmp_path / "scored").glob("cells/*"))
    np.savez(mixed, images=saved["images"][::-1], labels=saved["labels"][::-1][:-1])
    code, _, error = call(*OWN, "--score", mixed, "--eps", "0.05", "--out", tmp_path / "scored")
    assert code == 2
    assert f"(there are {N - 1:,}, and {N:,} test images)" in error
    assert call(*OWN, "--limit", "9", "--score", mixed, "--eps", "0.05", "--out", tmp_path / "scored")[0] == 0


@pytest.mark.parametrize("content", [b"PK\x03\x04broken", b"PK\x05\x06", b""], ids=repr)
def test_a_damaged_file_of_images_is_one_message(call, tmp_path, content):
    (tmp_path / "damaged.npz").write_bytes(content)
    code, _, error = call(*OWN, "--score", tmp_path / "damaged.npz", "--eps", "0.08", "--out", tmp_path / "out")
    assert code == 2
    assert "damaged.npz: is no NumPy file" in error
    assert "Traceback" not in error


def test_an_array_without_a_name_is_no_file_of_images(call, tmp_path):
    np.save(tmp_path / "made.npy", np.zeros((120, 1, 8, 8), np.float32))
    code, _, error = call(*OWN, "--score", tmp_path / "made.npy", "--eps", "0.08", "--out", tmp_path / "out")
    assert code == 2
    assert "made.npy: holds one array without a name; save it as numpy.savez(" in error


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("models/convnet.py:ConvNet", "--data", "gone.npz"), "data: npz: |gone.npz cannot be read"),
        (("models/convnet.py:ConvNte", "--data", "test.npz"), "did you mean 'ConvNet'"),
        (("models/convnet.py:ConvNet", "--data", "test.npz", "--weights", "gone.pt"), "gone.pt cannot be read"),
        (("models/convnet.py:ConvNet:width=9", "--data", "test.npz", "--weights", "best.pt"), "in the file and"),
        (("models/convnet.py:ConvNet", "--data", "test.npz", "--attack", "pgd:steps"), "pgd:steps"),
        (("models/convnet.py:ConvNet", "--data", "test.npz", "--mean", "0.5"), "--mean: belongs to a file of weights"),
        (("models/convnet.py:ConvNet", "--data", "test.npz", "--weights", "best.pt", "--mean", "a", "--std", "1"),
         "--mean: 'a' are no numbers"),
        (("models/convnet.py:ConvNet", "--data", "test.npz", "--score", "test.npz", "--attack", "fgsm"),
         "leave out --attack"),
        (("models/convnet.py:ConvNet", "--data", "digits", "--score", "test.npz"), "holds 120 images for 500"),
    ],
)  # fmt: skip
def test_what_cannot_be_evaluated_is_one_message_and_exit_code_2(call, arguments, wanted, tmp_path):
    code, _, error = call("evaluate", *arguments, "--out", tmp_path / "out")
    assert code == 2
    assert any(part in error for part in wanted.split("|")), error
    assert "Traceback" not in error
    assert not list((tmp_path / "out").glob("cells/*"))


def test_a_suite_is_shown_and_the_version_printed(call):
    code, text, _ = call("show", "quickstart")
    assert code == 0
    assert "[robustness]" in text
    assert call("--version")[1].startswith("epsbench ")
    assert "epsbench show mnist > mine.toml" in call("show", "--help")[1]
