"""The weight cache: what was saved comes back, and what was not is refused."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from epsbench.harness.errors import InputError
from epsbench.harness.run.training.weights import load_weights, save_weights, weights_path


def network(width=4):
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width * 36, 10))


def test_weights_and_their_story_come_back(tmp_path):
    source, target = network().to(memory_format=torch.channels_last), network()
    info = {"seconds": 1.5, "curves": {"train_loss": [2.0, 1.0]}}
    saved = save_weights(tmp_path, "abc", source, info)
    assert load_weights(tmp_path, "abc", target) == saved == info | {"weights_sha256": saved["weights_sha256"]}
    for name, value in source.state_dict().items():
        assert torch.equal(value, target.state_dict()[name])


def test_the_digest_is_of_the_tensors_alone(tmp_path):
    first, second = network(), network()
    second.load_state_dict(first.state_dict())
    digests = {save_weights(tmp_path, key, net, {"seconds": n})["weights_sha256"]
               for key, net, n in (("a", first, 1), ("b", second, 2))}  # fmt: skip
    assert len(digests) == 1
    assert save_weights(tmp_path, "c", network(), {})["weights_sha256"] not in digests


def test_nothing_there(tmp_path):
    assert load_weights(tmp_path, "abc", network()) is None


def test_tied_weights(tmp_path):
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    save_weights(tmp_path, "t", tied, {})
    assert load_weights(tmp_path, "t", tied) is not None


def torn(path):
    path.write_bytes(path.read_bytes()[:-100])


def garbage(path):
    path.write_bytes(b"\xff" * 64)


def bit_flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def foreign(path):
    save_file({"weight": torch.zeros(3)}, path)


def empty(path):
    path.write_bytes(b"")


def no_story(path):
    save_file(network().state_dict(), path, metadata={"epsbench": json.dumps([])})


@pytest.mark.parametrize("damage", [torn, garbage, bit_flip, foreign, empty, no_story])
def test_damaged_files_are_named_with_the_remedy(tmp_path, damage):
    save_weights(tmp_path, "abc", network(), {})
    damage(weights_path(tmp_path, "abc"))
    with pytest.raises(InputError, match=r"abc\.safetensors: .*delete the file and the next run trains"):
        load_weights(tmp_path, "abc", network())


def test_weights_of_another_network(tmp_path):
    save_weights(tmp_path, "abc", network(), {})
    with pytest.raises(InputError, match="not the weights of this model"):
        load_weights(tmp_path, "abc", network(width=5))
