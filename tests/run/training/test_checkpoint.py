"""A checkpoint comes back as it was saved, or says which file to delete."""

from __future__ import annotations

import hashlib
import io

import pytest
import torch
from torch import nn

from epsbench.harness.errors import InputError
from epsbench.harness.run.training.checkpoint import Checkpoint

STATE = {"weights": torch.arange(6.0).view(2, 3), "epoch": 3, "seconds": 1.5, "curves": {"train_loss": [2.0, 1.0]}}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights" / "abc.checkpoint"


def test_what_was_saved_comes_back(path):
    Checkpoint(path).save(STATE | {"epoch": 1})
    Checkpoint(path).save(STATE)
    restored = Checkpoint(path).restore()
    assert torch.equal(restored.pop("weights"), STATE["weights"])
    assert restored == {key: value for key, value in STATE.items() if key != "weights"}
    assert [file.name for file in path.parent.iterdir()] == ["abc.checkpoint"]


@pytest.mark.parametrize("make", [torch.optim.Adam, lambda weights: torch.optim.SGD(weights, 0.1, 0.9)])
def test_states_of_optimizers_and_generators_come_back(path, make):
    layer = nn.Linear(3, 2)
    optimizer, generator = make(layer.parameters()), torch.Generator().manual_seed(4)
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    Checkpoint(path).save({"optimizer": optimizer.state_dict(), "generator": generator.get_state()})
    expected = torch.rand(3, generator=generator)
    restored = Checkpoint(path).restore()
    other = torch.Generator()
    other.set_state(restored["generator"])
    assert torch.equal(torch.rand(3, generator=other), expected)
    make(layer.parameters()).load_state_dict(restored["optimizer"])


def test_nothing_there_and_nothing_left(path):
    checkpoint = Checkpoint(path)
    assert checkpoint.restore() is None
    checkpoint.remove()
    checkpoint.save(STATE)
    checkpoint.remove()
    assert checkpoint.restore() is None
    assert not path.exists()


def test_without_a_path_nothing_is_kept():
    checkpoint = Checkpoint(None, every=0)
    assert not checkpoint.due()
    checkpoint.save(STATE)
    checkpoint.remove()
    assert checkpoint.restore() is None


def test_due_from_the_start_and_from_the_last_save(path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("epsbench.harness.run.training.checkpoint.time.monotonic", lambda: now[0])
    checkpoint = Checkpoint(path, every=60)
    now[0] += 59
    assert not checkpoint.due()
    now[0] += 1
    assert checkpoint.due()
    checkpoint.save(STATE)
    assert not checkpoint.due()
    now[0] += 60
    assert checkpoint.due()


def torn(content):
    return content[:-10]


def bit_flip(content):
    return content[:-1] + bytes([content[-1] ^ 1])


def empty(content):
    return b""


def somebody_elses_code(content):
    planted = io.BytesIO()
    torch.save(print, planted)
    return hashlib.sha256(planted.getvalue()).digest() + planted.getvalue()


@pytest.mark.parametrize("damage", [torn, bit_flip, empty, somebody_elses_code])
def test_damage_is_named_with_the_remedy(path, damage):
    Checkpoint(path).save(STATE)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r"abc\.checkpoint: not the checkpoint of this training .*; delete the file"):
        Checkpoint(path).restore()


def test_nowhere_to_write(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        Checkpoint(tmp_path / "file" / "abc.checkpoint").save(STATE)
