"""What a model brings decides its number, so it decides its id; a random initialisation does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from epsbench.harness.errors import InputError
from epsbench.harness.plan.data import DATASETS
from epsbench.harness.plan.names.content import Content, _state, content_of
from epsbench.harness.plan.names.registry import name_with_parameters
from epsbench.harness.plan.suite import load_suite

DIGITS = DATASETS["digits"]
NETS = """
from pathlib import Path
import random
import numpy as np
import torch
from torch import nn
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(64, 10)
    def forward(self, x):
        return self.fc(x.flatten(1))

def fresh():
    return Net()

def loaded():
    print("loading")
    net = Net()
    net.load_state_dict(torch.load(Path(__file__).with_name("w.pt"), weights_only=True))
    return net

def with_buffer(value=1.0):
    net = Net()
    net.register_buffer("hidden", torch.full((3,), value), persistent=False)
    return net

def with_attribute(value=1.0):
    net = Net()
    net.table = {"scale": [value, np.float32(2)], "array": np.arange(3) * value}
    return net

def with_extra(value=1):
    class Extra(Net):
        def get_extra_state(self):
            return {"value": value}
        def set_extra_state(self, state):
            pass
    return Extra()

def permuted():
    net = Net()
    net.order = np.random.permutation(64)
    net.other = random.random()
    return net

def normed():
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 10))

def odd():
    net = Net()
    net.register_buffer("sparse", torch.eye(3).to_sparse())
    net.register_buffer("low", torch.ones(2, dtype=torch.bfloat16))
    net.register_buffer("empty", torch.zeros(0))
    net.objects = np.array([object()])
    return net

def broken():
    raise SystemExit("no")

from functools import partial

def with_set(value=1):
    net = Net()
    net.kept = {value, 3}
    return net

class Settings:
    def __init__(self, value):
        self.value, self.parent = value, self

def with_object(value=1):
    net = Net()
    net.settings = Settings(Settings(value))
    return net

def with_closure(value=1):
    net = Net()
    net.scale = lambda x: x * value
    return net

def with_default(value=1):
    net = Net()
    net.scale = partial(torch.mul, value)
    return net

def with_class(value=1):
    return nn.Sequential(Net(), nn.ReLU() if value == 1 else nn.GELU())

def with_class_attribute(value=1):
    class Own(Net):
        table = [value]
    return Own()

def with_hidden_module(value=1):
    net = Net()
    hidden = nn.Linear(2, 2, bias=False)
    nn.init.constant_(hidden.weight, value)
    net.hidden = [hidden]
    return net

def with_place():
    net = Net()
    net.place = __file__
    return net

def with_file():
    value = float(Path(__file__).with_name("settings.json").read_text())
    return nn.Sequential(Net(), nn.ReLU() if value > 1 else nn.GELU())
"""


@pytest.fixture
def content(tmp_path):
    (tmp_path / "nets.py").write_text(NETS, encoding="utf-8")

    def of(name: str, **parameters: object) -> Content | None:
        entry = name_with_parameters("model", {"name": f"nets.py:{name}", **parameters}, tmp_path)
        return content_of(entry, tmp_path, DIGITS)

    return of


def save(folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    torch.save(torch.nn.ModuleDict({"fc": torch.nn.Linear(64, 10)}).state_dict(), folder / "w.pt")


def test_other_weights_under_the_same_name_are_another_model(content, tmp_path, capsys):
    save(tmp_path, 0)
    first = content("loaded")
    assert first.brings_weights
    assert content("loaded") == first
    save(tmp_path, 1)
    assert content("loaded").digest != first.digest
    assert capsys.readouterr().out == ""  # standard output is the report's


@pytest.mark.parametrize("name", ["fresh", "permuted", "normed", "odd"])
def test_a_random_initialisation_is_nothing_a_model_brings(content, name):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    first = content(name)
    assert not first.brings_weights
    torch.manual_seed(7)
    np.random.seed(7)
    assert content(name) == first
    torch.set_rng_state(before[0])


@pytest.mark.parametrize("name", [
    "with_buffer", "with_attribute", "with_extra", "with_set", "with_object", "with_closure", "with_default",
    "with_class", "with_class_attribute", "with_hidden_module",
])  # fmt: skip
def test_state_outside_the_weights_counts(content, name):
    assert content(name).digest != content(name, value=2).digest
    assert content(name) == content(name)


def test_the_place_of_a_file_does_not_count(content, tmp_path):
    first = content("with_place")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "nets.py").write_text(NETS, encoding="utf-8")
    named = name_with_parameters("model", "nets.py:with_place", tmp_path / "elsewhere")
    assert content_of(named, tmp_path / "elsewhere", DIGITS) == first


def test_a_file_of_settings_that_a_factory_reads_counts(content, tmp_path):
    settings = tmp_path / "settings.json"
    settings.write_text("1.0", encoding="utf-8")
    first = content("with_file")
    assert content("with_file") == first
    settings.write_text("1.5", encoding="utf-8")
    assert content("with_file").digest != first.digest


def test_building_leaves_the_global_generators_as_they_were(content):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    content("permuted")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


def test_a_model_that_cannot_be_built_is_refused(content):
    with pytest.raises(InputError, match=r"'nets\.py:broken' cannot be built for digits: SystemExit: no \(nets\.py"):
        content("broken")


def test_a_built_in_model_holds_nothing(content):
    named = name_with_parameters("model", "smallcnn", Path())
    assert content_of(named, Path(), DIGITS) is None


def test_a_model_that_refers_to_itself_has_a_digest():
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    network.eval = lambda: network
    network[0].parent = [network]
    network[0].other, network[1].other = [network[1]], [network[0]]
    first = _state(network)
    with torch.no_grad():
        network[1].weight.add_(1)
    second = _state(network)
    assert {name for name in first if first[name] != second[name]} >= {"1.weight"}


UNCLEAR = """
import torch
from torch import nn

class Base(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(classes))
        self.keep(torch.randn(64, classes, generator=torch.Generator().manual_seed(0)))

    def forward(self, x):
        return x.flatten(1) @ self.matrix() + self.bias

class InBuffer(Base):
    def keep(self, weights):
        self.register_buffer("weights", weights)

    def matrix(self):
        return self.weights

class InList(Base):
    def keep(self, weights):
        self.layers = [weights]

    def matrix(self):
        return self.layers[0]

class Zeros(Base):
    def keep(self, weights):
        self.weights = nn.Parameter(0 * weights)

    def matrix(self):
        return self.weights
"""


@pytest.mark.parametrize(("name", "unclear"), [("InBuffer", True), ("InList", True), ("Zeros", False)])
def test_a_model_of_constant_parameters_beside_other_tensors_needs_epochs(tmp_path, name, unclear):
    (tmp_path / "unclear.py").write_text(UNCLEAR, encoding="utf-8")
    path = tmp_path / "suite.toml"
    text = '[robustness]\ndata = "digits"\nmatrix = {{ model = "unclear.py:{}", attack = "noise", eps = 0.1 }}\n{}'
    path.write_text(text.format(name, ""), encoding="utf-8")
    if unclear:
        with pytest.raises(InputError, match=r"training.epochs: unclear.py:\w+ has constant parameters.*epochs = 0"):
            load_suite(str(path))
    for epochs in (0, 3):
        path.write_text(text.format(name, f"training = {{ epochs = {epochs} }}"), encoding="utf-8")
        (cell,) = load_suite(str(path)).cells
        assert dict(cell.training)["epochs"] == epochs
