"""The norms that bound a perturbation, one a file. A norm starts a row, turns a gradient into a step, and projects.

Tensors are float32 and batched: images (N, C, H, W), ε of shape (N, 1, 1, 1) in pixel units. Only tensor methods are
used, so nothing here imports torch.
"""

from epsbench.attacks.norms.base import Norm, RowNoise
from epsbench.attacks.norms.l0 import L0, L0Pixels
from epsbench.attacks.norms.l1 import L1
from epsbench.attacks.norms.l2 import L2
from epsbench.attacks.norms.linf import LInf

__all__ = ["L0", "L1", "L2", "NORMS", "L0Pixels", "LInf", "Norm", "RowNoise"]

NORMS: dict[str, Norm] = {norm.name: norm for norm in (LInf(), L2(), L1(), L0(), L0Pixels())}
"""The norms that a suite can name."""
