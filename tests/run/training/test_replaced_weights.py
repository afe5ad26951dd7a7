"""Weights that are replaced under the same name, in a file or in a cache of pretrained ones, are another model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small import run, suite_of

from epsbench.harness.errors import InputError
from epsbench.harness.run.training import trained as module
from epsbench.models.catalogue import SmallCNN

SUITE = """
[robustness]
data = "digits"
limit = 8
[robustness.matrix]
model = {model}
attack = "noise"
eps = 0.1
"""


def in_timm(folder: Path, seed: int) -> str:
    """As the hub of Hugging Face caches a model of timm."""
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    network, settings = timm.create_model("test_resnet"), timm.get_pretrained_cfg("test_resnet.r160_in1k")
    repository = folder / "hf" / "hub" / f"models--{settings.hf_hub_id.replace('/', '--')}"
    commit = "0" * 40
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit).mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), repository / "snapshots" / commit / "model.safetensors")
    return '{ name = "timm:test_resnet.r160_in1k", pretrained = true }'


def in_torchvision(folder: Path, seed: int) -> str:
    """As `torch.hub` keeps what it has downloaded; it does not look at the hash in the name again."""
    from torchvision import models

    torch.manual_seed(seed)
    url = models.get_model_weights("squeezenet1_1").DEFAULT.url
    kept = folder / "torch" / "hub" / "checkpoints"
    kept.mkdir(parents=True, exist_ok=True)
    torch.save(models.squeezenet1_1().state_dict(), kept / url.rpartition("/")[2])
    return '{ name = "torchvision:squeezenet1_1", pretrained = true }'


def in_file(folder: Path, seed: int) -> str:
    torch.manual_seed(seed)
    torch.save(SmallCNN(width=4).build(module.describe("digits")).state_dict(), folder / "net.pt")
    return '{ name = "file:net.pt", architecture = { name = "smallcnn", width = 4 } }'


@pytest.fixture(autouse=True)
def _caches(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("keep", [in_timm, in_torchvision, in_file])
def test_other_weights_under_the_same_name_have_another_id(tmp_path, keep):
    text = SUITE.format(model=keep(tmp_path, 0))
    (first,) = suite_of(tmp_path, text).cells
    (same,) = suite_of(tmp_path, text).cells
    keep(tmp_path, 1)
    (other,) = suite_of(tmp_path, text).cells
    assert first.id == same.id != other.id
    assert dict(first.training)["epochs"] == 0


@pytest.mark.parametrize("keep", [in_timm, in_file])
def test_weights_that_are_replaced_during_a_run_stop_it(tmp_path, monkeypatch, keep):
    # Trained, as the last layer of the pretrained network is a new one.
    suite = suite_of(tmp_path, SUITE.format(model=keep(tmp_path, 0)) + "[robustness.training]\nepochs = 1\n")
    check = module._require_unchanged

    def replaced(*arguments: object) -> None:
        keep(tmp_path, 1)
        check(*arguments)

    monkeypatch.setattr(module, "_require_unchanged", replaced)
    with pytest.raises(InputError, match="its weights were replaced since this run began; run again"):
        run(suite, tmp_path / "out")
    assert not list((tmp_path / "out" / "cells").glob("*"))


def test_weights_that_stay_are_measured(tmp_path):
    code, records = run(suite_of(tmp_path, SUITE.format(model=in_file(tmp_path, 0))), tmp_path / "out")
    assert (code, [record.status for record in records.values()]) == (0, ["ok"])
