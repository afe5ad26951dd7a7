"""What is exported is read back with the library of each tool, hostile names included."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import struct
import sys
from pathlib import Path

import factory
import numpy as np
import pytest
from hypothesis import given, settings
from texts import HOSTILE, NAMES

from epsbench.harness.errors import InputError
from epsbench.harness.findings import Finding
from epsbench.harness.report.exports.export import export
from epsbench.harness.report.exports.runs import safe_keys
from epsbench.harness.report.results.units import visible

CLEAN = np.arange(200) < 190
NAME = "".join(HOSTILE)


def library(name: str):
    """A tool's library; skips with the reason where it is not installed or cannot be imported."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"needs {name} ({error})")


@pytest.fixture
def records():
    good = factory.robustness(CLEAN, CLEAN & (np.arange(200) < 100), eps="8/255", suite="mine")
    warned = factory.robustness(
        CLEAN, CLEAN, model={"name": NAME, "depth": 3}, eps="0.1",
        findings=(Finding(code="off-grid", severity="warning", message=NAME, evidence={NAME: NAME}),),
    )  # fmt: skip
    return good, warned, factory.failed(NAME, eps="0.2"), factory.void(CLEAN, CLEAN, eps="0.25"), factory.generation()


@pytest.fixture
def results(tmp_path, records):
    return factory.write(tmp_path / "results", *records)


