"""A model that does not fit its data, or cannot be built, is refused with file, key and remedy."""

from __future__ import annotations

import re

import pytest

GENERATION = '[generation]\ndata = "digits"\n'


def test_a_model_that_does_not_fit_the_data_is_refused(load, refused, tmp_path, small):
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from epsbench.models.base import Architecture\n"
        "@dataclass(frozen=True)\n"
        "class Grey(Architecture):\n"
        "    def check(self, data):\n"
        "        if data.shape[0] != 1:\n"
        "            raise ValueError('needs grey images')\n"
        "    def build(self, data):\n"
        "        from torch import nn\n"
        "        return nn.Sequential(nn.Flatten(), nn.Linear(64, data.classes))\n"
    )
    mine = small.replace('"smallcnn"', '"mine.py:Grey"')
    assert len(load(mine).cells) == 12
    assert "'mine.py:Grey' does not fit 'cifar10': needs grey images" in refused(mine.replace("digits", "cifar10"))


UNBUILT = """
from torch import nn
import torch
from epsbench.models.base import Architecture
from epsbench.models.generative import VAE

def reads(name="best.pt"):
    return torch.load(name)

def raises(width: int = 3):
    raise KeyError(width)

def exits():
    raise SystemExit(0)

def number():
    return 3

def wide(classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(100, classes))

def half(classes):
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, classes)).half()

class Mine(Architecture):
    def build(self, data):
        return self.nothing

class Generative(VAE):
    def build(self, data, z_dim):
        return self.nothing
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("reads", r"FileNotFoundError: .*\(nets\.py, line 8\); .*Path\(__file__\)\.parent / 'best\.pt'"),
        ("raises", r"KeyError: 3 \(nets\.py, line 11\); correct the code, or the parameters that the suite gives it"),
        ("exits", r"SystemExit: 0 \(nets\.py, line 14\)"),
        ("number", "gave int where a torch.nn.Module is needed"),
        ("wide", "does not take the 1×8×8 images of digits.*where its signature names them"),
        ("half", "should be the same.*let forward\\(\\) convert the images"),
        ("Mine", "AttributeError: 'Mine' object has no attribute 'nothing'"),
    ],
)
def test_a_model_of_the_users_that_cannot_be_built_is_refused(refused, tmp_path, small, name, message):
    (tmp_path / "nets.py").write_text(UNBUILT, encoding="utf-8")
    text = refused(small.replace('"smallcnn"', f'["smallcnn", "nets.py:{name}"]'))
    assert re.search(
        rf"robustness\.matrix\.model: model 'nets\.py:{name}' cannot be (built for|used on) digits: .*{message}", text
    )
    assert len(text.splitlines()) == 1


def test_a_generative_model_of_the_users_that_cannot_be_built_is_refused(refused, tmp_path):
    (tmp_path / "nets.py").write_text(UNBUILT, encoding="utf-8")
    text = refused(GENERATION + '[generation.matrix]\nmodel = "nets.py:Generative"\n')
    assert "generation.matrix.model: model 'nets.py:Generative' cannot be built for digits: AttributeError" in text


def test_weights_that_are_not_there_are_refused(refused, small):
    model = '{ name = "file:gone.safetensors", architecture = "smallcnn" }'
    assert "gone.safetensors" in refused(small.replace('"smallcnn"', model))
