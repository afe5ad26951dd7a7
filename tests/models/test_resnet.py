"""ResNet-18 with its two stems."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from epsbench.harness.plan.data import DATASETS
from epsbench.models.catalogue import ResNet18

CIFAR = DATASETS["cifar10"]


def stages(network: nn.Module) -> list[int]:
    """The height of what each of the four stages gives for one image."""
    heights: list[int] = []
    for block in list(network.blocks)[1::2]:
        block.register_forward_hook(lambda module, inputs, output: heights.append(output.shape[2]))
    assert network.eval()(torch.rand(1, 3, 32, 32)).shape == (1, 10)
    return heights


@pytest.mark.parametrize(("stem", "heights"), [("plain", [32, 16, 8, 4]), ("pool", [16, 8, 4, 2])])
def test_the_stem_decides_the_size_of_the_stages(stem, heights):
    assert stages(ResNet18(width=4, stem=stem).build(CIFAR)) == heights


def test_the_network_of_the_assignment_has_the_weights_of_torchvisions_but_for_the_first_layer():
    """torchvision's ResNet-18 with a 3×3 first convolution and ten classes: the same tensors, so the same function."""
    from torchvision.models import resnet18

    other = resnet18(num_classes=10)
    other.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    ours = ResNet18(stem="pool").build(CIFAR)
    mine, theirs = list(ours.parameters()), list(other.parameters())
    assert sum(weight.numel() for weight in mine) == sum(weight.numel() for weight in theirs) == 11_173_962


def test_the_pooled_network_computes_what_torchvisions_computes():
    from torchvision.models import resnet18

    other = resnet18(num_classes=10)
    other.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    ours = ResNet18(stem="pool").build(CIFAR).eval()
    names = {"conv1": ours.conv1, "bn1": ours.bn1, "fc": ours.head}
    for stage in range(4):
        for block in range(2):
            mine = ours.blocks[2 * stage + block]
            prefix = f"layer{stage + 1}.{block}"
            names |= {f"{prefix}.{part}": getattr(mine, part) for part in ("conv1", "bn1", "conv2", "bn2")}
            if isinstance(mine.shortcut, nn.Sequential):
                names |= {f"{prefix}.downsample.{i}": mine.shortcut[i] for i in range(2)}
    state = {f"{name}.{key}": value for name, part in names.items() for key, value in part.state_dict().items()}
    other.load_state_dict(state)
    x = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        expected = other.eval()(ours.normalise(x))
        assert torch.allclose(ours(x), expected, atol=1e-4)


def test_an_unknown_stem_is_refused():
    with pytest.raises(ValueError, match='stem is "plain" or "pool"'):
        ResNet18(stem="imagenet")
