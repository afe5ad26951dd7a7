"""The small convolutional network. On MNIST its adversarial training takes minutes on two cores."""

from __future__ import annotations

from torch import Tensor, nn

from epsbench.models.base import DataShape
from epsbench.models.layers import Normalise


class SmallCNNNetwork(nn.Module):
    """Two 4×4 convolutions of stride 2, then two linear layers (Wong & Kolter, 2018, appendix)."""

    def __init__(self, data: DataShape, width: int = 16, hidden: int = 100) -> None:
        super().__init__()
        channels, height, columns = data.shape
        self.normalise = Normalise(data.mean, data.std)
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 4, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(2 * width * (height // 4) * (columns // 4), hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, data.classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Pixels (N, C, H, W) in [0, 1] to logits (N, classes)."""
        return self.layers(self.normalise(x))
