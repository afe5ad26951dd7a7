"""`epsbench run SUITE --verify`: the recorded numbers come out again, or a line names what changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from epsbench.harness.migrations import RecordWarning
from epsbench.harness.options import Options
from epsbench.harness.plan.suite import Suite, load_suite
from epsbench.harness.records import Verdicts, read_records, record_path
from epsbench.harness.run.runner import run_suite
from epsbench.harness.run.verify import verify

SUITE = """
[robustness]
data = "digits"
curve = "bisect"
[robustness.training]
epochs = 4
[robustness.matrix]
model = "smallcnn"
attack = ["fgsm", { name = "pgd", steps = 3 }]
eps = [0.05, 0.1, 0.2]
"""
QUIET = Options(quiet=True, device="cpu")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Suite, Path]:
    folder = tmp_path_factory.mktemp("verify")
    (folder / "v.toml").write_text(SUITE)
    suite = load_suite(str(folder / "v.toml"), limit=200)
    assert run_suite(suite, folder / "results", QUIET) == 0
    return suite, folder / "results"


def verified(suite: Suite, results: Path, sample: int, **options: object) -> tuple[int, list[str]]:
    lines: list[str] = []
    return verify(suite, results, Options(quiet=True, device="cpu", **options), sample, lines.append), lines


@pytest.mark.parametrize("fresh", [False, True])
def test_recorded_numbers_come_out_again_and_nothing_is_written(recorded, tmp_path, fresh):
    """From the cached weights, and from weights trained anew."""
    suite, results = recorded
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    code, lines = verified(suite, results, 4, **({"weights": tmp_path} if fresh else {}))
    assert code == 0
    assert [line.split()[0] for line in lines[:-1]] == ["identical"] * 4
    assert lines[-1] == "4 of 4 cells are the same (6 are recorded)"
    assert {path: path.read_bytes() for path in results.rglob("*") if path.is_file()} == before


def test_a_changed_verdict_and_another_machine_are_reported(recorded):
    suite, results = recorded
    record = read_records(results)[0]
    path = record_path(results, record.id)
    whole = path.read_text()
    clean, robust = record.verdicts.unpack()
    tree = json.loads(whole)
    fewer = robust & (np.arange(len(clean)) > np.flatnonzero(robust)[1])
    tree["verdicts"] = Verdicts.pack(clean, fewer).model_dump()
    tree["metrics"]["robust_accuracy"] = {"value": float(fewer.mean())}
    tree["environment"]["packages"]["torch"] = "0.4"
    path.write_text(json.dumps(tree))
    code, lines = verified(suite, results, 99)
    path.write_text(whole)
    assert code == 1
    (changed,) = (line for line in lines if line.startswith("changed"))
    assert f"2 of {len(clean)} verdicts" in changed
    assert "packages differ: torch 0.4, now" in changed
    assert lines[-1].startswith("5 of 6 cells")


def test_nothing_recorded_is_two(recorded, tmp_path):
    code, lines = verified(recorded[0], tmp_path / "none", 3)
    assert code == 2
    assert "run it first" in lines[0]
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("model", "bound"), [("vae", "test_bpd"), ("autoencoder", "distortion_bpd")])
def test_a_generative_model_is_verified_by_its_bounds(tmp_path, model, bound):
    evaluation = "{ importance_samples = 2, prior_samples = 2, generated = 0, gradient_samples = 0 }"
    (tmp_path / "g.toml").write_text(
        f'[generation]\ndata = "digits"\ntraining = {{ epochs = 1 }}\nevaluation = {evaluation}\n'
        f'[generation.matrix]\nmodel = "{model}"\n'
    )
    suite = load_suite(str(tmp_path / "g.toml"), limit=64)
    results = tmp_path / "results"
    assert run_suite(suite, results, QUIET) == 0
    assert verified(suite, results, 3)[0] == 0
    path = record_path(results, suite.cells[0].id)
    tree = json.loads(path.read_text())
    tree["metrics"][bound] = {"value": tree["metrics"][bound]["value"] + 0.5}
    tree["training"]["form"] = "contiguous, compiled"
    path.write_text(json.dumps(tree))
    code, lines = verified(suite, results, 3)
    assert code == 1
    assert f": {bound} " in lines[0]
    assert "form of training contiguous, compiled, now channels-last" in lines[0]


def test_records_of_another_version_are_measured_anew_and_the_rest_is_verified(recorded, tmp_path):
    suite, measured = recorded
    results = tmp_path / "results"
    shutil.copytree(measured, results)
    others = [record_path(results, cell.id) for cell in suite.cells[:3]]
    before = [json.loads(path.read_text()) for path in others]
    for path, tree, version in zip(others, before, (0, 2, "two"), strict=True):
        path.write_text(json.dumps(tree | {"schema_version": version, "cell": "of another form"}))
    with pytest.warns(RecordWarning, match="left out"):
        code, lines = verified(suite, results, 2)
    assert (code, lines[-1]) == (0, "2 of 2 cells are the same (3 are recorded)")
    with pytest.warns(RecordWarning, match="left out"):
        assert run_suite(suite, results, QUIET) == 0
    for path, tree, version in zip(others, before, (0, 2, "two"), strict=True):
        assert json.loads(path.read_text())["verdicts"] == tree["verdicts"]
        assert json.loads(path.with_suffix(".other-version").read_text())["schema_version"] == version
    assert len(read_records(results)) == len(suite.cells)
