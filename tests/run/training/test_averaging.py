"""The moving average of weights, written out by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from epsbench.harness.run.training.averaging import MovingAverage


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * 36, 4)).train()


def stepped(network):
    """Other weights and other batch statistics."""
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight))
    network(torch.rand(5, 1, 8, 8))


def test_weights_and_statistics_follow_the_recursion_and_counts_are_copied(network):
    average = MovingAverage(network, 0.6)
    expected = {name: value.clone() for name, value in network.state_dict().items()}
    for step in range(1, 12):
        stepped(network)
        average.update(network)
        decay = min(0.6, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value if value.is_floating_point() else value
    assert average.network.state_dict()["1.num_batches_tracked"] == 11
    for name, value in average.network.state_dict().items():
        torch.testing.assert_close(value, expected[name])


def test_tied_weights_are_averaged_once():
    tied = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    tied[1].weight = tied[0].weight
    average = MovingAverage(tied, 0.1)
    before = tied[0].weight.detach().clone()
    with torch.no_grad():
        tied[0].weight.add_(1)
    average.update(tied)
    torch.testing.assert_close(average.network[0].weight, before + 0.9)
    assert average.network[0].weight is average.network[1].weight


def test_it_trains_nothing_and_is_not_trained(network):
    before = copy.deepcopy(network.state_dict())
    average = MovingAverage(network, 0.9)
    average.update(network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training
    assert not average.network.training
    assert not any(weight.requires_grad for weight in average.network.parameters())


def test_it_goes_on_from_its_state(network):
    whole = MovingAverage(network, 0.99)
    stepped(network)
    whole.update(network)
    resumed = MovingAverage(network, 0.99)
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    stepped(network)
    for average in (whole, resumed):
        average.update(network)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name])


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5])
def test_impossible_decays(network, decay):
    with pytest.raises(ValueError, match="decay must lie between 0 and 1"):
        MovingAverage(network, decay)
