"""A user's code runs apart: what it changes globally is put back, what it draws is seeded, what it prints goes aside.

Torch is imported only when one of these is used.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

AFTERWARDS: list[Callable[[], None]] = []
"""Called whenever a user's code has run in one of the contexts here."""


@contextmanager
def global_state_kept() -> Iterator[None]:
    """Put torch's global settings, all global random states and the working folder back as they were on entry.

    Settings: default dtype and device, gradient and anomaly mode, the number of threads, deterministic algorithms.
    """
    before = _state()
    try:
        yield
    finally:
        _restore(before)
        for clean_up in AFTERWARDS:
            clean_up()


@contextmanager
def importing() -> Iterator[None]:
    """For the import of a user's module: prints go to stderr, and what it sets globally is put back.

    Where torch is not loaded yet, it is not loaded for this; what the module makes of it gets torch's own defaults.
    """
    loaded, folder = "torch" in sys.modules, Path.cwd()
    with redirect_stdout(sys.stderr), global_state_kept() if loaded else nullcontext():
        yield
    if not loaded and "torch" in sys.modules:
        import torch

        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)
        if torch.get_default_device() != torch.device("cpu"):
            torch.set_default_device(None)
        os.chdir(folder)


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """`global_state_kept`, with the global generators of torch, NumPy and Python seeded, and prints sent to stderr."""
    import numpy as np
    import torch

    with global_state_kept(), redirect_stdout(sys.stderr):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        yield


def _state() -> dict[str, Any]:
    import numpy as np
    import torch

    return {
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "gradients": torch.is_grad_enabled(),
        "anomaly": (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        "threads": torch.get_num_threads(),
        "deterministic": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else [],
        "numpy": np.random.get_state(),
        "python": random.getstate(),
        "folder": Path.cwd(),
    }


def _restore(state: dict[str, Any]) -> None:
    import numpy as np
    import torch

    torch.set_default_dtype(state["dtype"])
    if torch.get_default_device() != state["device"]:  # setting it, even to what it is, slows every call
        torch.set_default_device(state["device"])
    torch.set_grad_enabled(state["gradients"])
    torch.autograd.set_detect_anomaly(*state["anomaly"])
    if torch.get_num_threads() != state["threads"]:
        torch.set_num_threads(state["threads"])
    enabled, warn_only = state["deterministic"]
    torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])
    os.chdir(state["folder"])
