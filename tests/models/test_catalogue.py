"""The named architectures: shapes, refusals, and that naming them costs no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from epsbench.harness.plan.data import DATASETS, DataDescription
from epsbench.models.catalogue import Custom, FromFile, ResNet18, SmallCNN, Timm, architecture
from epsbench.models.generative import VAE

TINY = DataDescription("tiny", (1, 3, 3), 2, (1, 1, 1), False, (0.5,), (0.5,))


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("model", [SmallCNN(), SmallCNN(width=2, hidden=7), ResNet18(width=4)], ids=repr)
def test_classifiers_fit_every_data_set(model, name):
    data = DATASETS[name]
    model.check(data)
    assert model.build(data).eval()(torch.rand(3, *data.shape)).shape == (3, data.classes)


def test_resnet18_is_the_known_network():
    network = ResNet18().build(DATASETS["cifar10"])
    assert sum(p.numel() for p in network.parameters()) == 11_173_962  # the usual CIFAR ResNet-18
    assert sum(isinstance(m, nn.Conv2d) for m in network.modules()) == 20
    assert network.conv1.stride == (1, 1)


@pytest.mark.parametrize("model", [SmallCNN(), ResNet18(width=4)], ids=repr)
def test_normalisation_is_inside(model):
    data = DATASETS["cifar10"]
    network = model.build(data).eval()
    x = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (data.mean, data.std))
    seen = []
    network.normalise.register_forward_hook(lambda module, inputs, output: seen.append(output))
    network(x)
    torch.testing.assert_close(seen[0], (x - mean) / std)
    assert not any("normalise" in name for name in network.state_dict())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SmallCNN(width=0), "width must be at least 1, not 0"),
        (lambda: ResNet18(width=-1), "width must be at least 1"),
        (lambda: SmallCNN().check(TINY), "at least 4×4 pixels; tiny has 3×3"),
        (lambda: VAE().check(TINY), "at least 8×8 pixels"),
        (lambda: VAE().check(DATASETS["mnist"], z_dim=0), "z_dim must be at least 1"),
        (lambda: VAE(levels=1), "levels must lie between 2 and 256"),
        (lambda: VAE(levels=257), "levels must lie between 2 and 256"),
        (lambda: architecture("resnet81"), "did you mean 'resnet18'"),
        (lambda: architecture("caffe:x"), "timm:NAME"),
        (lambda: architecture({"width": 3}), "needs a name"),
        (lambda: architecture({"name": "resnet18", "wide": 3}), "no parameter 'wide'; it takes stem, width"),
        (lambda: FromFile("nowhere.safetensors", "smallcnn").check(DATASETS["mnist"]), "cannot be read"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_architecture_takes_names_and_tables():
    assert architecture("smallcnn") == SmallCNN()
    assert architecture({"name": "resnet18", "width": 8}) == ResNet18(width=8)
    assert architecture("timm:resnet10t") == Timm("resnet10t")


def test_custom_gets_what_it_asks_for():
    asked = {}

    def by_shape(shape, num_classes, depth=1):
        asked.update(shape=shape, num_classes=num_classes, depth=depth)
        return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], num_classes))

    Custom(by_shape, (("depth", 5),)).build(DATASETS["digits"])
    assert asked == {"shape": (1, 8, 8), "num_classes": 10, "depth": 5}


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda classes: nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), r"shape \(2, 3\).*\(2, 10\) are needed"),
        (lambda: nn.Conv2d(3, 4, 3), "does not take the 1×8×8 images of digits"),
        (lambda: 7, "gave int where a torch.nn.Module is needed"),
    ],
)
def test_custom_networks_are_tried_before_they_are_trained(factory, message):
    with pytest.raises(ValueError, match=message):
        Custom(factory).build(DATASETS["digits"])


def test_custom_refuses_unknown_parameters():
    with pytest.raises(ValueError, match="no parameter 'width'"):
        Custom(lambda classes: None, (("width", 3),)).build(DATASETS["digits"])


def test_names_need_no_torch():
    code = "import sys, epsbench.models.catalogue, epsbench.models.defenses; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
