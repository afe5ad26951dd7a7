"""The norms that bound a perturbation, one a file. A norm starts a row, turns a gradient into a step, and projects.

Tensors are float32 and batched: images (N, C, H, W), ε of shape (N, 1, 1, 1) in pixel units. Only tensor methods are
used, so nothing here imports torch.
"""

from epsbench.attacks.norms.base import Norm, RowNoise
from epsbench.attacks.norms.l2 import L2
from epsbench.attacks.norms.linf import LInf

__all__ = ["L2", "NORMS", "LInf", "Norm", "RowNoise"]

NORMS: dict[str, Norm] = {norm.name: norm for norm in (LInf(), L2())}
"""The norms that a suite can name."""
