"""Attacks and models that fail or make numbers meaningless: their cells say so, and the others are measured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from small import SMALL, run, suite_of

import epsbench
from epsbench.harness.errors import InputError
from epsbench.harness.plan.suite import Suite
from epsbench.harness.records import Record
from epsbench.harness.run.context import Context
from epsbench.harness.run.failure import without_places

BROKEN = """
from dataclasses import dataclass
from epsbench.attacks.base import GradientAttack
from epsbench.attacks.pgd import PGD

SEEN = {}

def later(name, images):
    # The trial before the run sees 131 images.
    SEEN[name] = SEEN.get(name, 0) + len(images)
    return SEEN[name] > 131

@dataclass(frozen=True, kw_only=True)
class Raises(GradientAttack):
    def update(self, x_adv, gradient, eps, step):
        if later("Raises", x_adv):
            raise ValueError("planted <b>failure</b>")
        return x_adv + eps

@dataclass(frozen=True, kw_only=True)
class Exits(GradientAttack):
    def update(self, x_adv, gradient, eps, step):
        if later("Exits", x_adv):
            raise SystemExit(0)
        return x_adv + eps

@dataclass(frozen=True, kw_only=True)
class NaN(GradientAttack):
    def update(self, x_adv, gradient, eps, step):
        return x_adv * float("nan")

@dataclass(frozen=True, kw_only=True)
class Nothing(GradientAttack):
    def update(self, x_adv, gradient, eps, step):
        return x_adv
"""


@pytest.fixture(scope="module")
def broken(tmp_path_factory, finished) -> dict[str, Record]:
    folder = tmp_path_factory.mktemp("broken")
    (folder / "broken.py").write_text(BROKEN)
    names = ", ".join(f'"broken.py:{name}"' for name in ("Raises", "Exits", "NaN", "Nothing"))
    suite = suite_of(folder, SMALL.replace('"noise", "fgsm"', f'{names}, "fgsm"').replace("[0.05, 0.2]", "0.1"))
    code, records = run(suite, folder / "results", weights=finished[1] / "weights")
    assert code == 1
    return {
        record.cell["attack"]["name"].partition(":")[2] or record.cell["attack"]["name"]: record
        for record in records.values()
    }


def test_an_attack_that_raises_fails_its_cell_and_no_other(broken):
    assert broken["Raises"].status == "failed"
    assert broken["Raises"].failure.type == "ValueError"
    assert "planted" in broken["Raises"].failure.message
    assert "in update" in broken["Raises"].failure.traceback
    assert not broken["Raises"].metrics
    assert broken["Exits"].status == "failed"
    assert broken["fgsm"].status == broken["pgd"].status == "ok"


@pytest.mark.parametrize(("name", "code"), [("NaN", "not-finite"), ("Nothing", "no-op")])
def test_an_attack_whose_number_means_nothing_is_void(broken, name, code):
    assert broken[name].status == "void"
    assert code in {finding.code for finding in broken[name].findings}


def test_a_training_that_diverges_fails_its_cells_and_names_the_step(tmp_path):
    text = SMALL.replace("epochs = 2", 'epochs = 2\noptimizer = "sgd"\nlearning_rate = 1e30')
    code, records = run(suite_of(tmp_path, text), tmp_path / "results")
    assert code == 1
    assert {record.status for record in records.values()} == {"failed"}
    assert all("step" in record.failure.message for record in records.values())


MODELS = """
from torch import nn

class TooFew(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, classes - 1))
    def forward(self, x):
        return self.net(x)

class Exits(nn.Module):
    def __init__(self, classes):
        raise SystemExit(0)

class Probabilities(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, classes), nn.Softmax(1))
    def forward(self, x):
        return self.net(x)

class Dropout(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, classes))
    def forward(self, x):
        return self.net(nn.functional.dropout(x, 0.5, training=True))
"""


def model_suite(folder: Path, name: str) -> Suite:
    (folder / "models.py").write_text(MODELS)
    return suite_of(folder, SMALL.replace('"smallcnn"', f'"models.py:{name}"'))


def test_a_model_of_the_wrong_classes_is_refused_before_training(tmp_path):
    with pytest.raises(InputError, match=r"models\.py:TooFew.*\(2, 9\).*\(2, 10\)"):
        run(model_suite(tmp_path, "TooFew"), tmp_path / "results")
    assert not (tmp_path / "results" / "cells").exists()


def test_a_model_that_exits_is_refused_and_does_not_end_the_run_as_a_success(tmp_path):
    with pytest.raises(InputError, match=r"models\.py:Exits"):
        run(model_suite(tmp_path, "Exits"), tmp_path / "results")


@pytest.mark.parametrize(("name", "code"), [("Probabilities", "probabilities"), ("Dropout", "not-deterministic")])
def test_a_model_that_makes_numbers_meaningless_is_void(tmp_path, name, code):
    exit_code, records = run(model_suite(tmp_path, name), tmp_path / "results")
    assert exit_code == 1
    for record in records.values():
        assert record.status == "void"
        assert code in {finding.code for finding in record.findings}


def test_a_record_of_failure_holds_no_folder_of_this_machine(broken, tmp_path):
    trace = broken["Raises"].failure.traceback
    assert 'File "./broken.py", line' in trace
    assert 'File "epsbench/harness/run/' in trace
    assert not re.search(r'File "/', trace)
    for place in (str(Path.home()), str(Path(epsbench.__file__).parent), str(Path.cwd())):
        assert f"{place}/" not in broken["Raises"].model_dump_json()


def test_folders_reached_through_a_link_are_left_out_too(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    context = Context(tmp_path / "link" / "results", tmp_path, torch.device("cpu"), suite="", base=tmp_path / "link")
    text = without_places(f"{tmp_path}/link/own.py {tmp_path}/real/own.py {tmp_path}/link/results/cells", context)
    assert text == "./own.py ./own.py results/cells"
