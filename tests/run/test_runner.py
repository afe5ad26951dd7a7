"""A run as a whole: it resumes, survives kills, records failures, and does not depend on the batch size."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from small import SMALL, TINY, run, suite_of

from epsbench.harness.errors import InputError
from epsbench.harness.options import Options
from epsbench.harness.plan.plan import plan
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.records import read_pictures, read_records
from epsbench.harness.run import jobs, runner
from epsbench.harness.run.runner import run_suite


def test_every_cell_has_a_record_that_adds_up(finished):
    suite, results, records = finished
    assert set(records) == {cell.id for cell in suite.cells}
    for record in records.values():
        clean, robust = record.verdicts.unpack()
        assert record.status == "ok"
        assert record.metrics["clean_accuracy"].value == clean.mean()
        assert record.metrics["robust_accuracy"].value == robust.mean()
        assert not (robust & ~clean).any()
        attacked = clean.sum()
        success = record.metrics["attack_success_rate"]
        assert success.n == attacked
        assert success.value == pytest.approx((clean & ~robust).sum() / attacked)
        assert record.cost["seconds"] > 0
        assert record.cost["peak_bytes"] > 0
        pictures = read_pictures(results, record)
        moved = np.abs(pictures["adversarial"] - pictures["original"]).max()
        assert 0 < moved <= float(record.cell["eps"]) + 1e-6
        assert record.environment["packages"]["torch"]


def test_noise_costs_no_gradient_fgsm_one_an_image_and_pgd_its_steps(finished):
    _, _, records = finished
    for record in records.values():
        cost, name = record.cost, record.cell["attack"]["name"]
        if name == "noise":
            assert cost["gradients_per_image"] == 0
        if name == "fgsm":
            assert cost["gradients_per_image"] == 1
        if name == "pgd":
            assert 1 <= cost["gradients_per_image"] <= 3


def test_a_second_run_measures_nothing(finished):
    suite, results, before = finished
    files = {path: path.stat().st_mtime_ns for path in (results / "cells").iterdir()}
    assert not plan(suite, results).pending
    code, after = run(suite, results)
    assert code == 0
    assert after == before
    assert {path: path.stat().st_mtime_ns for path in (results / "cells").iterdir()} == files


def test_a_missing_record_alone_is_measured_again_with_the_same_weights(finished, tmp_path):
    suite, results, before = finished
    lost = suite.cells[3].id
    text = (results / "cells" / f"{lost}.json").read_text()
    (results / "cells" / f"{lost}.json").unlink()
    others = {path: path.stat().st_mtime_ns for path in (results / "cells").iterdir()}
    _, after = run(suite, results)
    assert after[lost].training["cached"] is True
    assert after[lost].verdicts == before[lost].verdicts
    assert {path: path.stat().st_mtime_ns for path in others} == others
    (results / "cells" / f"{lost}.json").write_text(text)


@pytest.mark.parametrize("batch", [1, 7, 64, 512])
def test_verdicts_do_not_depend_on_the_batch_size(finished, tmp_path, batch):
    suite, results, expected = finished
    _, records = run(suite, tmp_path, batch_size=batch, weights=results / "weights")
    for identity, record in records.items():
        assert record.training["cached"] is True
        assert record.verdicts == expected[identity].verdicts


def test_one_example_is_enough_to_run(tmp_path):
    path = tmp_path / "one.toml"
    path.write_text(SMALL)
    _, records = run(load_suite(str(path), limit=1), tmp_path / "results")
    assert {record.metrics["clean_accuracy"].n for record in records.values()} == {1}


def test_a_results_folder_that_cannot_be_written_is_one_message(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--out"):
        run(suite_of(tmp_path), tmp_path / "file" / "results")


def test_ctrl_c_leaves_what_is_finished_and_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    suite, seen = suite_of(tmp_path), []
    drive = runner._executor("local")

    def interrupted(jobs, context):
        for record in drive(jobs, context):
            seen.append(record)
            yield record
            if len(seen) == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(runner, "_executor", lambda name: interrupted)
    assert run_suite(suite, tmp_path / "results", Options(quiet=True, device="cpu")) == 130
    assert {record.id for record in read_records(tmp_path / "results")} == {record.id for record in seen}
    assert f"2 of {len(suite.cells)} cells" in " ".join(capsys.readouterr().err.split())


def test_profiles_are_traces_of_a_run_apart(finished, tmp_path):
    suite, results, expected = finished
    _, records = run(suite, tmp_path, profile=True, weights=results / "weights")
    traces = list((tmp_path / "profiles").glob("*/*.pt.trace.json"))
    assert len(traces) == 3
    for trace in traces:
        assert any("epsbench:" in str(event.get("name")) for event in json.loads(trace.read_text())["traceEvents"])
    assert all(record.verdicts == expected[identity].verdicts for identity, record in records.items())


KILLED = """
import sys
from pathlib import Path
from epsbench.harness.options import Options
from epsbench.harness.run.runner import run_suite
from epsbench.harness.plan.suite import load_suite
print("ready", flush=True)
run_suite(load_suite(sys.argv[1], limit=200), Path(sys.argv[2]), Options(quiet=True, device="cpu"))
"""


def test_sigkill_at_any_moment_loses_no_record_and_tears_no_file(finished, tmp_path):
    """Kill runs at moments spread over their length; what was recorded stays, and the last run adds the rest."""
    suite, _, expected = finished
    results = tmp_path / "results"
    recorded: dict[str, bytes] = {}
    for moment in np.random.default_rng(0).uniform(0.0, 1.5, size=6):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(suite.path), str(results)],
            stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        with process:
            process.stdout.readline()
            time.sleep(moment)
            process.send_signal(signal.SIGKILL)
        on_disk = {path.name: path.read_bytes() for path in (results / "cells").glob("*.json")}
        assert recorded.items() <= on_disk.items()
        recorded = on_disk
        assert len(read_records(results)) == len(on_disk)
    code, records = run(suite, results)
    assert code == 0
    assert set(records) == set(expected)
    assert recorded.items() <= {p.name: p.read_bytes() for p in (results / "cells").glob("*.json")}.items()


def test_a_curve_of_dependent_eps_is_measured_whole(finished, tmp_path):
    """Bisection over a list of ε: the verdict at one ε leans on the others, so a missing record brings all back."""
    text = SMALL.replace("[robustness.training]", 'curve = "bisect"\n[robustness.training]').replace(
        "[0.05, 0.2]", "[0.05, 0.1, 0.2]"
    )
    suite = suite_of(tmp_path, text)
    assert {cell.canonical()["curve_eps"] == ["0.05", "0.1", "0.2"] for cell in suite.cells} == {True}
    _, records = run(suite, tmp_path / "results", weights=finished[1] / "weights")
    assert {record.status for record in records.values()} == {"ok"}
    lost = next(cell for cell in suite.cells if cell.attack.name == "pgd")
    (tmp_path / "results" / "cells" / f"{lost.id}.json").unlink()
    (job,) = plan(suite, tmp_path / "results").pending_jobs
    assert {cell.stream for cell in job.cells} == {lost.stream}
    assert len(job.cells) == 3
    _, again = run(suite, tmp_path / "results", weights=finished[1] / "weights")
    assert {i: r.verdicts for i, r in again.items()} == {i: r.verdicts for i, r in records.items()}


def test_another_list_of_eps_is_another_cell_only_where_the_eps_depend_on_each_other(tmp_path):
    ids = {}
    for curve in ("each", "nested"):
        for eps in ("[0.05, 0.2]", "[0.05, 0.1, 0.2]"):
            text = SMALL.replace("[robustness.training]", f'curve = "{curve}"\n[robustness.training]').replace(
                "[0.05, 0.2]", eps
            )
            ids[curve, eps] = {cell.id for cell in suite_of(tmp_path, text).cells}
    assert ids["each", "[0.05, 0.2]"] < ids["each", "[0.05, 0.1, 0.2]"]
    assert not ids["nested", "[0.05, 0.2]"] & ids["nested", "[0.05, 0.1, 0.2]"]


FEW = 100  # of a million objects that stay loaded, some go when nothing refers to them


def test_memory_is_collected_without_looking_through_what_stays_loaded(tmp_path, monkeypatch):
    """Looking through torch's compiler after each of many small models would take ten times as long as they do."""
    frozen = []
    monkeypatch.setattr(jobs, "release", lambda: frozen.append(gc.get_freeze_count()))
    suite = suite_of(tmp_path, TINY.replace("eps = [0.05, 0.2]", "eps = 0.1\nseed = [0, 1, 2]"))
    before = gc.get_freeze_count()
    assert run(suite, tmp_path / "results")[0] == 0
    assert frozen[0] > before + 10_000
    assert frozen[1] >= frozen[0] - FEW
    assert abs(frozen[2] - frozen[1]) <= FEW, "a model adds nothing to what stays loaded"
    assert gc.get_freeze_count() == before
