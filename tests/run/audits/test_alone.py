"""``epsbench audit``: a model before it is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from epsbench.harness.cli import app
from epsbench.harness.errors import InputError
from epsbench.harness.run.audits import alone
from epsbench.harness.run.audits.fresh_process import recipe_of_name
from epsbench.harness.run.data.load import load_data

MODELS = """
import torch
from torch import nn

def Linear(width: int = 1):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

def Softmax():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Softmax(1))

class Rounded(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    def forward(self, x):
        return self.net(x.round())

class Detached(Rounded):
    @torch.no_grad()
    def forward(self, x):
        return self.net(x)

class Raises(nn.Module):
    def forward(self, x):
        if len(x) > 2:
            raise SystemExit(3)
        return x.flatten(1)[:, :10]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    (tmp_path / "mine.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    # Starting another process takes seconds: one test here does.
    monkeypatch.setattr(alone, "recipe_of_name", lambda *_: None)
    return tmp_path


def audit(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["audit", *arguments, "--data", "digits", "--device", "cpu"])
    if isinstance(done.exception, InputError):
        raise done.exception
    return done.exit_code, done.output


def right_on_most(folder: Path) -> str:
    """The file of a linear model's weights: ridge regression on the training images."""
    train = load_data("digits", None, torch.device("cpu")).train
    x, y = train.pixels().flatten(1), nn.functional.one_hot(train.labels, 10).float()
    x = torch.cat([x, torch.ones(len(x), 1)], 1)
    weights = torch.linalg.solve(x.T @ x + torch.eye(65), x.T @ y).T * 5
    torch.save({"1.weight": weights[:, :64].clone(), "1.bias": weights[:, 64].clone()}, folder / "linear.pt")
    return "linear.pt"


def test_a_model_at_chance_is_reported(folder):
    code, text = audit("mine.py:Linear")
    assert code == 0
    assert "warning  at-chance:" in text


def test_a_model_without_a_derivative_is_listed_and_exits_with_0(folder):
    code, text = audit("mine.py:Detached")
    assert code == 0
    assert "warning  not-differentiable:" in text
    assert "audit-failed" not in text


@pytest.mark.usefixtures("units_for_low_precision")
def test_a_clean_model_exits_with_0(folder, monkeypatch):
    assert "exactly 0 in fp16: 0.0%" in audit("mine.py:Linear", "--precision", "fp16")[1]
    monkeypatch.setattr(alone, "recipe_of_name", recipe_of_name)
    code, text = audit("mine.py:Linear", "--weights", right_on_most(folder))
    assert code == 0
    assert "no findings" in text
    assert all(f"exactly 0 in {precision}: 0.0%" in text for precision in ("float32", "bf16"))


def test_a_warning_is_listed_and_exits_with_0(folder):
    code, text = audit("mine.py:Rounded")
    assert code == 0
    assert "warning  zero-gradient: 100.0% of the examples" in text


def test_a_void_finding_is_listed_and_exits_with_1(folder):
    code, text = audit("mine.py:Softmax")
    assert code == 1
    assert "void  probabilities:" in text
    assert "return what the last linear layer returns" in text


def test_weights_of_a_file_are_what_is_audited(folder):
    weights = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).state_dict()
    torch.save({name: value * 1e6 for name, value in weights.items()}, folder / "huge.pt")
    assert "zero-gradient" in audit("mine.py:Linear", "--weights", "huge.pt")[1]
    with pytest.raises(InputError, match=r"none\.pt cannot be read .*; check the path$"):
        audit("mine.py:Linear", "--weights", "none.pt")


def test_names_take_parameters_in_one_word_and_weights_a_key_and_a_normalisation(folder):
    weights = torch.load(right_on_most(folder))
    torch.save({"model": {name: 0 * value for name, value in weights.items()}, "ema": weights}, folder / "two.pt")
    test = load_data("digits", None, torch.device("cpu")).test
    np.savez(folder / "mine.npz", images=test.pixels().numpy(), labels=test.labels.numpy())
    right = "on 128 test images of digits: 120 right"
    assert right in audit("mine.py:Linear:width=2", "--weights", "two.pt", "--key", "ema")[1]
    assert right not in audit("mine.py:Linear", "--weights", "two.pt", "--key", "ema", "--mean", ".9", "--std", "1")[1]
    with pytest.raises(InputError, match="--key: belongs to a file of weights"):
        audit("mine.py:Linear", "--key", "ema")
    file = "file:two.pt:architecture=mine.py:Linear,key=ema"
    done = CliRunner().invoke(app, ["audit", file, "--data", "npz:path=mine.npz", "--device", "cpu"])
    assert "on 128 test images of npz:path=mine.npz: 120 right" in done.output, done.exception


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("mine.py:Raises", "cannot be used on digits: it raises for 16 images: SystemExit: 3"),
        ("smalcnn", "did you mean 'smallcnn'"),
        ("vae", "no classifier"),
    ],
)
def test_what_cannot_be_audited_is_one_message(folder, model, message):
    with pytest.raises(InputError, match=message):
        audit(model)
