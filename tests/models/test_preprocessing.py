"""What a library does to images before its network: shown, and compared with what the data does."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import timm
import torch
from torch import nn
from torchvision import models

from epsbench.harness.listing import preparation_lines
from epsbench.harness.plan.data import DATASETS
from epsbench.harness.plan.named import Named
from epsbench.harness.plan.plan import plan
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.run.audits.preprocessing import audit_preprocessing
from epsbench.models.catalogue import SmallCNN, Timm, TorchVision
from epsbench.models.hub import normalised, preprocessing_of, published
from epsbench.models.preprocessing import Preprocessing, differences, preprocessing_text

CIFAR = DATASETS["cifar10"]
KNOWN = Preprocessing("timm", (0.5,), (0.25,), 256, 224, "bicubic")


def test_what_timm_says_of_a_network_is_known():
    network = Timm("resnet18").build(CIFAR)
    theirs = timm.data.resolve_model_data_config(timm.create_model("resnet18"))
    mine = preprocessing_of(network)
    assert (mine.mean, mine.std, mine.interpolation) == (theirs["mean"], theirs["std"], theirs["interpolation"])
    assert (mine.crop, mine.resize) == (theirs["input_size"][1], int(theirs["input_size"][1] / theirs["crop_pct"]))
    assert published("timm", "resnet18") == mine


def test_what_torchvision_says_of_a_network_is_known():
    network = TorchVision("resnet18").build(CIFAR)
    theirs = models.ResNet18_Weights.DEFAULT.transforms()
    mine = preprocessing_of(network)
    assert (list(mine.mean), list(mine.std)) == (theirs.mean, theirs.std)
    assert ([mine.resize], [mine.crop], mine.interpolation) == (
        theirs.resize_size, theirs.crop_size, theirs.interpolation.value
    )  # fmt: skip
    assert published("torchvision", "resnet18").crop == 224


def test_a_network_that_takes_one_size_says_that_it_scales():
    mine = preprocessing_of(Timm("vit_tiny_patch16_224").build(replace(CIFAR, shape=(3, 30, 30))))
    assert mine.scaled_to == (224, 224)
    assert "scales images to 224×224 itself" in preprocessing_text(mine.record())


@pytest.mark.parametrize(
    ("data", "size", "expected"),
    [
        ({"resize": 256, "crop": 224, "interpolation": "bicubic"}, (224, 224), []),
        ({"resize": 224, "crop": 224, "interpolation": "bicubic"}, (224, 224), ["resize is 224, not 256"]),
        (
            {"resize": 256, "crop": 224, "interpolation": "bilinear"},
            (224, 224),
            ["interpolation is bilinear, not bicubic"],
        ),
        ({"resize": 0, "crop": 0, "interpolation": "bilinear"}, (224, 224), []),
        ({}, (32, 32), ["images are 32×32, not 224×224"]),
    ],
)  # fmt: skip
def test_differences_from_the_published_preprocessing(data, size, expected):
    assert differences(KNOWN.record(), data, size) == expected
    assert differences(replace(KNOWN, crop=0).record(), data, size) == []


def test_other_preprocessing_is_a_finding_for_published_weights_alone():
    def cell(epochs=0, start=None, **model):
        return SimpleNamespace(
            data=SimpleNamespace(record=lambda: {"resize": 232, "crop": 224, "interpolation": "bicubic"}),
            model=Named("timm:x", tuple(model.items())), training=(("epochs", epochs),), start=start,
        )  # fmt: skip

    shape = replace(CIFAR, shape=(3, 224, 224))
    training = {"preprocessing": KNOWN.record()}
    (remark,) = audit_preprocessing(cell(pretrained=True), training, shape)
    assert remark.code == "other-preprocessing"
    assert "resize is 232, not 256" in remark.message
    assert "published for resize 256 (bicubic) and crop 224" in remark.message
    for other in (cell(pretrained=False), cell(1, pretrained=True), cell(0, object(), pretrained=True), cell()):
        assert not list(audit_preprocessing(other, training, shape))
    assert not list(audit_preprocessing(cell(pretrained=True), {}, shape))


def test_a_plan_says_how_models_of_a_library_prepare_images(tmp_path):
    (tmp_path / "s.toml").write_text(
        '[robustness]\ndata = "cifar10"\ntraining = { epochs = 1 }\n[robustness.matrix]\n'
        'model = ["smallcnn", "timm:resnet18"]\nattack = "fgsm"\neps = 0.1\n',
        encoding="utf-8",
    )
    (line,) = preparation_lines(plan(load_suite(str(tmp_path / "s.toml")), tmp_path / "results"))
    assert line.startswith("timm:resnet18 normalises with mean 0.485, 0.456, 0.406 and std 0.229, 0.224, 0.225 (timm)")


def test_given_numbers_replace_those_of_a_library():
    before = TorchVision("resnet18").build(CIFAR).eval()
    after = normalised(before, (0.4, 0.5, 0.6), (0.1, 0.2, 0.3), CIFAR)
    x = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in ((0.4, 0.5, 0.6), (0.1, 0.2, 0.3)))
    torch.testing.assert_close(after(x), before.network((x - mean) / std))
    assert preprocessing_of(after).record()["source"] == "suite"
    assert preprocessing_of(after).crop == 224
    grey = normalised(TorchVision("resnet18").build(DATASETS["mnist"]), (0.5,), (0.5,), DATASETS["mnist"])
    assert grey.eval()(torch.rand(2, 1, 28, 28)).shape == (2, 10)


def test_a_network_that_normalises_itself_is_not_normalised_twice():
    digits = DATASETS["digits"]
    with pytest.raises(ValueError, match=r"normalised twice: the architecture does it with mean \[0\.3\d+\]"):
        normalised(SmallCNN().build(digits), (0.3,), (0.4,), digits)
    assert normalised(nn.Flatten(), (0.5,), (0.5,), digits)(torch.ones(1, 1, 8, 8)).unique().tolist() == [1.0]
