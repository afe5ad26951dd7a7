"""A user's code runs apart: what it changes globally is put back, what it draws is seeded, what it prints goes aside.

Torch is imported only when one of these is used.
"""

from __future__ import annotations

import importlib.machinery
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from types import ModuleType
from typing import Any

from epsbench.harness.global_settings import PYTHON, SET_UP, Setting, of_numpy, of_torch, put_back, read

AFTERWARDS: list[Callable[[], None]] = []
"""Called whenever a user's code has run in one of the contexts here."""


@contextmanager
def global_state_kept() -> Iterator[None]:
    """Put all global settings and random states back as they were on entry.

    Of torch: default dtype and device, gradient, inference and anomaly mode, autocast, threads, deterministic
    algorithms, backend flags, denormal numbers, and the hooks of all modules. Of NumPy: how errors and arrays are
    shown. Of Python: working folder, environment, ``sys.path``, streams, signal handlers and alarms, exception hooks,
    garbage collection, recursion limit, file mode mask, locale, warnings and logging; and Matplotlib's style.
    """
    with _kept({**PYTHON, **of_numpy(), **of_torch(), **SET_UP}):
        yield


@contextmanager
def importing() -> Iterator[None]:
    """For the import of a user's module: prints go to stderr, and what it sets globally is put back.

    The environment, ``sys.path``, warnings, logging and Matplotlib's style stay as the module set them: its packages
    are set up with these. A parser that reads its arguments at import finds none: those of epsbench are not for it.
    Where torch is not loaded yet, it is not loaded for this; if the module loads it, torch is left as it was right
    after that.
    """
    first = _FirstImport()
    settings = {**PYTHON, **of_numpy(), **(of_torch() if "torch" in sys.modules else {})}
    sys.meta_path.insert(0, first)
    arguments, sys.argv = sys.argv, sys.argv[:1]
    try:
        with redirect_stdout(sys.stderr), _kept(settings):
            yield
    finally:
        sys.argv = arguments
        sys.meta_path.remove(first)
        if first.state is not None:
            put_back(of_torch(), first.state)


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """`global_state_kept`, with the global generators of torch, NumPy and Python seeded, and prints sent to stderr."""
    with global_state_kept(), redirect_stdout(sys.stderr):
        seed_global(seed)
        yield


def seed_global(seed: int) -> None:
    """Seed the global generators of torch, NumPy and Python."""
    import numpy as np
    import torch

    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@contextmanager
def _kept(settings: Mapping[str, Setting]) -> Iterator[None]:
    before = read(settings)
    try:
        yield
    finally:
        put_back(settings, before)
        for clean_up in AFTERWARDS:
            clean_up()


class _FirstImport:
    """A finder that keeps torch's settings as they are at the end of its first import."""

    def __init__(self) -> None:
        self.state: dict[str, Any] | None = None

    def find_spec(
        self, name: str, path: Any = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Where torch is, with a loader that reads its settings; None for any other module."""
        spec = importlib.machinery.PathFinder.find_spec(name, path) if name == "torch" else None
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_read(module: ModuleType) -> None:
                load(module)
                self.state = read(of_torch())

            spec.loader.exec_module = load_and_read  # type: ignore[method-assign]
        return spec
