"""Models that return something else than logits: the message has the two lines that mend it, and they do."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from epsbench.harness.plan.data import DATASETS
from epsbench.models.hub import verified
from epsbench.models.outputs import remedy

DIGITS = DATASETS["digits"]


class Returns(nn.Module):
    def __init__(self, form, classes=10):
        super().__init__()
        self.fc, self.form = nn.Linear(64, classes), form

    def forward(self, x):
        return self.form(self.fc(x.flatten(1)))


FORMS = {
    "tuple": (lambda z: (z, z[:, :3]), 10),
    "the second of a tuple": (lambda z: (z[:, :3], z), 10),
    "dict": (lambda z: {"features": z[:, :2], "logits": z}, 10),
    "an object": (lambda z: SimpleNamespace(logits=z), 10),
    "a map of one pixel": (lambda z: z[:, :, None, None], 10),
    "one logit": (lambda z: z[:, :1], 2),
    "one logit, squeezed": (lambda z: z[:, 0], 2),
    "one logit, with features": (lambda z: (z[:, :1], z.repeat(1, 8)), 2),
    "one logit in a dict": (lambda z: {"features": z.repeat(1, 8), "logit": z[:, 0]}, 2),
    "one logit of an object": (lambda z: SimpleNamespace(logits=z[:, :1]), 2),
    "a map of one pixel in a tuple": (lambda z: (z[:, :, None, None], z), 10),
}


@pytest.mark.parametrize("name", FORMS)
def test_the_two_lines_of_the_message_work(name):
    form, classes = FORMS[name]
    model, x = Returns(form), torch.rand(4, 1, 8, 8)
    text = remedy(model(x), 4, classes)
    first, second = re.findall("`(.*?)`", text)
    scope = {"torch": torch, "model": model}
    exec(first, scope)
    exec(second, scope)
    logits = scope["model"](x)
    assert logits.shape == (4, classes)
    z = model.fc(x.flatten(1))
    expected = torch.cat([torch.zeros(4, 1), z[:, :1]], 1) if classes == 2 else z
    assert torch.equal(logits, expected)


def test_the_check_of_a_model_shows_them():
    with pytest.raises(ValueError, match=r"gives tuple for 2 images of digits; .* mend it in two lines: `class Logits"):
        verified(Returns(lambda z: (z,)), DIGITS, "Net")
    with pytest.raises(ValueError, match=r"where the model knows more, say so .* test\.npz:classes=12, or for a"):
        verified(Returns(lambda z: z, 12), DIGITS, "Net")
    with pytest.raises(ValueError, match="the data has 10 classes, with labels from 0 to 9: correct the labels, or"):
        verified(Returns(lambda z: z, 7), DIGITS, "Net")


@pytest.mark.parametrize("outputs", [None, "text", torch.zeros(3), [torch.zeros(4, 3)], {}])
def test_without_logits_there_is_no_advice(outputs):
    assert remedy(outputs, 4, 10) == ""


@pytest.mark.parametrize("form", [lambda p: p, lambda p: p[:, 0], lambda p: (p, p.repeat(1, 8)), lambda p: {"y": p}])
def test_outputs_of_a_sigmoid_are_to_be_logits_first(form):
    logit = torch.tensor([[-3.0], [0.5], [4.0]])
    advice = "where a sigmoid gives them, return what goes into it"
    assert advice in remedy(form(logit.sigmoid()), 3, 2)
    assert advice not in remedy(form(logit), 3, 2)


def test_classes_are_no_logits():
    text = remedy(torch.tensor([0, 1, 1]), 3, 2)
    assert "argmax: return the logits" in text
    assert "Logits(model)" not in text
