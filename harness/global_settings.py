"""The global settings that a user's code may change, of Python, NumPy and torch: how each is read and put back.

Torch and NumPy are imported only when their settings are asked for.
"""

from __future__ import annotations

import gc
import locale
import logging
import os
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple


class Setting(NamedTuple):
    """A global setting: how it is read, and how it is put back to what was read."""

    read: Callable[[], Any]
    put: Callable[[Any], object]


def read(settings: Mapping[str, Setting]) -> dict[str, Any]:
    return {name: setting.read() for name, setting in settings.items()}


def put_back(settings: Mapping[str, Setting], before: Mapping[str, Any]) -> None:
    """Only what has changed is set: some setters are slow, or slow down what follows, even where nothing changes."""
    for name, setting in settings.items():
        if not _equal(setting.read(), before[name]):
            setting.put(before[name])


def _equal(now: Any, before: Any) -> bool:
    """Whether two values that were read are equal. Random states hold tensors and arrays, equal where they agree."""
    if isinstance(before, tuple | list):
        return len(now) == len(before) and all(map(_equal, now, before))
    if hasattr(before, "shape"):
        return now.shape == before.shape and bool((now == before).all())
    return bool(now == before)


def _attribute(holder: Any, name: str) -> Setting:
    """A setting that is an attribute, of a module for example."""
    return Setting(lambda: getattr(holder, name), lambda value: setattr(holder, name, value))


def _contents(holder: Any) -> Setting:
    """A setting that is what a list or a dictionary holds; others may refer to it, so it stays the same object."""

    def put(value: Any) -> None:
        holder.clear()
        holder.extend(value) if isinstance(holder, list) else holder.update(value)

    return Setting(holder.copy, put)


SIGNALS = tuple(signal.valid_signals())


def _handlers() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in SIGNALS}


