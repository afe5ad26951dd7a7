"""What `epsbench.evaluate` keeps in a results folder, and what reads it: records, report and load_model."""

from __future__ import annotations

import copy
import itertools
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

import epsbench
from epsbench.attacks import PGD
from epsbench.harness.digest import cell_id
from epsbench.harness.errors import InputError
from epsbench.harness.records import write_record

VICTIM = """
import torch
from torch import nn

def load():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""


def test_a_results_folder_is_gone_on_with(network, x, y, tmp_path, monkeypatch):
    first = epsbench.evaluate(network, x, y, attack="fgsm", eps=0.1, out=tmp_path / "out")
    both = epsbench.evaluate(network, x, y, attack="fgsm", eps=[0.1, 0.2], out=tmp_path / "out")
    assert both.records[0].started == first.records[0].started
    assert len(epsbench.records(tmp_path / "out").frame()) == 2
    with torch.no_grad():
        changed = copy.deepcopy(network)
        changed[0].weight.mul_(1.1)
    other = epsbench.evaluate(changed, x, y, attack="fgsm", eps=0.1, out=tmp_path / "out")
    assert other.records[0].id != first.records[0].id
    assert "arrays (" in epsbench.report(tmp_path / "out")
    (tmp_path / "out" / "images" / f"{first.records[0].id}.npz").unlink()
    again = epsbench.evaluate(network, x, y, attack="fgsm", eps=0.1, out=tmp_path / "out")
    assert np.array_equal(again.images, first.images)


@pytest.mark.parametrize("keeps", [True, False])
def test_an_evaluation_that_is_stopped_says_what_is_kept(network, x, y, tmp_path, capsys, monkeypatch, keeps):
    def stop(*_: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(PGD, "step", stop)
    with pytest.raises(KeyboardInterrupt):
        epsbench.evaluate(network, x, y, attack=["fgsm", "pgd"], eps=0.1, out=tmp_path / "out" if keeps else None)
    _, error = capsys.readouterr()
    kept = f" in {tmp_path / 'out'}; the same command" if keeps else ", and nothing is kept; give out= to go on"
    assert f"stopped: 1 of 2 cells are recorded{kept}" in error


def test_models_of_one_class_in_one_folder_have_rows_of_their_own_by_name(network, x, y, tmp_path):
    with torch.no_grad():
        other = copy.deepcopy(network)
        other[0].weight.mul_(1.1)
    models = {"first": network, "second, scaled": other}
    for name, model in models.items():
        result = epsbench.evaluate(model, x, y, attack="fgsm", eps=0.1, out=tmp_path / "named", name=name)
        assert result.records[0].cell["model"]["name"] == name
        assert name in result.to_latex()
        epsbench.evaluate(model, x, y, attack="fgsm", eps=0.1, out=tmp_path / "unnamed")
    text = epsbench.report(tmp_path / "named")
    assert "first" in text
    assert "second, scaled" in text
    assert "left out" not in text
    epsbench.evaluate(other, x, y, attack="fgsm", eps=0.2, out=tmp_path / "unnamed")
    assert "1 record of earlier code or weights left out" in epsbench.report(tmp_path / "unnamed")


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
import torch
import epsbench

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc = torch.nn.Linear(64, 10)
    def forward(self, x):
        if "kill" in sys.argv and any(Path("out/cells").glob("*.json")):
            os.kill(os.getpid(), signal.SIGKILL)
        return self.fc(x.flatten(1))

x, y = np.linspace(0, 1, 40 * 64, dtype="float32").reshape(40, 1, 8, 8), np.arange(40) % 10
epsbench.evaluate(Net(), x, y, attack=["fgsm", "pgd:steps=9"], eps=0.1, out="out")
"""


