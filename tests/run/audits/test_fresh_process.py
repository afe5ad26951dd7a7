"""The model built again in a process of its own, from its name and its weights."""

from __future__ import annotations

import io
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import zoo
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from zoo import CPU, DIGITS, codes, probe_of

from epsbench.harness.plan.cell import RobustnessCell
from epsbench.harness.plan.named import Named
from epsbench.harness.plan.plan import plan
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.run.audits import fresh_child, fresh_process
from epsbench.harness.run.audits.fresh_process import (
    FreshProcess,
    Recipe,
    audit_fresh_process,
    recipe_of,
    recipe_of_name,
)
from epsbench.harness.run.audits.replay import Replayed
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


def test_a_model_that_keeps_answers_in_globals_answers_otherwise_elsewhere(folder):
    records = list(run_robustness_job(*job_of(folder, "Keeps", 0)))
    assert codes(records) & {"differs-in-fresh-process", "audit-failed"} == {"differs-in-fresh-process"}
    assert {record.status for record in records} == {"void"}


def test_trained_weights_come_from_the_cache(folder):
    job, context = job_of(folder, "untrained", 1)
    cell = job.streams[0].cells[0]
    assert isinstance(cell, RobustnessCell)
    data = context.data(cell.data, cell.limit)
    network, _ = trained(cell, data, context)
    recipe = recipe_of(cell, DIGITS, context)
    assert recipe is not None
    probe = probe_of(network)
    replayed = Replayed(probe.x, probe.y, F.cross_entropy(probe.logits(probe.x), probe.y, reduction="none"))
    with FreshProcess(recipe) as process:
        assert list(audit_fresh_process(process, probe, {"clean": probe.x}, replayed)) == []


@pytest.fixture
def recipe(folder) -> Recipe:
    made = recipe_of_name(Named("models.py:honest"), DIGITS, job_of(folder, "honest", 0)[1])
    assert made is not None
    return made


@pytest.fixture
def child(folder, monkeypatch) -> Callable[[str], None]:
    """Puts another program in place of the process: without torch it starts at once."""

    def write(program: str) -> None:
        (folder / "another_child.py").write_text(program, encoding="utf-8")
        monkeypatch.syspath_prepend(folder)
        monkeypatch.setattr(fresh_process, "CHILD", "another_child")

    return write


SOME = {"some": torch.zeros(2, 1, 8, 8)}


def test_a_model_that_cannot_be_built_again_is_reported_with_the_reason(recipe, child):
    child("raise OSError('the disk is gone')")
    with FreshProcess(recipe) as process, pytest.raises(RuntimeError, match=r"built again.*the disk is gone"):
        process.logits(SOME)


def test_a_process_that_takes_too_long_is_ended(recipe, child, monkeypatch):
    child("import time; time.sleep(60)")
    monkeypatch.setattr(fresh_process, "TIMEOUT", 0.1)
    with FreshProcess(recipe) as process, pytest.raises(RuntimeError, match="longer than"):
        process.logits(SOME)
    assert process._process.poll() is not None
    assert not process._path.exists()


def test_a_process_ends_with_an_interrupted_run(recipe, child):
    child("import time; time.sleep(60)")
    with pytest.raises(KeyboardInterrupt), FreshProcess(recipe) as process:
        raise KeyboardInterrupt
    assert process._process.poll() is not None
    assert not process._path.exists()


def test_a_process_ends_when_the_run_is_killed(recipe, tmp_path):
    """It reads the end of its input, asks nothing of the model, and leaves nothing behind."""
    (tmp_path / "of the process").mkdir()
    (tmp_path / "of the process" / "recipe").write_bytes(pickle.dumps(recipe))
    fresh_child.main(tmp_path / "of the process", io.StringIO())
    assert not (tmp_path / "of the process").exists()


def test_a_file_named_like_a_module_of_python_is_not_imported(recipe, child, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "pickle.py").write_text("raise OSError('this is another pickle')", encoding="utf-8")
    child("import pickle; raise OSError(pickle.__file__)")
    monkeypatch.chdir(tmp_path / "here")
    with FreshProcess(recipe) as process, pytest.raises(RuntimeError, match=r"pickle\.py$"):
        process.logits(SOME)


def test_without_a_folder_for_temporary_files_the_measurement_goes_on(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    records = list(run_robustness_job(*job_of(folder, "honest", 0)))
    assert {record.status for record in records} == {"ok"}
    (failure,) = {each.message for record in records for each in record.findings if each.code == "audit-failed"}
    assert "no process can be started" in failure


def test_built_in_models_are_not_built_again(folder):
    context = job_of(folder, "honest", 0)[1]
    assert recipe_of_name(Named("smallcnn"), DIGITS, context) is None
    weights = Named("file:weights.safetensors", (("architecture", "smallcnn"),))
    assert recipe_of_name(weights, DIGITS, context) is None