def _set_handlers(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        # None: not set from Python. Only the main thread may set handlers, and of some signals nobody.
        if handler is not None and signal.getsignal(number) != handler:
            with suppress(ValueError, OSError):
                signal.signal(number, handler)


def _stop_alarm(running: bool) -> None:
    if not running:  # nobody would take the signal of an alarm that a user's code left
        signal.setitimer(signal.ITIMER_REAL, 0)


def _mask() -> int:
    mask = os.umask(0o077)  # reading it needs setting it
    os.umask(mask)
    return mask


def _set_folder(folder: Path | None) -> None:
    if folder is not None:
        with suppress(OSError):  # it was deleted
            os.chdir(folder)


def _folder() -> Path | None:
    try:
        return Path.cwd()
    except OSError:  # it was deleted
        return None


def _set_environment(variables: dict[str, str]) -> None:
    for name in os.environ.keys() - variables.keys():
        del os.environ[name]
    os.environ.update(variables)
    time.tzset()


def _set_filters(filters: list[Any]) -> None:
    # A package that was imported meanwhile has filters for its own kinds of warning. It makes them once.
    of_packages = [each for each in warnings.filters if each not in filters and each[2].__module__ != "builtins"]
    warnings.resetwarnings()  # it also clears what Python has cached of the filters
    warnings.filters.extend([*of_packages, *filters])  # type: ignore[attr-defined]


PYTHON: Mapping[str, Setting] = {
    "random": Setting(random.getstate, random.setstate),
    "folder": Setting(_folder, _set_folder),
    "signals": Setting(_handlers, _set_handlers),
    "alarm": Setting(lambda: signal.getitimer(signal.ITIMER_REAL)[0] > 0, _stop_alarm),
    "stdout": _attribute(sys, "stdout"),
    "stderr": _attribute(sys, "stderr"),
    "stdin": _attribute(sys, "stdin"),
    "excepthook": _attribute(sys, "excepthook"),
    "unraisablehook": _attribute(sys, "unraisablehook"),
    "thread excepthook": _attribute(threading, "excepthook"),
    "gc": Setting(gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
    "gc threshold": Setting(gc.get_threshold, lambda threshold: gc.set_threshold(*threshold)),
    "recursion": Setting(sys.getrecursionlimit, sys.setrecursionlimit),
    "file mode mask": Setting(_mask, os.umask),
    "locale": Setting(lambda: locale.setlocale(locale.LC_ALL), lambda name: locale.setlocale(locale.LC_ALL, name)),
}

SET_UP: Mapping[str, Setting] = {
    "environment": Setting(os.environ.copy, _set_environment),
    "path": _contents(sys.path),
    "warnings": Setting(lambda: list(warnings.filters), _set_filters),
    "showwarning": _attribute(warnings, "showwarning"),
    "log handlers": _contents(logging.root.handlers),
    "log level": Setting(lambda: logging.root.level, logging.root.setLevel),
    "logging disabled": Setting(lambda: logging.root.manager.disable, logging.disable),
    "style": Setting(lambda: _style(), lambda style: _set_style(style)),
}
"""Settings that a module may make when it is imported, for the packages that it uses."""


def _style() -> dict[str, Any] | None:
    """Matplotlib's style; None where it is not loaded."""
    matplotlib = sys.modules.get("matplotlib")
    if matplotlib is None:
        return None
    style = dict(matplotlib.rcParams.copy())
    del style["backend"]  # reading it would choose one
    return style


def _set_style(style: dict[str, Any] | None) -> None:
    matplotlib = sys.modules["matplotlib"]
    dict.update(matplotlib.rcParams, style or {key: matplotlib.rcParamsOrig[key] for key in _style() or ()})


@cache
def of_numpy() -> Mapping[str, Setting]:
    import numpy as np

    return {
        "numpy random": Setting(np.random.get_state, np.random.set_state),
        "numpy errors": Setting(np.geterr, lambda how: np.seterr(**how)),
        "numpy printing": Setting(np.get_printoptions, lambda how: np.set_printoptions(**how)),
    }


@cache
def of_torch() -> Mapping[str, Setting]:
    import torch

    settings = {
        "default dtype": Setting(torch.get_default_dtype, torch.set_default_dtype),
        "default device": Setting(torch.get_default_device, _set_device),
        "inference": Setting(torch.is_inference_mode_enabled, _set_inference),
        "gradients": Setting(torch.is_grad_enabled, torch.set_grad_enabled),
        "anomaly": Setting(
            lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
            lambda how: torch.autograd.set_detect_anomaly(*how),
        ),
        "threads": Setting(torch.get_num_threads, torch.set_num_threads),
        # Setting this imports torch's compiler, which takes a second and 170 MB.
        "deterministic": Setting(
            lambda: (
                torch.are_deterministic_algorithms_enabled(),
                torch.is_deterministic_algorithms_warn_only_enabled(),
            ),
            lambda how: torch.use_deterministic_algorithms(how[0], warn_only=how[1]),
        ),
        "warn always": Setting(torch.is_warn_always_enabled, torch.set_warn_always),
        "denormals": Setting(lambda: sys.float_info.min / 2 == 0, torch.set_flush_denormal),
        "autocast cache": Setting(torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled),
        "torch random": Setting(torch.get_rng_state, torch.set_rng_state),
        "cuda random": Setting(
            lambda: torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [], torch.cuda.set_rng_state_all
        ),
    }
    for kind in ("cpu", "cuda"):
        settings[f"autocast {kind}"] = _autocast(kind)
    # Before the newer switches, because setting these sets them too.
    settings["matmul precision"] = Setting(_unmixed(torch.get_float32_matmul_precision), _set_matmul_precision)
    settings["cudnn tf32"] = Setting(_unmixed(lambda: torch.backends.cudnn.allow_tf32), _set_cudnn_tf32)
    for path in BACKENDS:
        holder: Any = torch.backends
        *parents, name = path.split(".")
        for parent in parents:
            holder = getattr(holder, parent, None)
        if hasattr(holder, name):  # not in every version
            settings[path] = _attribute(holder, name)
    for name, hooks in vars(torch.nn.modules.module).items():  # they would run in every network
        if name.startswith("_global"):
            settings[name] = _contents(hooks) if isinstance(hooks, dict) else _attribute(torch.nn.modules.module, name)
    return settings


BACKENDS = (
    "cudnn.enabled", "cudnn.benchmark", "cudnn.deterministic", "mkldnn.enabled", "mkldnn.deterministic",
    "fp32_precision", "cudnn.fp32_precision", "cudnn.conv.fp32_precision", "cudnn.rnn.fp32_precision",
    "cuda.matmul.fp32_precision", "mkldnn.fp32_precision", "mkldnn.conv.fp32_precision",
    "mkldnn.matmul.fp32_precision", "mkldnn.rnn.fp32_precision",
    "cuda.matmul.allow_fp16_reduced_precision_reduction", "cuda.matmul.allow_bf16_reduced_precision_reduction",
)  # fmt: skip
"""Flags of torch.backends that change which algorithms compute, or how exactly."""

_GUARDS: list[Any] = []
"""Guards that end an inference mode that a user's code left open. Deleting one would open that mode again."""


def _set_device(device: Any) -> None:
    import torch

    # None, where it was the CPU: a default that is set slows down every call.
    torch.set_default_device(None if device == torch.device("cpu") else device)


def _set_inference(mode: bool) -> None:
    import torch

    guard = torch.inference_mode(mode)
    guard.__enter__()
    _GUARDS.append(guard)


def _autocast(kind: str) -> Setting:
    import torch

    def put(how: tuple[bool, Any]) -> None:
        torch.set_autocast_enabled(kind, how[0])
        torch.set_autocast_dtype(kind, how[1])
        torch.clear_autocast_cache()

    return Setting(lambda: (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)), put)


def _unmixed(read: Callable[[], Any]) -> Callable[[], Any]:
    """As ``read``, but None where newer switches say something that this older one cannot."""

    def unmixed() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that a newer switch was set
            try:
                return read()
            except RuntimeError:
                return None

    return unmixed


def _set_matmul_precision(precision: str | None) -> None:
    import torch

    if precision is not None:
        torch.set_float32_matmul_precision(precision)


def _set_cudnn_tf32(allowed: bool | None) -> None:
    import torch

    if allowed is not None:
        torch.backends.cudnn.allow_tf32 = allowed
