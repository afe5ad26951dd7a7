"""Networks and weights from elsewhere: prepared for the data, and refused when they could do harm or do not fit."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from epsbench.harness.plan.data import DATASETS
from epsbench.models import hub
from epsbench.models.catalogue import FromFile, SmallCNN, Timm, TorchVision
from epsbench.models.hub import HubNetwork, require_trained_head
from epsbench.models.weight_files import load_state

CIFAR, DIGITS, MNIST = DATASETS["cifar10"], DATASETS["digits"], DATASETS["mnist"]


@pytest.mark.parametrize(
    ("model", "data", "size"),
    [
        (Timm("test_resnet"), CIFAR, None),
        (Timm("test_resnet"), MNIST, None),
        (Timm("test_vit"), CIFAR, None),  # built for this image size
        (Timm("test_vit"), MNIST, (160, 160)),  # patches of 16 would cut 28 pixels off
        (TorchVision("squeezenet1_1"), MNIST, None),
        (TorchVision("squeezenet1_1"), DIGITS, (224, 224)),  # its poolings leave nothing of 8 pixels
    ],
    ids=repr,
)
def test_hub_classifiers_fit_the_data(model, data, size):
    network = model.build(data)
    assert network.eval()(torch.rand(2, *data.shape)).shape == (2, data.classes)
    assert network.size == size


def test_each_library_brings_its_own_normalisation():
    timm_mean = Timm("test_vit").build(CIFAR).normalise.mean.flatten().tolist()
    assert timm_mean == pytest.approx([0.5, 0.5, 0.5])
    torchvision_mean = TorchVision("squeezenet1_1").build(CIFAR).normalise.mean.flatten().tolist()
    assert torchvision_mean == pytest.approx(list(hub.IMAGENET_MEAN))
    assert Timm("test_resnet").build(MNIST).normalise.mean.shape == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Timm("test_resnte"), "timm has no model 'test_resnte'; did you mean 'test_resnet'"),
        (TorchVision("resnet81"), "torchvision has no classifier 'resnet81'; did you mean 'resnet18'"),
        (TorchVision("fasterrcnn_resnet50_fpn"), "no classifier"),
    ],
)
def test_unknown_names(model, message):
    with pytest.raises(ValueError, match=message):
        model.build(CIFAR)


@pytest.mark.parametrize(
    "model", [Timm("test_resnet", pretrained=True), TorchVision("resnet18", pretrained=True)], ids=repr
)
def test_pretrained_weights_offline(model, monkeypatch):
    import timm
    import torchvision

    def offline(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr(torchvision.models, "get_model", offline)
    with pytest.raises(ValueError, match=r"pretrained weights of \S+ cannot be had \(no route to host\); go online"):
        model.build(CIFAR)


def test_a_pretrained_head_is_replaced_by_one_for_the_data(monkeypatch):
    import torchvision

    original = torchvision.models.get_model
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, weights: original(name, weights=None))
    for name in ("squeezenet1_1", "mobilenet_v3_small"):
        network = TorchVision(name, pretrained=True).build(CIFAR)
        assert network.eval()(torch.rand(1, 3, 32, 32)).shape == (1, 10)
        with pytest.raises(ValueError, match="are for 1000 classes and the data has 10, so its last layer would be"):
            require_trained_head(network, 10)
        require_trained_head(TorchVision(name, pretrained=True).build(replace(CIFAR, classes=1000)), 1000)


class _Harmful:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize(
    "save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))], ids=["torch", "pickle"]
)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_that_runs_code_is_refused_unrun(tmp_path, save):
    touched, path = tmp_path / "touched", tmp_path / "weights.pt"
    save({"weight": _Harmful(touched)}, path)
    with pytest.raises(ValueError, match=r"weights\.pt: refused: it is no plain state dict"):
        load_state(path)
    assert not touched.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.safetensors", b"not that", "a text file, not weights"),
        ("w.pt", b"", "the file is empty"),
        ("w.pt", b"PK\x03\x04 torn", "damaged: its end is missing"),
    ],
)
def test_damaged_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_state(tmp_path / name)


def test_what_is_no_state_dict(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="not a state dict"):
        load_state(tmp_path / "w.pt")
    with pytest.raises(ValueError, match="cannot be read"):
        load_state(tmp_path / "none.pt")


def test_weights_from_a_file_and_their_wrappings(tmp_path):
    source = SmallCNN().build(DIGITS)
    state = source.state_dict()
    save_file(state, tmp_path / "w.safetensors")
    torch.save(state, tmp_path / "plain.pt")
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "wrapped.pt")
    x = torch.rand(3, 1, 8, 8)
    for name in ("w.safetensors", "plain.pt", "wrapped.pt"):
        model = FromFile(str(tmp_path / name), "smallcnn")
        model.check(DIGITS)
        torch.testing.assert_close(model.build(DIGITS)(x), source(x))
    assert (
        FromFile(str(tmp_path / "plain.pt"), "smallcnn").digest()
        != FromFile(str(tmp_path / "wrapped.pt"), "smallcnn").digest()
    )


def test_weights_of_a_hub_network_load_with_and_without_our_wrapping(tmp_path):
    source = Timm("test_resnet").build(CIFAR)
    torch.save(source.state_dict(), tmp_path / "ours.pt")
    torch.save(source.network.state_dict(), tmp_path / "theirs.pt")
    x = torch.rand(2, 3, 32, 32)
    for name in ("ours.pt", "theirs.pt"):
        network = FromFile(str(tmp_path / name), "timm:test_resnet").build(CIFAR)
        torch.testing.assert_close(network.eval()(x), source.eval()(x))


def test_weights_of_something_else(tmp_path):
    path = tmp_path / "w.pt"
    torch.save(SmallCNN().build(DATASETS["cifar100"]).state_dict(), path)
    with pytest.raises(ValueError, match=r"is \(100.*in the file and \(10.*another number of classes"):
        FromFile(str(path), "smallcnn").build(CIFAR)
    with pytest.raises(ValueError, match=r"missing.*unknown.*name the architecture"):
        FromFile(str(path), "resnet18").build(CIFAR)


def test_hub_network_prepares_its_input():
    from epsbench.models.layers import Normalise

    network = HubNetwork(nn.Identity(), Normalise((0.5, 0.25, 0.0), (1.0, 0.5, 0.25)), (4, 4))
    out = network(torch.full((2, 1, 2, 2), 0.5))
    assert out.shape == (2, 3, 4, 4)
    assert out[0, :, 0, 0].tolist() == [0.0, 0.5, 2.0]
