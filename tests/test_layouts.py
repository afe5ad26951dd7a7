"""Repositories as people leave them: one command measures the checkpoint, right to the last image.

Each is laid out otherwise, and the verdicts are compared with those of a few lines of torch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from epsbench.harness.records import read_records

EPS = 0.1
State = dict[str, torch.Tensor]


def plain_net(width: int = 8) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * width, 10))


@pytest.fixture(scope="module")
def state(digits) -> State:
    """Weights of a network of one convolution and one linear layer, about 95 % right."""
    torch.manual_seed(0)
    net, (x, y) = plain_net(), digits
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        F.cross_entropy(net(x[100:]), y[100:]).backward()
        optimiser.step()
    names = {"0": "conv", "3": "fc"}
    return {names[key[0]] + key[1:]: value.detach() for key, value in net.state_dict().items()}


NET = """
class Net(nn.Module):
    def __init__(self, {arguments}):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, {width}, 3, padding=1), nn.Linear(64 * {width}, 10)
    def forward(self, x):
        return self.fc({act}(self.conv(x)).flatten(1))
"""


def with_src(root: Path, state: State) -> tuple[str, ...]:
    """``src/`` with a package, relative and absolute imports, and averaged weights beside the last ones."""
    write(root / "src/robust/__init__.py")
    write(root / "src/robust/ops.py", "import torch\ndef act(x): return torch.relu(x)\n")
    write(root / "src/robust/models/__init__.py")
    head = "from torch import nn\nfrom ..ops import act\nfrom robust import ops\nassert ops.act is act\n"
    write(root / "src/robust/models/net.py", head + NET.format(arguments="num_classes=10", width=8, act="act"))
    last = {f"module.{name}": torch.randn_like(value) for name, value in state.items()}
    average = {f"module.{name}": value for name, value in state.items()}
    torch.save({"model": last, "ema": average, "args": argparse.Namespace(lr=0.1)}, root / "last.pth")
    return "src/robust/models/net.py:Net", "--weights", "last.pth", "--key", "ema"


def with_utils(root: Path, state: State) -> tuple[str, ...]:
    """A package ``utils``, arguments parsed at import and in the factory, and the normalisation inside the model."""
    write(root / "README.md")  # downloaded as an archive, so without a .git
    write(root / "utils/__init__.py", "from .layers import Normalize\n")
    write(
        root / "utils/layers.py",
        """
import torch
class Normalize(torch.nn.Module):
    def __init__(self, mean, std):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))
    def forward(self, x):
        return (x - self.mean.view(1, -1, 1, 1)) / self.std.view(1, -1, 1, 1)
""",
    )
    head = """
import argparse
from torch import nn
from utils import Normalize
import utils.layers
parser = argparse.ArgumentParser()
parser.add_argument("--width", type=int, default=8)
args = parser.parse_args()
"""
    factory = """
def build_model(args=args):
    assert parser.parse_args() == args
    return nn.Sequential(Normalize([0.0], [1.0]), Net(args.width))
"""
    write(root / "models/net.py", head + NET.format(arguments="width", width="width", act="nn.ReLU()") + factory)
    stored = {f"module.1.{name}": value for name, value in state.items()}
    stored |= {"module.0.mean": torch.tensor([0.0]), "module.0.std": torch.tensor([1.0])}
    torch.save({"state_dict": stored, "best_acc1": np.float64(95.0)}, root / "best.pth.tar")
    return "models/net.py:build_model", "--weights", "best.pth.tar"


def with_config(root: Path, state: State) -> tuple[str, ...]:
    """A class that wants a table of settings, and weights under ``net``."""
    head = "from torch import nn\n"
    write(root / "core/net.py", head + NET.format(arguments="cfg", width='cfg["model"]["width"]', act="nn.ReLU()"))
    torch.save({"net": state, "acc": 95.0, "epoch": 9}, root / "ckpt.t7")
    return "core/net.py:Net:cfg={model={width=8}}", "--weights", "ckpt.t7"


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("layout", [with_src, with_utils, with_config], ids=lambda each: each.__name__)
def test_one_command_is_right_to_the_last_image(
    layout: Callable[[Path, State], tuple[str, ...]], state, digits, shell, tmp_path, monkeypatch
):
    x, y = (each[:60] for each in digits)
    np.savez(tmp_path / "test.npz", x=x.numpy(), y=y.numpy())
    arguments = layout(tmp_path, state)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EPSBENCH_CACHE", str(tmp_path / "cache"))
    before = list(sys.path)
    code, out, err = shell("evaluate", *arguments, "--data", "test.npz", "--attack", "fgsm", "--eps", EPS, "--device",
                           "cpu", "--quiet")  # fmt: skip
    assert (code, sys.path) == (0, before), out + err
    (record,) = read_records(tmp_path / "results/evaluate")
    assert record.verdicts is not None

    net = plain_net().eval()
    net.load_state_dict({{"conv": "0", "fc": "3"}[name.split(".")[0]] + name[name.index("."):]: value
                         for name, value in state.items()})  # fmt: skip
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(net(leaf), y, reduction="sum"), leaf)
    moved = (x + EPS * gradient.sign()).clamp(0, 1)
    right = net(x).argmax(1) == y
    robust = right & (net(moved).argmax(1) == y)
    assert 0 < robust.sum() < right.sum()
    assert [each.tolist() for each in record.verdicts.unpack()] == [right.tolist(), robust.tolist()]
    if layout is not with_config:
        assert "without the prefix" in out  # which weights were taken
    assert record.training["loaded"]


def test_a_factory_that_wants_an_object_says_what_to_write(shell, tmp_path, monkeypatch):
    write(tmp_path / "net.py", "def build_model(args): raise AssertionError\n")
    monkeypatch.chdir(tmp_path)
    code, _, err = shell("evaluate", "net.py:build_model", "--data", "digits", "--quiet")
    assert code == 2
    assert "args is missing; give args = <anything>, or name a function of your own that needs no args" in err
