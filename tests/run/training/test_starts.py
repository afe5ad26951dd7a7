"""A training that begins with the weights of another one, made first where they are not there yet."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from epsbench.harness.errors import InputError
from epsbench.harness.options import Options
from epsbench.harness.plan.data import DATASETS
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.records import read_records
from epsbench.harness.run.runner import run_suite
from epsbench.harness.run.training.weights import weights_path
from epsbench.models.catalogue import SmallCNN

SUITE = """
description = "What do other weights buy?"
[robustness]
data = "digits"
limit = 60
training = { epochs = EPOCHS, batch_size = 20 }
[robustness.matrix]
model = { name = "smallcnn", width = 2, hidden = 4 }
subset = "second-half"
start = ["scratch", { subset = "first-half" }]
attack = "fgsm"
eps = 0.1
"""


def run(folder, epochs, extra=""):
    path = folder / "s.toml"
    path.write_text(SUITE.replace("EPOCHS", str(epochs)) + extra, encoding="utf-8")
    suite = load_suite(str(path))
    assert run_suite(suite, folder / "results", Options(quiet=True, device="cpu")) == 0
    return suite, {record.id: record for record in read_records(folder / "results")}


def weights(folder, cell):
    return load_file(weights_path(folder / "results" / "weights", cell.weights_key))


def test_training_begins_with_the_starts_trained_weights(tmp_path):
    suite, records = run(tmp_path, 2)
    scratch, started = suite.cells
    record = records[started.id]
    assert record.description == "What do other weights buy?"
    assert "start_weights_sha256" not in records[scratch.id].training
    source, moved, fresh = (weights(tmp_path, cell) for cell in (started.start, started, scratch))
    assert record.training["start_weights_sha256"] != record.training["weights_sha256"]
    for other in (source, fresh):
        assert any(not torch.equal(moved[name], other[name]) for name in moved)


def test_with_nothing_more_to_learn_the_starts_weights_are_kept(tmp_path, monkeypatch):
    from epsbench.harness.run.training import trained as classifiers

    train = classifiers.train_classifier

    def once(network, *args):
        """Training as it is, of the first model alone: what others begin with stays as it is."""
        if trained:
            before = {name: value.clone() for name, value in network.state_dict().items()}
            made = train(network, *args)
            network.load_state_dict(before)
            return made
        trained.append(True)
        return train(network, *args)

    trained: list[bool] = []
    monkeypatch.setattr(classifiers, "train_classifier", once)
    suite, _ = run(tmp_path, 1, '[[robustness.exclude]]\nstart = "scratch"\n')
    (started,) = suite.cells
    source, moved = weights(tmp_path, started.start), weights(tmp_path, started)
    assert all(torch.equal(source[name], moved[name]) for name in source)


def test_a_start_with_a_recipe_of_its_own_is_trained_by_it(tmp_path):
    """Its weights are those of a suite with that recipe, bit for bit."""
    longer = SUITE.replace('["scratch", { subset = "first-half" }]', "{ training = { epochs = 2, batch_size = 10 } }")
    whole = SUITE.replace("batch_size = 20", "batch_size = 10").replace("start = [", "# [")
    suites = {}
    for name, text, epochs in (("tuned", longer, 1), ("alone", whole, 2)):
        path = tmp_path / f"{name}.toml"
        path.write_text(text.replace("EPOCHS", str(epochs)), encoding="utf-8")
        suites[name] = load_suite(str(path))
        assert run_suite(suites[name], tmp_path / name, Options(quiet=True, device="cpu")) == 0
    (tuned,), (alone,) = suites["tuned"].cells, suites["alone"].cells
    assert tuned.start.weights_key == alone.weights_key
    first, again = (load_file(weights_path(tmp_path / name / "weights", alone.weights_key)) for name in suites)
    assert all(torch.equal(first[name], again[name]) for name in again)
    (record,) = read_records(tmp_path / "tuned")
    assert (record.cell["training"]["epochs"], record.cell["start"]["training"]["epochs"]) == (1, 2)


def test_weights_of_a_run_load_as_a_model_from_a_file(tmp_path):
    suite, records = run(tmp_path, 1)
    cell = suite.cells[0]
    (tmp_path / "file.toml").write_text(
        f"""
[robustness]
data = "digits"
limit = 60
training = {{ epochs = 0 }}
[robustness.matrix]
attack = "fgsm"
eps = 0.1
[robustness.matrix.model]
name = "file:results/weights/{cell.weights_key}.safetensors"
architecture = {{ name = "smallcnn", width = 2, hidden = 4 }}
""",
        encoding="utf-8",
    )
    loaded = load_suite(str(tmp_path / "file.toml"))
    assert run_suite(loaded, tmp_path / "other", Options(quiet=True, device="cpu")) == 0
    (record,) = read_records(tmp_path / "other")
    assert record.metrics == records[cell.id].metrics


@pytest.mark.parametrize("stored", [SmallCNN(width=3, hidden=4), SmallCNN(width=2, hidden=4)])
def test_a_checkpoint_of_another_shape_is_refused_before_any_training(tmp_path, stored):
    data = DATASETS["digits" if stored.width == 3 else "mnist"]
    save_file(stored.build(data).state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "s.toml").write_text(
        """
[robustness]
data = "digits"
limit = 60
[robustness.matrix]
model = ["smallcnn", { name = "file:w.safetensors", architecture = { name = "smallcnn", width = 2, hidden = 4 } }]
attack = "fgsm"
eps = 0.1
""",
        encoding="utf-8",
    )
    with pytest.raises(InputError, match="another architecture, another input shape or another number of classes"):
        run_suite(load_suite(str(tmp_path / "s.toml")), tmp_path / "results", Options(quiet=True, device="cpu"))
    assert not list((tmp_path / "results").rglob("*.safetensors"))
