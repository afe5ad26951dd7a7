"""What a run would fail at after training is seen before it, in one message with its remedy."""

from __future__ import annotations

import inspect
import re
import threading
import warnings

import numpy as np
import pytest
import torch
from small import QUIET
from torch import nn

from epsbench.harness.errors import InputError
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.records import read_records
from epsbench.harness.run.audits.alone import audit_alone
from epsbench.harness.run.runner import run_suite
from epsbench.harness.run.training.trial import Use, problem_of
from epsbench.models.hub import verified

LIMIT = 40
SUITE = """
[robustness]
data = "digits"
limit = 40
training = {{ epochs = {epochs}, batch_size = {batch} }}
[robustness.matrix]
model = "{model}"
attack = ["noise", "fgsm"]
eps = 0.1
"""


@pytest.fixture
def problem(data):
    def of(network: nn.Module, epochs: int = 1, batch: int = 20) -> str | None:
        return problem_of(network, data, Use(batch=batch, trains=epochs > 0))

    return of


class Net(nn.Module):
    """Honest, but for what a subclass changes."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        return self.fc(x.flatten(1))


class Squeezing(Net):
    def forward(self, x):
        return super().forward(x).squeeze()


class OwnTrain(Net):
    def train(self, loader, epochs=10):
        for _ in loader:
            pass


class EvalGivesNothing(Net):
    def eval(self):
        super().eval()


class FrozenNorm(Net):
    """A legitimate train(): it extends the one it has."""

    def train(self, mode=True):
        super().train(mode)
        self.fc.eval()
        return self


class Hooked(Net):
    def __init__(self):
        super().__init__()
        seen = self.seen = {}
        self.fc.register_forward_hook(lambda module, inputs, output: seen.__setitem__("features", output))

    def forward(self, x):
        self.fc(x.flatten(1))
        return self.seen["features"]


class HookedToSelf(Net):
    def __init__(self):
        super().__init__()
        self.fc.register_forward_hook(lambda module, inputs, output: setattr(self, "features", output))

    def forward(self, x):
        self.fc(x.flatten(1))
        return self.features


class KeepsFeatures(Net):
    """Its last features stay with it, and with them the graph that computed them."""

    def forward(self, x):
        self.features = super().forward(x)
        return self.features


class HookedToList(Net):
    """A hook that collects features, as feature extractors do."""

    def __init__(self):
        super().__init__()
        self.kept = {"features": []}
        self.fc.register_forward_hook(self.keep)

    def keep(self, module, inputs, output):
        self.kept["features"] = [*self.kept["features"][-1:], output]


class WeightNormed(Net):
    def __init__(self):
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            nn.utils.weight_norm(self.fc)


class LockedInTraining(Net):
    def forward(self, x):
        if self.training:
            self.lock = threading.Lock()
        return super().forward(x)


class Locked(Net):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


class WithoutGradient(Net):
    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)


class Extra(Net):
    def get_extra_state(self):
        return {"calls": 0}

    def set_extra_state(self, state):
        pass


class AsArray(Net):
    def forward(self, x):
        return super().forward(x).detach().numpy()


class AsTuple(Net):
    def forward(self, x):
        return super().forward(x), x


class Classes(Net):
    def forward(self, x):
        return (super().forward(x) * 100).long()


class Half(Net):
    def __init__(self):
        super().__init__()
        self.half()

    def forward(self, x):
        return super().forward(x.half())


class OnlyTrainRaises(Net):
    def forward(self, x):
        if self.training:
            raise RuntimeError("no training here")
        return super().forward(x)


class Noisy(Net):
    """Outputs that differ from pass to pass are an audit's to judge, not a reason to refuse the model here."""

    def forward(self, x):
        return super().forward(x) + torch.randn(len(x), 10)


