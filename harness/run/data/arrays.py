"""Arrays as tensors."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor


def shared(array: np.ndarray) -> Tensor:
    """A tensor on the memory of an array, which may be read-only: only read what it holds.

    torch warns of read-only memory, such as that of a file which `numpy.load` mapped.
    """
    if array.flags.writeable:
        return torch.from_numpy(array)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(array)
