"""The fastest forms of a model are remembered in a process, and given up where they compute something else by now."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from epsbench.harness.api import evaluate
from epsbench.harness.run.robustness import attacker
from epsbench.harness.run.speed import remembered


class Small(nn.Module):
    """A convolution and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@pytest.fixture(autouse=True)
def forgotten():
    remembered._CHOICES.clear()


@pytest.fixture
def tuned(monkeypatch) -> list[str]:
    """An entry for each time that forms are timed."""
    calls, tune = [], attacker._tuned

    def count(victim, *rest):
        choices = tune(victim, *rest)
        calls.append(victim.form)
        return choices

    monkeypatch.setattr(attacker, "_tuned", count)
    return calls


def measured(model: nn.Module):
    x = torch.rand(96, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = model.eval()(x).argmax(1)
    return evaluate(model, x, y, attack="pgd:steps=8", eps=0.02, compile="on", batch_size=32)[0]


def test_a_second_call_times_nothing_and_attacks_the_same_form(tuned):
    model = Small()
    first, second = measured(model), measured(model)
    assert len(tuned) == 1
    assert second.record.cost["form"] == first.record.cost["form"] == tuned[0]
    assert (second.robust == first.robust).all()
    assert (second.per_image["images"] == first.per_image["images"]).all()
    measured(Small().requires_grad_(False))  # the same weights
    with torch.no_grad():
        model.layers[0].weight += 0.01
    measured(model)
    assert len(tuned) == 2


def test_a_form_that_computes_something_else_by_now_is_not_used(tuned, monkeypatch):
    model = Small()
    measured(model)
    monkeypatch.setattr(remembered.Tuned, "_same", staticmethod(lambda victim, targets: False))
    again = measured(model)
    assert len(tuned) == 2
    assert again.record.cost["form"] == tuned[1]


def test_programs_are_compared_with_the_network(tuned):
    model = Small()
    measured(model)
    (known,) = remembered._CHOICES.values()
    assert known.chosen.losses  # a program was made
    victim, targets = _victim(model)
    (loss,) = known.chosen.losses
    victim.programs[loss] = lambda x, *inputs: (torch.zeros_like(x), torch.zeros(len(x), 4))
    assert not remembered.Tuned._same(victim, targets)


@pytest.mark.parametrize("name", ["forward_program", "look_program"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_programs_of_logits_alone_are_compared_too(name, precision):
    model = Small().eval()
    victim, targets = _victim(model)
    victim.precision = precision
    setattr(victim, name, victim.exact_logits if name == "forward_program" else victim.bare_logits)
    assert remembered.Tuned._same(victim, targets)
    setattr(victim, name, lambda x: torch.zeros(len(x), 4))
    assert not remembered.Tuned._same(victim, targets)


def _victim(model: nn.Module):
    from epsbench.harness.run.attack.targets import Targets
    from epsbench.harness.run.speed.prepare import prepare

    x = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    y = model(x).argmax(1)
    victim = prepare(model, torch.device("cpu"), "float32", x, y)
    return victim, Targets.of(x, y)


def test_the_oldest_choices_are_forgotten(tuned):
    model = Small()
    measured(model)
    ((key, what),) = remembered._CHOICES.items()
    for number in range(remembered.CHOICES):
        remembered.remember(str(number), what)
    assert key not in remembered._CHOICES
    assert len(remembered._CHOICES) == remembered.CHOICES


def test_a_second_call_on_a_model_that_is_wrong_on_every_image_gives_the_same():
    model, x = Small().eval(), torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    wrong = (model(x).argmax(1) + 1) % 4
    for _ in range(2):
        result = evaluate(model, x, wrong, attack=["pgd:steps=2", "fgsm"], eps=0.02)
        assert result.clean_accuracy == result.robust_accuracy == 0
