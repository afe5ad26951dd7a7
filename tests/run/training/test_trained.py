"""Where a cell's weights come from, and that they belong to the model that is measured."""

from __future__ import annotations

import pytest
import torch

from epsbench.harness.errors import InputError
from epsbench.harness.options import Options
from epsbench.harness.plan.plan import plan
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.records import read_records
from epsbench.harness.run.runner import run_suite
from epsbench.harness.run.training.answers import answers_of
from epsbench.harness.run.training.classifier import accuracy
from epsbench.harness.run.training.losses import Losses, TrainingDiverged

NETS = """
from pathlib import Path
import numpy as np
import torch
from torch import nn

class Viewing(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.last = nn.Linear(16 * 64, 10)
    def forward(self, x):
        x = self.second(self.first(x).relu()).relu()
        return self.last(x.view(x.size(0), -1))

class Contiguous(Viewing):
    def forward(self, x):
        x = self.second(self.first(x).relu()).relu()
        if not x.is_contiguous():
            raise RuntimeError("planted: not these strides")
        return self.last(x.view(x.size(0), -1))

class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(64, 10)
    def forward(self, x):
        x.sub_(0.3).div_(0.4)
        return self.fc(x.flatten(1))

class OutOfPlace(InPlace):
    def forward(self, x):
        return self.fc(((x - 0.3) / 0.4).flatten(1))

class Permuted(nn.Module):
    def __init__(self):
        super().__init__()
        self.order = np.random.permutation(64)
        self.fc = nn.Linear(64, 10)
    def forward(self, x):
        return self.fc(x.flatten(1)[:, self.order])

class Unseeded(Permuted):
    def __init__(self):
        super().__init__()
        self.order = np.random.default_rng().permutation(64)

class Running(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean = torch.zeros(64)
        self.fc = nn.Linear(64, 10)
    def forward(self, x):
        x = x.flatten(1) * 10
        if self.training:
            with torch.no_grad():
                self.mean = 0.5 * self.mean + 0.5 * x.mean(0)
        return self.fc(x - self.mean)

class Templates(nn.Module):
    def __init__(self):
        super().__init__()
        from sklearn.datasets import load_digits
        digits = load_digits()
        x, y = torch.tensor(digits.images, dtype=torch.float32).flatten(1) / 16, torch.tensor(digits.target)
        self.register_buffer("means", torch.stack([x[y == k].mean(0) for k in range(10)]))
    def forward(self, x):
        return -torch.cdist(x.flatten(1), self.means).square()

def loaded():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    net.load_state_dict(torch.load(Path(__file__).with_name("w.pt"), weights_only=True))
    return net
"""
SUITE = """
[robustness]
data = "digits"
limit = 100
{training}
[robustness.matrix]
model = "nets.py:{model}"
attack = {attacks}
eps = 0.05
"""
TWO_EPOCHS = "training = { epochs = 2, batch_size = 20 }"


@pytest.fixture
def run(tmp_path):
    (tmp_path / "nets.py").write_text(NETS, encoding="utf-8")

    def of(model: str, training: str = TWO_EPOCHS, attacks: str = '"fgsm"', codes: tuple[int, ...] = (0,)):
        path = tmp_path / "suite.toml"
        path.write_text(SUITE.format(model=model, training=training, attacks=attacks), encoding="utf-8")
        suite = load_suite(str(path))
        code = run_suite(suite, tmp_path / "r", Options(quiet=True, device="cpu"))
        ids = {cell.id for cell in suite.cells}
        records = [record for record in read_records(tmp_path / "r") if record.id in ids]
        assert code in codes, [record.failure for record in records]
        return records

    return of


def save(folder, seed: int) -> None:
    torch.manual_seed(seed)
    torch.save({"1.weight": torch.randn(10, 64), "1.bias": torch.zeros(10)}, folder / "w.pt")


def test_a_model_that_cannot_take_channels_last_weights_trains_with_contiguous_ones(run):
    (record,) = run("Contiguous")
    assert record.training["form"] == "contiguous"
    assert "planted: not these strides" in record.training["refused"][0]
    assert record.curves["train_loss"][-1] < record.curves["train_loss"][0]


def test_a_model_that_flattens_with_view_trains_channels_last_and_is_then_itself_again(run):
    (record,) = run("Viewing")
    assert record.training["form"] == "channels-last, views copied"
    assert "refused" not in record.training
    assert record.cost["form"].startswith("channels-last, views copied")
    assert record.curves["train_loss"][-1] < record.curves["train_loss"][0]
    assert not [each for each in record.findings if each.code == "not-prepared"]


