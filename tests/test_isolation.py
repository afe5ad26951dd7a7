"""A model that changes torch's global state disturbs no other model's cells."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from epsbench.harness.isolation import global_state_kept
from epsbench.harness.options import Options
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.records import read_records
from epsbench.harness.run.runner import run_suite

CHANGES = {
    "dtype": "torch.set_default_dtype(torch.float64)",
    "gradients": "torch.set_grad_enabled(False)",
    "threads": "torch.set_num_threads(3)",
    "seeds": "torch.manual_seed(0); np.random.seed(0); random.seed(0)",
    "deterministic": "torch.use_deterministic_algorithms(True, warn_only=True)",
    "folder": "os.chdir('/')",
    "anomaly": "torch.autograd.set_detect_anomaly(True)",
}
SUITE = """
[robustness]
data = "digits"
limit = 60
training = {{ epochs = 2, batch_size = 20 }}
[robustness.matrix]
model = [{models}]
attack = ["noise", "fgsm"]
eps = 0.1
"""
NET = """
import os, random
import numpy as np
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(64, 10)
    def forward(self, x):
        logits = self.fc(x.flatten(1).to(self.fc.weight.dtype))
        {change}
        return logits
"""


def state() -> tuple[object, ...]:
    return (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads(), Path.cwd(),
            torch.are_deterministic_algorithms_enabled(), torch.is_anomaly_enabled(), torch.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(), random.getstate())  # fmt: skip


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
def test_every_change_is_undone(change):
    before = state()
    with global_state_kept():
        exec(change, {"torch": torch, "np": np, "random": random, "os": os})
    assert state() == before


def test_a_change_is_undone_after_an_error_too():
    @global_state_kept()
    def changes_and_raises():
        torch.set_default_dtype(torch.float64)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        changes_and_raises()
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
def test_models_that_change_everything_leave_the_others_cells_as_they_were(tmp_path):
    names = []
    for name, change in CHANGES.items():
        (tmp_path / f"{name}.py").write_text(NET.format(change=change), encoding="utf-8")
        names.append(f'"{name}.py:Net"')

    def run(folder: str, *models: str):
        path = tmp_path / "suite.toml"
        path.write_text(SUITE.format(models=", ".join(models)), encoding="utf-8")
        run_suite(load_suite(str(path)), tmp_path / folder, Options(quiet=True, device="cpu"))
        honest = [r for r in read_records(tmp_path / folder) if r.cell["model"]["name"] == "smallcnn"]
        return {r.id: (r.status, r.verdicts, r.training["weights_sha256"]) for r in honest}

    before = state()
    alone = run("alone", '"smallcnn"')
    assert len(alone) == 2
    assert run("among", *[name for name in names if "gradients" not in name], '"smallcnn"') == alone
    assert state() == before


@pytest.mark.parametrize("torch_first", [True, False])
def test_what_a_module_sets_at_import_is_put_back_and_what_it_prints_goes_to_stderr(tmp_path, torch_first):
    (tmp_path / "net.py").write_text(
        "import os, torch\nprint('loading')\ntorch.set_default_dtype(torch.float64)\ntorch.set_grad_enabled(False)\n"
        "os.chdir('/')\nx = 1\n", encoding="utf-8",
    )  # fmt: skip
    script = (
        f"{'import torch' if torch_first else ''}\nfrom pathlib import Path\n"
        "from epsbench.harness.plan.names.loading import load_object\n"
        "here = Path.cwd()\nload_object('net.py:x', here)\nimport torch\n"
        "assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled() and Path.cwd() == here\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "loading\n")