def test_a_process_that_is_killed_in_the_middle_loses_no_finished_attack(tmp_path):
    """The second attack kills it; the same call then measures what is missing, and nothing else."""
    (tmp_path / "mine.py").write_text(KILLED)

    def call(*arguments: str) -> int:
        command = [sys.executable, "mine.py", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode

    assert call("kill") == -signal.SIGKILL
    (kept,) = epsbench.records(tmp_path / "out")
    assert call() == 0
    first, second = epsbench.records(tmp_path / "out")
    assert (first.id, first.started, second.status) == (kept.id, kept.started, "ok")
    assert (first.cell["attack"]["name"], second.cell["attack"]["name"]) == ("fgsm", "pgd")


def test_what_only_a_program_has_cannot_be_loaded_again(network, x, y, tmp_path):
    epsbench.evaluate(network, x, y, attack="fgsm", eps=0.1, out=tmp_path / "out")
    with pytest.raises(InputError, match="'arrays' was an object of a program") as raised:
        epsbench.load_model(tmp_path / "out")
    assert "paths" not in str(raised.value)


def test_a_model_whose_files_are_elsewhere_is_not_taken_for_an_object(x, y, tmp_path, monkeypatch):
    np.savez(tmp_path / "test.npz", images=x.numpy(), labels=y.numpy())
    (tmp_path / "victim.py").write_text(VICTIM, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    epsbench.evaluate("victim.py:load", "test.npz", attack="fgsm", eps=0.1, out="out")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    with pytest.raises(InputError, match=r"its paths begin at .*other; give base=") as raised:
        epsbench.load_model("../out")
    assert "object of a program" not in str(raised.value)
    assert epsbench.load_model("../out", base="..")(x).shape == (len(x), 10)


def test_the_records_of_several_folders_are_one_set(network, x, y, tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    epsbench.evaluate(network, x, y, attack="fgsm", eps=0.1, out=first)
    epsbench.evaluate(network, x, y, attack="fgsm", eps=[0.1, 0.2], out=second)
    assert [len(epsbench.records(each)) for each in (first, second)] == [1, 2]
    both = epsbench.records(first, second)
    assert sorted(record.cell["eps"] for record in both) == ["0.1", "0.2"]
    assert [record.id for record in both] == [record.id for record in epsbench.records([first, str(second)])]
    assert {record.started for record in both} == {record.started for record in epsbench.records(second)}
    assert epsbench.report([first, second]) == epsbench.report(first, second)


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ((None,), "is None; give the path of a results folder"),
        ((3,), "is 3; give the path of a results folder"),
        ((), "give the results folder of a run, or several"),
        (([],), "give the results folder of a run, or several"),
        ((["a", None],), "is None; give the path of a results folder"),
    ],
)
def test_what_is_no_results_folder_is_refused(results, message):
    for function in (epsbench.records, epsbench.report):
        with pytest.raises(InputError, match=f"^{function.__name__}: {message}"):
            function(*results)
    if len(results) == 1:
        with pytest.raises(InputError, match=r"^load_model: is "):
            epsbench.load_model(*results)


def test_the_frame_of_records_has_every_parameter(network, x, y, tmp_path):
    epsbench.evaluate(network, x, y, attack="pgd:steps=3", eps="4/255", out=tmp_path / "out")
    frame = epsbench.records(tmp_path / "out").frame()
    row = frame.iloc[0]
    assert (row["attack"], row["attack.steps"], row["eps"]) == ("pgd", 3, "4/255")
    assert row["eps_value"] == pytest.approx(4 / 255)


def test_points_and_records_show_themselves_in_lines_that_a_reader_takes_in(network, x, y, tmp_path):
    result = epsbench.evaluate(network, x, y, attack=["fgsm", "pgd:steps=3"], eps=[0.1, 0.2], out=tmp_path / "out")
    assert str(result[0]) == f"robust accuracy {result[0].robust_accuracy} under fgsm linf ε 0.1"
    assert repr(result[0]) == f"<{result[0]}>"
    records = epsbench.records(tmp_path / "out")
    shown = repr(records)
    assert all(record.id in shown for record in records)
    assert {"attack.steps", "robust_accuracy"} <= set(shown.splitlines()[0].split())
    assert "training.epochs" not in shown  # it is the same in all of them
    assert "[4 rows x" in shown
    assert records[0].id in records._repr_html_()
    assert max(map(len, shown.splitlines())) < 200
    assert repr(type(records)([])) == "no records"


def test_models_that_differ_in_a_parameter_are_told_apart(tmp_path):
    path = tmp_path / "two.toml"
    path.write_text(
        '[robustness]\ndata = "digits"\ntraining = { epochs = 1 }\n[robustness.matrix]\nattack = "none"\neps = 0\n'
        'model = ["smallcnn", { name = "smallcnn", width = 8 }]\n',
        encoding="utf-8",
    )
    epsbench.run_suite(epsbench.load_suite(str(path), 60), tmp_path / "out", epsbench.Options(quiet=True, device="cpu"))
    with pytest.raises(InputError, match=r"model=\{'name': 'smallcnn', 'width': 16\}.*'width': 8\}") as raised:
        epsbench.load_model(tmp_path / "out")
    assert "hidden" not in str(raised.value)  # a parameter in which they are alike
    assert epsbench.load_model(tmp_path / "out", model={"name": "smallcnn", "width": 8}).layers[0].out_channels == 8


def test_models_with_other_starts_are_told_apart_and_of_two_versions_the_last_is_loaded(tmp_path):
    path, out = tmp_path / "tuned.toml", tmp_path / "out"
    path.write_text(
        '[robustness]\ndata = "digits"\ntraining = { epochs = 1 }\n[robustness.matrix]\nattack = "none"\neps = 0\n'
        'model = "smallcnn"\nstart = ["scratch", { training = { epochs = 2 } }, { training = { epochs = 3 } }]\n',
        encoding="utf-8",
    )
    epsbench.run_suite(epsbench.load_suite(str(path), 60), out, epsbench.Options(quiet=True, device="cpu"))
    expected = r"start='scratch'; .*start=\{'training': \{'epochs': 2\}\}; .*start=\{'training': \{'epochs': 3\}\}$"
    with pytest.raises(InputError, match=expected):
        epsbench.load_model(out)
    wheres = [{"start": "scratch"}, *({"start": {"training": {"epochs": n}}} for n in (2, 3))]
    weights = [epsbench.load_model(out, **where).layers[0].weight for where in wheres]
    assert not any(a.equal(b) for a, b in itertools.combinations(weights, 2))
    with pytest.raises(InputError, match="no model matches"):
        epsbench.load_model(out, start={"training": {"epochs": 4}})

    (scratch,) = [record for record in epsbench.records(out) if "start" not in record.cell]
    code = scratch.code | {"model": "old"}
    old = {"id": cell_id(scratch.cell, code), "code": code, "finished": "2020-01-01T00:00:00.000+00:00"}
    write_record(out, scratch.model_copy(update=old))
    assert epsbench.load_model(out, start="scratch").layers[0].weight.equal(weights[0])


def test_a_trained_model_is_loaded(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(
        '[robustness]\ndata = "digits"\ntraining = { epochs = 1 }\n[robustness.matrix]\nmodel = "smallcnn"\n'
        'attack = "fgsm"\neps = 0.1\nseed = [0, 1]\n'
        '[generation]\ndata = "digits"\ntraining = { epochs = 1 }\n[generation.evaluation]\nimportance_samples = 0\n'
        "prior_samples = 0\ngenerated = 0\ngradient_samples = 0\n[generation.matrix]\nz_dim = 4\n"
        "training = [{}, { average = 0.5 }]\n",
        encoding="utf-8",
    )
    options = epsbench.Options(quiet=True, device="cpu")
    epsbench.run_suite(epsbench.load_suite(str(path), 60), tmp_path / "out", options)
    with pytest.raises(InputError, match=r"several models match; choose one by its values: .*seed=0.*seed=1"):
        epsbench.load_model(tmp_path / "out", model="smallcnn")
    model = epsbench.load_model(tmp_path / "out", model="smallcnn", seed=1)
    assert not model.training
    result = epsbench.evaluate(model, "digits", attack="fgsm", eps=0.1, limit=60, seed=1)
    (record,) = [r for r in epsbench.records(tmp_path / "out") if r.cell.get("attack") and r.cell["seed"] == 1]
    assert result[0].record.verdicts == record.verdicts
    with pytest.raises(InputError, match=r"several models.*training=\{'average': 0.0\}.*training=\{'average': 0.5\}"):
        epsbench.load_model(tmp_path / "out", z_dim=4)
    vae = epsbench.load_model(tmp_path / "out", z_dim=4, training={"average": 0.0, "encoder_batches": "none"})
    assert vae.sample(torch.randn(3, 4)).shape == (3, 1, 8, 8)
    with pytest.raises(InputError, match="no model matches"):
        epsbench.load_model(tmp_path / "out", z_dim=5)
    with pytest.raises(InputError, match="'zdim' is no key of a cell; did you mean 'z_dim'"):
        epsbench.load_model(tmp_path / "out", zdim=5)


def test_a_report_is_written_where_output_says_and_nowhere_else(network, x, y, tmp_path):
    epsbench.evaluate(network, x, y, attack="fgsm", eps=0.1, out=tmp_path / "out")
    before = sorted((tmp_path / "out").rglob("*"))
    text = epsbench.report(tmp_path / "out", format="csv", output=tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text(encoding="utf-8") == text
    assert "fgsm" in epsbench.report(tmp_path / "out", format="text")
    assert sorted((tmp_path / "out").rglob("*")) == before