def frozen() -> nn.Module:
    return Net().requires_grad_(False)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Squeezing, r"for one image it gives outputs of shape \(10,\).*squeeze"),
        (OwnTrain, r"OwnTrain has a train\(\) of its own, which raises TypeError.*such as fit"),
        (EvalGivesNothing, r"EvalGivesNothing has a eval\(\) of its own, which returns nothing"),
        (Hooked, "a copy of it computes something else|a copy of it does not work"),
        (HookedToSelf, "a copy of it"),
        (Locked, r"a copy of it does not work \(TypeError: cannot pickle"),
        (LockedInTraining, r"in train mode, a copy of it cannot be made any more \(TypeError: cannot pickle"),
        (Extra, r"its state dict holds what is no tensor \(_extra_state\)"),
        (WithoutGradient, r"in train mode, its outputs have no gradient: leave out no_grad\(\)"),
        (AsArray, "it gives a ndarray, not a tensor"),
        (Half, r"its float32 copy, which decides every verdict, raises.*\.half\(\)"),
        (AsTuple, "it gives a tuple, not a tensor"),
        (Classes, "torch.int64 outputs"),
        (OnlyTrainRaises, "in train mode it raises for 20 images: RuntimeError: no training here"),
        (frozen, "there is nothing to train.*epochs = 0"),
    ],
)
def test_a_fault_is_named_with_what_to_change(problem, make, message):
    torch.manual_seed(0)
    text = problem(make())
    assert text is not None
    assert re.search(message, text), text


@pytest.mark.parametrize("make", [Net, FrozenNorm, Noisy, KeepsFeatures, HookedToList, WeightNormed])
def test_an_honest_model_is_let_pass(problem, make):
    assert problem(make()) is None


@pytest.mark.parametrize("make", [frozen, Extra, OnlyTrainRaises])
def test_what_only_training_needs_is_not_asked_of_a_model_as_given(problem, make):
    assert problem(make(), epochs=0) is None


def test_batch_norm_on_one_image_is_named(problem):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10))
    assert "raise batch_size" in problem(network, batch=1)
    assert problem(nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10))) is None


def test_the_global_generators_are_left_as_they_were(problem):
    network = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(64, 10))
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    problem(network)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_torchscript_is_refused_with_what_to_give(data):
    for network in (torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(64, 10))),
                    nn.Sequential(torch.jit.script(nn.Flatten()), nn.Linear(64, 10))):  # fmt: skip
        with pytest.raises(ValueError, match=r"is a TorchScript module.*give the Python module"):
            verified(network, data.description, "scripted")


def write(folder, network: type[Net]) -> None:
    """Write a class into the file ``net.py`` under its own name and as ``Model``."""
    source = ["from torch import nn", inspect.getsource(Net), inspect.getsource(network), f"Model = {network.__name__}"]
    (folder / "net.py").write_text("\n".join(source), encoding="utf-8")


def test_a_run_stops_before_training_with_the_message(tmp_path):
    write(tmp_path, Squeezing)
    (tmp_path / "s.toml").write_text(SUITE.format(epochs=1, batch=20, model="net.py:Squeezing"), encoding="utf-8")
    with pytest.raises(InputError, match=r"'net\.py:Squeezing' cannot be used on digits: for one image"):
        run_suite(load_suite(str(tmp_path / "s.toml")), tmp_path / "r", QUIET)
    assert read_records(tmp_path / "r") == []


@pytest.mark.parametrize("network", [Squeezing, OwnTrain, Hooked, AsTuple, Half])
def test_an_audit_refuses_what_a_run_refuses_in_the_same_words(tmp_path, monkeypatch, network):
    write(tmp_path, network)
    (tmp_path / "s.toml").write_text(SUITE.format(epochs=0, batch=128, model="net.py:Model"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    messages = []
    for attempt in (lambda: run_suite(load_suite("s.toml"), tmp_path / "r", QUIET),
                    lambda: audit_alone("net.py:Model", "digits", device="cpu")):  # fmt: skip
        with pytest.raises(InputError) as raised:
            attempt()
        messages.append(raised.value.messages[0].removeprefix(f"{tmp_path}/s.toml: robustness.matrix.model: "))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("network", [KeepsFeatures, HookedToList])
def test_a_model_that_keeps_its_features_is_trained_and_attacked(tmp_path, network):
    write(tmp_path, network)
    text = SUITE.format(epochs=1, batch=20, model="net.py:Model").replace('"noise", ', "")
    (tmp_path / "s.toml").write_text(text, encoding="utf-8")
    assert run_suite(load_suite(str(tmp_path / "s.toml")), tmp_path / "r", QUIET) == 0
    (record,) = read_records(tmp_path / "r")
    assert record.status == "ok"
    assert not {"audit-failed", "not-prepared"} & {finding.code for finding in record.findings}