def test_what_a_model_draws_with_numpy_is_drawn_from_the_cells_seed(run):
    (first,) = run("Permuted")
    _, second = sorted(run("Permuted", attacks='["fgsm", "noise"]'), key=lambda record: record.started)
    assert second.training["cached"]
    assert second.metrics["clean_accuracy"] == first.metrics["clean_accuracy"]


@pytest.mark.parametrize("model", ["Unseeded", "Running"])
def test_a_network_that_is_not_the_one_whose_weights_were_kept_stops_the_run(run, model):
    run(model, codes=(0, 1))  # 1: an audit may see it, too, and void the number
    with pytest.raises(InputError, match=r"is not the one whose weights were kept: .*outside its state dict"):
        run(model, attacks='["fgsm", "noise"]')


def test_with_no_epochs_the_network_is_measured_as_it_is_built_and_nothing_is_kept(run, tmp_path):
    (record,) = run("Templates", "training = { epochs = 0 }")
    assert record.metrics["clean_accuracy"].value > 0.8
    assert record.training["seconds"] == 0
    assert not list((tmp_path / "r" / "weights").glob("*.safetensors"))


def test_other_weights_under_the_same_name_are_measured_anew(run, tmp_path):
    save(tmp_path, 0)
    (first,) = run("loaded", "")
    assert first.cell["training"]["epochs"] == 0  # the suite does not say that they are trained
    save(tmp_path, 1)
    suite = load_suite(str(tmp_path / "suite.toml"))
    assert len(plan(suite, tmp_path / "r").pending) == 1
    (second,) = run("loaded", "")
    assert second.id != first.id
    assert second.training["weights_sha256"] != first.training["weights_sha256"]


def test_weights_that_a_model_brings_are_trained_where_the_suite_says_so(run, tmp_path):
    save(tmp_path, 0)
    (record,) = run("loaded")
    assert record.training["epochs"] == 2
    assert len(record.curves["train_loss"]) == 2


def test_divergence_in_fp16_names_another_remedy_than_in_float32():
    for precision, remedy in (("fp16", "precision = float32 or bf16"), ("float32", "; lower learning_rate")):
        losses = Losses(3, torch.device("cpu"), 7, precision)
        losses.keep(torch.tensor(float("nan")))
        with pytest.raises(TrainingDiverged, match=remedy):
            losses.mean()


def test_a_model_that_writes_into_its_images_is_measured_as_one_that_does_not(run):
    attacks = '["noise", "fgsm", { name = "pgd", steps = 5 }]'
    numbers = [
        {
            record.cell["attack"]["name"]: (record.verdicts, record.curves["train_loss"])
            for record in run(model, attacks=attacks)
        }
        for model in ("InPlace", "OutOfPlace")
    ]
    assert numbers[0] == numbers[1]
    assert all("writes-input" in {each.code for each in record.findings} for record in run("InPlace", attacks=attacks))


CACHING = """
import torch
from torch import nn

class Caching(nn.Module):
    # It makes its mask at the first image, in whatever mode that comes.
    def __init__(self):
        super().__init__()
        self.fc, self.mask = nn.Linear(64, 10), None
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(10))
    def forward(self, x):
        x = x.flatten(1)
        if self.mask is None:
            self.mask = torch.linspace(0.5, 1, 64) + 0 * x[0].detach()
        self.calls = self.calls + 1
        z = self.fc(x * self.mask)
        self.last = z.mean(0)
        return z
"""


def test_what_a_model_makes_while_it_is_validated_can_be_trained_with(data):
    space: dict[str, type[torch.nn.Module]] = {}
    exec(CACHING, space)
    for look in (lambda net: accuracy(net, data.test, "float32"), lambda net: answers_of(net, data.description.shape)):
        network = space["Caching"]()
        look(network)
        network.train()(data.test.pixels(slice(0, 8))).sum().backward()
        assert network.fc.weight.grad is not None


@pytest.mark.parametrize("training", [TWO_EPOCHS, "training = { epochs = 0 }"])
def test_a_model_that_assigns_its_buffers_is_trained_and_measured(run, tmp_path, training):
    (tmp_path / "nets.py").write_text(NETS + CACHING, encoding="utf-8")
    (record,) = run("Caching", training)
    assert record.status == "ok"
