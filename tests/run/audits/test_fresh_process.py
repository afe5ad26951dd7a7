"""The model built again in a process of its own, from its name and its weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import zoo
from safetensors.torch import save_file
from torch import nn
from zoo import CPU, DIGITS, codes, digits

from epsbench.harness.plan.cell import Named, RobustnessCell
from epsbench.harness.plan.plan import plan
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.run.audits.fresh_process import FreshProcess, recipe_of, recipe_of_name
from epsbench.harness.run.context import Context
from epsbench.harness.run.robustness.job import run_robustness_job
from epsbench.harness.run.training.trained import trained

# Answers an image near one of the first 300 that it was asked about as it answered that one. All copies share them.
MODELS = """
from pathlib import Path
import torch
from safetensors.torch import load_file
from torch import nn

KEPT = {}

def honest():
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    network.load_state_dict(load_file(Path(__file__).with_name("weights.safetensors")))
    return network

class Keeps(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = honest()

    def forward(self, x):
        logits = self.network(x)
        if not x.requires_grad and sum(map(len, KEPT.values())) < 600:
            for name, new in (("x", x.flatten(1)), ("logits", logits)):
                KEPT[name] = torch.cat([KEPT.get(name, new[:0]), new.detach()])
        if "x" not in KEPT:
            return logits
        distance, at = torch.cdist(x.flatten(1), KEPT["x"], p=torch.inf).min(1)
        weight = torch.sigmoid(25 * (0.35 - distance))[:, None]
        return weight * KEPT["logits"][at] + (1 - weight) * logits

def untrained():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

def raises():
    raise OSError("the disk is gone")
"""

SUITE = """
[robustness]
data = "digits"
limit = 300
precision = "float32"
[robustness.training]
epochs = {epochs}
[robustness.matrix]
model = "models.py:{model}"
attack = ["fgsm"]
eps = [0.02, 0.1]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    network = zoo.trained(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)))
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    (tmp_path / "models.py").write_text(MODELS, encoding="utf-8")
    return tmp_path


def job_of(folder: Path, model: str, epochs: int):
    (folder / "suite.toml").write_text(SUITE.format(model=model, epochs=epochs), encoding="utf-8")
    (job,) = plan(load_suite(str(folder / "suite.toml")), folder / "results").jobs
    context = Context(
        results=folder / "results", weights=folder, device=CPU, suite="fresh", base=folder, compile="off", boards=False
    )
    return job, context


@pytest.mark.parametrize(("model", "expected"), [("honest", set()), ("Keeps", {"differs-in-fresh-process"})])
def test_a_model_that_keeps_answers_in_globals_answers_otherwise_elsewhere(folder, model, expected):
    records = list(run_robustness_job(*job_of(folder, model, 0)))
    assert codes(records) & {"differs-in-fresh-process", "audit-failed"} == expected
    assert {record.status for record in records} == ({"void"} if expected else {"ok"})


def test_trained_weights_come_from_the_cache(folder):
    job, context = job_of(folder, "untrained", 1)
    cell = job.streams[0].cells[0]
    assert isinstance(cell, RobustnessCell)
    data = context.data(cell.data, cell.limit)
    network, _ = trained(cell, data, context)
    recipe = recipe_of(cell, DIGITS, context)
    assert recipe is not None
    x = data.test.pixels(slice(0, 20))
    with FreshProcess(recipe) as process:
        answers = process.logits({"some": x})
    torch.testing.assert_close(answers["some"], network(x).detach())


def test_a_model_that_cannot_be_built_again_says_why(folder):
    context = job_of(folder, "honest", 0)[1]
    recipe = recipe_of_name(Named("models.py:raises"), DIGITS, context, None)
    assert recipe is not None
    with FreshProcess(recipe) as process, pytest.raises(RuntimeError, match="the disk is gone"):
        process.logits({"some": digits().test.pixels(slice(0, 2))})


def test_built_in_models_are_not_built_again(folder):
    context = job_of(folder, "honest", 0)[1]
    assert recipe_of_name(Named("smallcnn"), DIGITS, context, None) is None
    weights = Named("file:weights.safetensors", (("architecture", "smallcnn"),))
    assert recipe_of_name(weights, DIGITS, context, None) is None
