"""A training that is stopped and resumed ends with the same weights as one that is not stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from fractions import Fraction

import pytest
import small
import torch
from torch import nn

from epsbench.harness.errors import InputError
from epsbench.harness.options import Options
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.records import read_records
from epsbench.harness.run.context import Context
from epsbench.harness.run.data.load import load_data
from epsbench.harness.run.progress import Silent
from epsbench.harness.run.runner import run_suite
from epsbench.harness.run.training.checkpoint import Checkpoint
from epsbench.harness.run.training.classifier import accuracy, train_classifier
from epsbench.harness.run.training.seeding import seeded
from epsbench.harness.run.training.settings import Hooks, Method, Settings
from epsbench.harness.run.training.trained import trained
from epsbench.harness.run.training.vae import train_vae
from epsbench.models.catalogue import ResNet18, SmallCNN
from epsbench.models.defenses import NoDefense, PGDReplace
from epsbench.models.generative import VAE

LIMIT = 100
RECIPE = small.RECIPE | {"epochs": 4, "batch_size": 32}


class Stopped(Exception):  # noqa: N818 - it is what a kill would do
    pass


class Dropout(nn.Sequential):
    """Draws from the global random state, batch norm from none."""

    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 10))


MODELS = {
    "dropout": Dropout,
    "smallcnn": lambda: SmallCNN(width=4).build(load_data("digits", None, torch.device("cpu"), 1).description),
    "resnet18": lambda: ResNet18(width=2).build(load_data("digits", None, torch.device("cpu"), 1).description),
}


def train(data, model, checkpoint, stop_after=(), defense=PGDReplace(Fraction(1, 10), steps=2), **recipe):  # noqa: B008
    """The weights, the training, and the epochs that were announced; stopped and resumed after each of some epochs."""
    announced, resumed = [], []
    stops = list(stop_after)

    def on_epoch(epoch, values):
        announced.append(epoch)
        if epoch in stops:
            stops.remove(epoch)
            raise Stopped

    while True:
        network = seeded(MODELS[model], 0)
        try:
            training = train_classifier(
                network,
                data,
                Method(defense, "crop-flip", RECIPE | recipe),
                Settings(seed=0, precision="float32", checkpoint=checkpoint),
                Hooks(on_epoch=on_epoch, on_resume=resumed.append),
            )
        except Stopped:
            continue
        return network.state_dict(), training, announced, resumed


@pytest.mark.parametrize(
    ("model", "recipe"),
    [
        ("dropout", {"optimizer": "sgd", "learning_rate": 0.05}),
        ("smallcnn", {"average": 0.9}),
        ("resnet18", {"schedule": "step", "epochs": 3}),
    ],
)
def test_a_training_stopped_twice_gives_the_same_weights_to_the_bit(data, tmp_path, model, recipe):
    whole, expected, _, _ = train(data, model, Checkpoint(None), **recipe)
    path = tmp_path / "abc.checkpoint"
    weights, training, announced, resumed = train(data, model, Checkpoint(path, every=0), (2, 3), **recipe)
    assert all(torch.equal(value, weights[name]) for name, value in whole.items())
    assert training.curves == expected.curves
    assert (training.resumed, expected.resumed) == (2, 0)
    # Stopped before it was kept, an epoch is trained again.
    assert resumed == [1, 2]
    assert announced == [1, 2, 2, 3, 3, *range(4, len(expected.curves["train_loss"]) + 1)]
    assert path.exists()  # whoever keeps the weights removes it


def test_seconds_add_up_over_the_sittings(data, tmp_path, monkeypatch):
    now = [0.0]

    def clock():
        now[0] += 1.0
        return now[0]

    monkeypatch.setattr("epsbench.harness.run.training.loop.time.perf_counter", clock)
    _, whole, _, _ = train(data, "dropout", Checkpoint(None))
    _, stopped, _, _ = train(data, "dropout", Checkpoint(tmp_path / "abc.checkpoint", every=0), (2, 3))
    assert whole.seconds == stopped.seconds == 4
    assert whole.watch_seconds == stopped.watch_seconds == 4


def test_what_is_kept_of_an_averaged_training_is_the_average(data):
    network = seeded(MODELS["smallcnn"], 0)
    training = train_classifier(
        network, data, Method(NoDefense(), "none", RECIPE | {"average": 0.99}), Settings(seed=0, precision="float32")
    )
    plain = seeded(MODELS["smallcnn"], 0)
    train_classifier(plain, data, Method(NoDefense(), "none", RECIPE), Settings(seed=0, precision="float32"))
    assert accuracy(network, data.validation, "float32") == training.curves["validation_accuracy"][-1]
    distance = (network.state_dict()["layers.0.weight"] - plain.state_dict()["layers.0.weight"]).abs().max()
    assert distance > 1e-3
    assert not network.training
    assert all(weight.requires_grad for weight in network.parameters())


def test_a_checkpoint_of_another_network_is_refused(data, tmp_path):
    path = tmp_path / "abc.checkpoint"
    with pytest.raises(Stopped):
        train_classifier(
            seeded(MODELS["dropout"], 0),
            data,
            Method(NoDefense(), "none", RECIPE),
            Settings(seed=0, precision="float32", checkpoint=Checkpoint(path, every=0)),
            Hooks(on_epoch=lambda epoch, values: stop(epoch == 2)),
        )
    with pytest.raises(InputError, match=r"abc\.checkpoint: not the checkpoint of this training .*; delete the file"):
        train(data, "smallcnn", Checkpoint(path))


def stop(now):
    if now:
        raise Stopped


class Watched(Silent):
    """Keeps what the progress line is given, and stops the run at one of its calls."""

    def __init__(self, stop_at=None):
        self.calls, self.stop_at = [], stop_at

    def task(self, description, total, unit=""):
        return self

    def advance(self, n=1, **fields):
        self.calls.append((n, fields.get("resumed_after_epoch")))
        stop(len(self.calls) == self.stop_at)

    def to(self, done):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_the_progress_line_says_that_a_training_goes_on(data, tmp_path, monkeypatch):
    monkeypatch.setattr(Checkpoint, "due", lambda self: True)
    (tmp_path / "shown.toml").write_text(SUITE.replace("epochs = 12", "epochs = 4"), encoding="utf-8")
    (cell,) = load_suite(str(tmp_path / "shown.toml"), limit=100).cells

    def trained_with(progress):
        context = Context(
            results=tmp_path, weights=tmp_path, device=torch.device("cpu"), suite="shown", base=tmp_path, boards=False,
            progress=progress,
        )  # fmt: skip
        return trained(cell, data, context)[1]

    with pytest.raises(Stopped):
        trained_with(Watched(stop_at=3))
    progress = Watched()
    assert trained_with(progress)["resumed"] == 1
    assert progress.calls == [(2, 2), (1, 2), (1, 2)]
    assert trained_with(Watched())["cached"]


SUITE = """
[robustness]
data = "digits"
training = { epochs = 12, average = 0.9 }
[robustness.matrix]
model = { name = "smallcnn", width = 4 }
defense = { name = "n-fgsm", eps = 0.1 }
attack = "fgsm"
eps = 0.1
"""
# Every epoch is kept, and a little time passes after it in which a kill finds the run.
RUN = """
import sys, time
from pathlib import Path
from epsbench.harness.options import Options
from epsbench.harness.run.training.checkpoint import Checkpoint
from epsbench.harness.run.runner import run_suite
from epsbench.harness.plan.suite import load_suite
save = Checkpoint.save
Checkpoint.due = lambda self: True
Checkpoint.save = lambda self, state: (save(self, state), time.sleep(0.2))
run_suite(load_suite(sys.argv[1], limit=100), Path(sys.argv[2]), Options(quiet=True, device="cpu"))
"""


def test_a_run_that_is_killed_while_it_trains_goes_on_from_there(tmp_path):
    (tmp_path / "killed.toml").write_text(SUITE, encoding="utf-8")
    suite, killed, whole = load_suite(str(tmp_path / "killed.toml"), limit=100), tmp_path / "killed", tmp_path / "whole"
    kept = killed / "weights" / f"{suite.cells[0].weights_key}.checkpoint"
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-c", RUN, str(tmp_path / "killed.toml"), str(killed)]
    process = subprocess.Popen(command, env=environment)
    while not kept.exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not read_records(killed)
    for results in (killed, whole):
        assert run_suite(suite, results, Options(quiet=True, device="cpu")) == 0
    resumed, expected = (read_records(results)[0] for results in (killed, whole))
    assert (resumed.training["resumed"], expected.training["resumed"]) == (1, 0)
    assert resumed.training["weights_sha256"] == expected.training["weights_sha256"]
    assert resumed.curves == expected.curves
    assert not kept.exists()


class Traced(Checkpoint):
    """Notes when the training asks whether a checkpoint is due, and when it saves one."""

    def __init__(self, path, events):
        super().__init__(path, every=0)
        self.events = events

    def due(self):
        self.events.append("due")
        return super().due()

    def save(self, state):
        self.events.append("save")
        super().save(state)


def test_a_classifier_reports_an_epoch_and_then_saves_it(data, tmp_path):
    events = []
    settings = Settings(seed=0, precision="float32", checkpoint=Traced(tmp_path / "c", events))
    hooks = Hooks(on_epoch=lambda epoch, values: events.append(epoch))
    network = seeded(MODELS["smallcnn"], 0)
    train_classifier(network, data, Method(NoDefense(), "none", RECIPE | {"epochs": 2}), settings, hooks)
    assert events == [1, "due", "save", 2, "due", "save"]


def test_a_vae_draws_pictures_then_saves_then_reports_an_epoch(data, tmp_path):
    events = []
    settings = Settings(seed=0, precision="float32", checkpoint=Traced(tmp_path / "c", events))
    hooks = Hooks(
        on_epoch=lambda epoch, values: events.append(epoch),
        on_pictures=lambda epoch, network: events.append(f"pictures {epoch}"),
    )
    network = seeded(lambda: VAE(filters=2).build(data.description, 2), 0)
    train_vae(network, data, {"epochs": 2, "batch_size": 64, "learning_rate": 1e-3}, 1.0, settings, hooks)
    assert events == ["pictures 0", "due", "save", 1, "pictures 2", "due", "save", 2]
