"""ResNet-18 for small images (He et al., 2016), with one of two stems."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from epsbench.models.base import DataShape
from epsbench.models.layers import Normalise


def _convolution(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions around an identity, or around a 1×1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _convolution(inputs, outputs, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = _convolution(outputs, outputs), nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(_convolution(inputs, outputs, stride, kernel=1), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(inner)) + self.shortcut(x))


class ResNet18Network(nn.Module):
    """A 3×3 stem, four stages of two blocks, the mean over positions, and a linear head.

    The stem "plain" is that of the paper's section 4.2. The stem "pool" has a 3×3 max-pooling of stride 2 behind it, as
    the ImageNet network does (table 1): every stage has half the height and width, and costs a quarter.
    """

    def __init__(self, data: DataShape, width: int = 64, stem: str = "plain") -> None:
        super().__init__()
        self.normalise = Normalise(data.mean, data.std)
        self.conv1, self.bn1 = _convolution(data.shape[0], width), nn.BatchNorm2d(width)
        self.pool: nn.Module = nn.MaxPool2d(3, 2, 1) if stem == "pool" else nn.Identity()
        stages: list[nn.Module] = []
        inputs = width
        for stage in range(4):
            outputs = width * 2**stage
            stages.append(BasicBlock(inputs, outputs, stride=1 if stage == 0 else 2))
            stages.append(BasicBlock(outputs, outputs, stride=1))
            inputs = outputs
        self.blocks = nn.Sequential(*stages)
        self.head = nn.Linear(inputs, data.classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Pixels (N, C, H, W) in [0, 1] to logits (N, classes)."""
        features = self.blocks(self.pool(F.relu(self.bn1(self.conv1(self.normalise(x))))))
        return self.head(features.mean((2, 3)))
