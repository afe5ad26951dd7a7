"""What several tests share: a small network trained on real digits in about a second, and hypothesis profiles."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "epsbench",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("epsbench")


@pytest.fixture
def skip_without_libraries() -> Callable[[str], None]:
    """Skips a test of the suite ``libraries`` where it cannot be read, because an extra is not installed."""

    def skip(suite: str) -> None:
        if suite != "libraries":
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those libraries' own
            for name in ("torchattacks", "foolbox", "art.attacks.evasion", "adv_lib.attacks"):
                pytest.importorskip(name, reason=f"of the extra of {name.partition('.')[0]}")

    return skip


@pytest.fixture
def shell(capsys, monkeypatch) -> Callable[..., tuple[int, str, str]]:
    """Runs the console script in this process; returns exit code, standard output and standard error."""
    from epsbench.harness import cli

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["epsbench", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return run


@pytest.fixture
def units_for_low_precision(monkeypatch) -> None:
    """Lets networks compute in bf16 and fp16 on any machine, also on one that takes many times as long for it."""
    from epsbench.harness.run.machine import precision

    monkeypatch.setattr(precision, "times_as_long", lambda name: 1.0)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Where MNIST and CIFAR-10 lie; tests that need them are skipped without it."""
    root = os.environ.get("EPSBENCH_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("needs MNIST or CIFAR-10: set EPSBENCH_DATA to a folder in torchvision's layout")
    return Path(root)


@pytest.fixture(scope="session")
def digits():
    """(images (1797, 1, 8, 8) in [0, 1], labels (1797,)): scikit-learn's scans."""
    import torch
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return torch.tensor(bunch.images, dtype=torch.float32).unsqueeze(1) / 16, torch.tensor(bunch.target)


@pytest.fixture(scope="session")
def network(digits):
    """A convolutional network with batch norm, about 99 % right on the digits it was trained on."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip
    x, y = digits
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(8):
        for rows in torch.randperm(len(x)).split(128):
            optimiser.zero_grad()
            F.cross_entropy(net(x[rows]), y[rows]).backward()
            optimiser.step()
    return net.eval()
