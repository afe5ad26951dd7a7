"""Networks that flatten with `view` get every fast form, and compute in it what they compute without it."""

from __future__ import annotations

import copy
from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from epsbench.attacks import PGD, Square
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.judge import Judge, frozen_copy
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.speed import accelerate as tuning
from epsbench.harness.run.speed.accelerate import Work, accelerate
from epsbench.harness.run.speed.judging import lay_out
from epsbench.harness.run.speed.prepare import prepare
from epsbench.harness.run.speed.reshaping import reshape_views, restore_views, views_restored
from tests.run.speed.units import BF16

CPU = torch.device("cpu")


class TradesCNN(nn.Module):
    """The MNIST network of TRADES (Zhang et al., 2019), with fewer channels: it views features of 4×4."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.first, self.last = nn.Linear(16 * 16, 20), nn.Linear(20, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.features(x).view(-1, 16 * 16)
        return self.last(F.dropout(self.first(features).relu(), training=self.training))


class Wide(nn.Module):
    """The end of a wide residual network (Zagoruyko and Komodakis, 2016): pooled to one position, then viewed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24)
        self.block = nn.Conv2d(24, 24, 3, padding=1, bias=False)
        self.last = nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        x = x + self.block(self.norm(x).relu())
        return self.last(F.avg_pool2d(x.relu(), 28).view(-1, 24))


class Folded(Wide):
    """A convolution right before its batch norm, and 4×4 features that are viewed."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(24 * 16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(F.avg_pool2d(self.norm(self.first(x)).relu(), 7).view(x.size(0), -1))


def network_of(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    network = kind().eval()
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean.normal_(0, 0.1)
        norm.running_var.uniform_(0.5, 2)
    return network


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(48, 1, 28, 28, generator=torch.Generator().manual_seed(1))


FORMS = [
    (TradesCNN, "channels-last, views copied"),
    (Wide, "folded, channels-last"),
    (Folded, "folded, channels-last, views copied"),
]


@pytest.mark.parametrize(("kind", "form"), FORMS)
@pytest.mark.parametrize("precision", ["float32", BF16])
def test_a_network_with_a_view_gets_every_fast_form_and_keeps_its_verdicts(images, monkeypatch, kind, form, precision):
    monkeypatch.setattr(tuning, "_faster", lambda *args: True)
    model = network_of(kind)
    with torch.no_grad():
        labels = model(images).argmax(1)
    targets = Targets(lambda at: images[at], labels, torch.arange(len(images)))
    victim = prepare(model, CPU, precision, images[:16], labels[:16])
    accelerate(victim, targets, 48, Work(10**9, 10**9), "auto")
    assert not victim.findings
    assert victim.form == f"{form}, program"
    assert victim.program is not None
    assert victim.forward_program is not None
    plain = Victim(frozen_copy(model, CPU), CPU, precision, "plain")
    for attack in (PGD(steps=5), Square(steps=30)):
        eps = [Fraction(1, 100), Fraction(1, 25)]
        fast, slow = (list(Engine(each, Judge(model, CPU), targets, 48).run(attack, eps, seed=0))
                      for each in (victim, plain))  # fmt: skip
        for actual, expected in zip(fast, slow, strict=True):
            differing = int((actual.fooled != expected.fooled).sum())
            assert differing <= (0 if precision == "float32" else 2)


@pytest.mark.parametrize("kind", [TradesCNN, Folded])
def test_the_judge_of_a_network_with_a_view_may_be_channels_last(images, monkeypatch, kind):
    model = network_of(kind)
    judge = Judge(model, CPU)
    expected = judge.logits(images, 48)
    times = iter([1.0, 0.5, 1.0, 2.0])
    monkeypatch.setattr("epsbench.harness.run.speed.judging.seconds", lambda *args: next(times))
    targets = Targets(lambda at: images[at], torch.zeros(48, dtype=torch.int64), torch.arange(48))
    lay_out(judge, targets, 16, 10**6)
    assert judge.layout == torch.channels_last
    torch.testing.assert_close(judge.logits(images, 48), expected)
    assert type(judge.network).__name__ == kind.__name__
    slower = Judge(model, CPU)
    lay_out(slower, targets, 16, 10**6)
    assert (slower.layout, type(slower.network)) == (torch.contiguous_format, kind)
    assert torch.equal(slower.logits(images, 48), expected)


def test_what_is_reshaped_is_itself_again_afterwards(images):
    network = network_of(TradesCNN)
    names, expected = list(network.state_dict()), network(images)
    with views_restored(network):
        assert reshape_views(network.to(memory_format=torch.channels_last))
        assert reshape_views(network)  # a second time changes nothing
        other = copy.deepcopy(network)
        torch.testing.assert_close(network(images), expected)
        torch.testing.assert_close(other(images), expected)
        assert list(network.state_dict()) == names
        assert isinstance(network, TradesCNN)
    assert type(network) is TradesCNN
    assert torch.equal(network(images), expected)
    restore_views(other)
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        other(images)


class Various(nn.Module):
    """Every way to call `view`, of features that lie channels-last."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        n = len(x)
        each = [x.view(n, -1), x.view((n, -1)), x.view(size=(n, -1)), x.view_as(torch.empty(n, x[0].numel()))]
        each.append(x.view(torch.int32).view(torch.float32).view([n, -1]))
        return torch.stack(each)


class Wrong(nn.Module):
    """Asks for a shape that nothing can give it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(7, 11)


def test_every_call_of_view_is_understood_and_a_wrong_shape_still_raises():
    x = torch.rand(3, 2, 4, 4)
    various, wrong = Various(), Wrong()
    reshape_views(various)
    reshape_views(wrong)
    assert all(torch.equal(each, x.flatten(1)) for each in various(x))
    with pytest.raises(RuntimeError, match="shape"):
        wrong(x)


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_script_is_left_as_it_is():
    script = torch.jit.script(nn.Linear(2, 2))
    assert reshape_views(script) is False