def test_csv_is_read_by_pandas_and_by_the_standard_library(tmp_path, results, records):
    import pandas as pd

    out = tmp_path / "records.csv"
    assert "5 records" in export("csv", [results], out)
    frame = pd.read_csv(out, dtype=str, keep_default_na=False).set_index("id")
    assert float(frame.loc[records[0].id, "robust_accuracy"]) == 0.5
    assert frame.loc[records[1].id, "model"] == NAME
    assert frame.loc[records[1].id, "model.depth"] == "3"
    with out.open(encoding="utf-8", newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == list(frame.index)


@settings(max_examples=25)
@given(NAMES)
def test_a_name_survives_csv_and_sarif(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("named")
    finding = Finding(code="off-grid", severity="warning", message=name)
    record = factory.robustness(CLEAN[:8], CLEAN[:8], model={"name": name}, findings=(finding,))
    results = factory.write(folder / "results", record)
    export("csv", [results], folder / "a.csv")
    with (folder / "a.csv").open(encoding="utf-8", newline="") as file:
        [row] = csv.DictReader(file)
    assert row["model"] == name
    export("sarif", [results], folder / "a.sarif")
    log = json.loads((folder / "a.sarif").read_text(encoding="utf-8"))
    [result] = log["runs"][0]["results"]
    assert result["message"]["text"].endswith(f": {visible(name)}")


def test_sarif_is_read_by_sarif_tools(tmp_path, results, records):
    loader = library("sarif.loader")
    out = tmp_path / "findings.sarif"
    assert "3 findings of 5 cells" in export("sarif", [results], out)
    file = loader.load_sarif_file(str(out))
    counts = file.get_report().get_issue_type_histogram_for_severity
    assert sum(counts("error").values()) == 2
    assert sum(counts("warning").values()) == 1
    [run] = file.runs
    assert run.get_tool_name() == "epsbench"
    by_rule = {result["ruleId"]: result for result in run.get_results()}
    assert set(by_rule) == {"off-grid", "no-op", "cell-failed"}
    assert by_rule["off-grid"]["partialFingerprints"]["cell/v1"] == records[1].id
    assert by_rule["off-grid"]["properties"]["evidence"] == {NAME: NAME}
    [rule] = [rule for rule in run.run_data["tool"]["driver"]["rules"] if rule["id"] == "off-grid"]
    assert rule["shortDescription"]["text"].startswith("Moving pixels by less than one level")


def test_tensorboard_shows_the_cells_under_hparams(tmp_path, results, records):
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups
    from tensorboard.util.tensor_util import make_ndarray

    out = tmp_path / "hparams"
    assert "5 runs" in export("tensorboard", [results], out)
    export("tensorboard", [results], out)  # again: the same runs, not twice as many
    events = plugin_event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(out)).Reload()
    provider = data_provider.MultiplexerDataProvider(events, str(out))
    context = backend_context.Context(TBContext(data_provider=provider))
    asked = RequestContext()
    experiment = context.experiment_from_metadata(
        asked, "", False, context.hparams_metadata(asked, ""), context.hparams_from_data_provider(asked, "", None)
    )
    request = api_pb2.ListSessionGroupsRequest(
        start_index=0, slice_size=100,
        allowed_statuses=[api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_RUNNING],
        col_params=[api_pb2.ColParams(metric=metric.name) for metric in experiment.metric_infos],
    )  # fmt: skip
    listed = list_session_groups.Handler(asked, context, "", request).run()
    sessions = {group.sessions[0].name: group for group in listed.session_groups}
    assert set(sessions) == {record.id for record in records}
    group = sessions[records[0].id]
    values = {value.name.tag: value.value for value in group.metric_values}
    assert values["robust_accuracy"] == pytest.approx(0.5)
    assert group.hparams["eps"].string_value == "8/255"
    assert group.hparams["attack.steps"].number_value == 10
    assert sessions[records[1].id].hparams["model.name"].string_value == NAME
    assert "robust_accuracy" not in {v.name.tag for v in sessions[records[3].id].metric_values}, "a void number"
    curve = events.GetAccumulator(records[0].id).Tensors("validation_accuracy")
    assert [event.step for event in curve] == list(range(1, 11))
    assert [float(make_ndarray(event.tensor_proto)) for event in curve] == pytest.approx(
        records[0].curves["validation_accuracy"]
    )


@pytest.mark.filterwarnings("ignore")  # of MLflow's own, which differ by version
def test_mlflow_reads_its_store(tmp_path, results, records, monkeypatch):
    mlflow = library("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    out = tmp_path / "mlruns"
    assert "5 runs" in export("mlflow", [results], out)
    assert "0 runs in the experiment epsbench, 5 were there" in export("mlflow", [results], out)
    client = mlflow.MlflowClient(tracking_uri=out.resolve().as_uri())
    runs = client.search_runs([client.get_experiment_by_name("epsbench").experiment_id])
    by_id = {run.data.tags["epsbench.id"]: run for run in runs}
    assert set(by_id) == {record.id for record in records}
    first = by_id[records[0].id]
    assert first.data.metrics["robust_accuracy"] == 0.5
    assert first.data.params["eps"] == "8/255"
    assert first.info.status == "FINISHED"
    history = client.get_metric_history(first.info.run_id, "validation_accuracy")
    assert [point.value for point in history] == records[0].curves["validation_accuracy"]
    assert by_id[records[1].id].data.params["model.name"] == NAME
    assert by_id[records[2].id].info.status == "FAILED"
    assert "robust_accuracy" not in by_id[records[3].id].data.metrics


def logged(path: Path) -> list[bytes]:
    """The records of an offline run's file, one after the other: a LevelDB log after a header of seven bytes."""
    content = path.read_bytes()
    assert content[:4] == b":W&B"
    at, block, messages, pieces = 7, 32768, [], []
    while at + 7 <= len(content):
        if block - at % block < 7:
            at += block - at % block
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        pieces.append(content[at + 7 : at + 7 + length])
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            messages.append(b"".join(pieces))
            pieces = []
    return messages


@pytest.mark.filterwarnings("ignore")  # of W&B's own, which differ by version
def test_wandb_writes_runs_that_its_own_messages_read(tmp_path, results, records, monkeypatch):
    library("wandb")
    from wandb.proto import wandb_internal_pb2

    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    assert "2 offline runs" in export("wandb", [factory.write(tmp_path / "two", *records[:2])], tmp_path / "out")
    files = {path.stem.removeprefix("run-"): path for path in (tmp_path / "out").rglob("*.wandb")}
    assert set(files) == {record.id for record in records[:2]}
    config, summary, history = {}, {}, []
    for message in logged(files[records[1].id]):
        record = wandb_internal_pb2.Record.FromString(message)
        if record.HasField("run"):
            assert record.run.run_id == records[1].id
            config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        if record.HasField("summary"):
            summary |= {item.key or item.nested_key[0]: item.value_json for item in record.summary.update}
        if record.HasField("history"):
            history.append({item.key or item.nested_key[0]: item.value_json for item in record.history.item})
    assert config["model.name"] == NAME
    assert config["attack.steps"] == 10
    assert float(summary["robust_accuracy"]) == 0.95
    assert [float(each["validation_accuracy"]) for each in history] == records[1].curves["validation_accuracy"]


def autoattack(**axes: object):
    attack = {"name": "autoattack", "version": "standard"}
    return factory.robustness(CLEAN, CLEAN & (np.arange(200) < 121), attack=attack, eps="8/255", **axes)


def test_robustbench_has_the_fields_of_its_entries(tmp_path):
    pgd = factory.robustness(CLEAN, CLEAN & (np.arange(200) > 79), eps="8/255", data="cifar10")
    named = [autoattack(data="cifar10"), autoattack(data="cifar10", model={"name": NAME}), pgd]
    export("robustbench", [factory.write(tmp_path / "results", *named)], tmp_path / "info")
    entries = [json.loads(path.read_text(encoding="utf-8")) for path in (tmp_path / "info/cifar10/Linf").glob("*.json")]
    by_model = {entry["architecture"]: entry for entry in entries}
    first = by_model["smallcnn"]
    assert set(first) == {
        "link", "name", "authors", "additional_data", "number_forward_passes", "dataset", "venue", "architecture",
        "eps", "clean_acc", "reported", "autoattack_acc", "footnote", "unreliable", "external",
    }  # fmt: skip
    assert (first["clean_acc"], first["autoattack_acc"]) == ("95.00", "60.50")
    assert first["external"] == "20.50", "PGD fools others: 80 to 121 withstand both"
    assert by_model[visible(NAME)]["eps"] == "8/255"


@pytest.mark.skipif("EPSBENCH_FULL" not in os.environ, reason="importing RobustBench takes 10 s: set EPSBENCH_FULL=1")
@pytest.mark.filterwarnings("ignore")  # of the libraries that RobustBench imports
def test_robustbench_reads_its_entries(tmp_path, monkeypatch, capsys):
    # RobustBench imports AutoAttack under the name of its repository, and installs a package of another name.
    for part in ("", ".state") if importlib.util.find_spec("autoattack") is None else ():
        monkeypatch.setitem(sys.modules, f"autoattack{part}", library(f"pyautoattack{part}"))
    utils = library("robustbench.utils")
    entries = factory.write(tmp_path / "results", autoattack(data="cifar10"))
    export("robustbench", [entries], tmp_path / "model_info")
    monkeypatch.chdir(tmp_path)
    _, text = utils.get_leaderboard_bibtex("cifar10", "Linf")
    assert "smallcnn" in text
    path = next((tmp_path / "model_info/cifar10/Linf").glob("*.json"))
    path.rename(path.with_name("Standard.json"))
    utils.list_available_models("cifar10", "Linf")
    assert "95.00%" in (shown := capsys.readouterr().out)
    assert "60.50%" in shown


def test_robustbench_needs_autoattack(tmp_path, results):
    with pytest.raises(InputError, match="no record of the attack autoattack"):
        export("robustbench", [results], tmp_path / "info")


def test_a_package_that_is_missing_names_its_extra(tmp_path, results, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"pip install 'epsbench\[wandb\]'"):
        export("wandb", [results], tmp_path)


def test_a_target_that_cannot_be_written(tmp_path, results):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written .* choose another --to"):
        export("csv", [results], tmp_path / "file" / "records.csv")
    with pytest.raises(InputError, match="did you mean 'mlflow'"):
        export("mlflo", [results], tmp_path)


@given(NAMES, NAMES)
def test_keys_are_safe_and_distinct(one, other):
    keys = safe_keys(dict.fromkeys([one, other]))
    assert len(set(keys.values())) == len(keys)
    assert all(key.isascii() and set(key) <= set("_-.") | {c for c in key if c.isalnum()} for key in keys.values())
