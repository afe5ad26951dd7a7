"""What numbers depend on besides the suite: machine, versions, flags, and the commit of the source."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from epsbench import __version__
from epsbench.harness.errors import InputError
from epsbench.harness.hardware import cpu_name

# Inside a git hook, these would have git look at the hook's checkout instead of a folder's.
_OF_ANOTHER_CHECKOUT = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_COMMON_DIR",
    "GIT_PREFIX",
)
_PACKAGES = ("torch", "torchvision", "timm", "numpy", "scipy", "safetensors")


def choose_device(wanted: str | None) -> torch.device:
    """The device of this name; by default CUDA where there is one, else the CPU. Raises `InputError` if unusable."""
    name = wanted or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device: {name!r} is no device; give cpu, cuda or cuda:0") from error
    if device.type not in {"cpu", "cuda"}:
        raise InputError(f"device: {name!r} is not supported; give cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("device: torch sees no CUDA device here; check the driver, or give cpu")
    if device.type == "cuda" and (device.index or 0) >= (there := torch.cuda.device_count()):
        raise InputError(f"device: there is no {name}; the last of {there} is cuda:{there - 1}")
    return device


def describe(device: torch.device, *folders: Path) -> dict[str, Any]:
    """The environment as it goes into every record.

    ``folders`` are those of the user's own code, then that of the suite. ``repository`` in the result is the commit of
    the first git checkout that one of them lies in, other than that of epsbench.
    """
    described: dict[str, Any] = {
        "epsbench": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "device": {"type": device.type, "name": _device_name(device)},
        "threads": torch.get_num_threads(),
        "git": dict(_own()[1]),
    } | arithmetic_flags(device)
    if under_test := next(filter(None, map(_under_test, dict.fromkeys(folders))), None):
        described["repository"] = under_test
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        described["device"] |= {
            "memory_bytes": properties.total_memory,
            "capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "driver_and_clocks": _output(
                "nvidia-smi", "--query-gpu=driver_version,clocks.sm,clocks.mem", "--format=csv,noheader"
            ),
        }
    return described


def of_child(threads: int) -> dict[str, str]:
    """The environment variables of a Python process that this one starts: its own, and its search path for modules."""
    path = os.pathsep.join(each or str(Path.cwd()) for each in sys.path)
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}


def describe_helper(device: torch.device, of_run: Mapping[str, Any]) -> dict[str, Any]:
    """The environment of another process or machine of a run: its own, with the repository ``of_run`` describes."""
    repository = {key: value for key, value in of_run.items() if key == "repository"}
    return describe(device) | repository


@contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """Inside, float32 means float32: TF32, cuDNN's default for convolutions, is off.

    At precision "float32" cuDNN also uses deterministic algorithms only. Afterwards the flags are as before.
    """
    with warnings.catch_warnings():
        # Where the newer switches (torch.backends.*.fp32_precision) are set, torch warns about reading these. Setting
        # these sets the newer ones too.
        warnings.simplefilter("ignore", UserWarning)
        before = _flags()
        _set_flags({"matmul_precision": "highest", "cudnn_tf32": False, "cudnn_benchmark": before["cudnn_benchmark"],
                    "cudnn_deterministic": precision == "float32"})  # fmt: skip
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            _set_flags(before)


def arithmetic_flags(device: torch.device) -> dict[str, Any]:
    """``flags``, and under ``not_deterministic`` the reasons why two runs on this machine may differ."""
    flags = _flags() | {"deterministic_algorithms": torch.are_deterministic_algorithms_enabled()}
    reasons: list[str] = []
    if device.type == "cuda":
        if not flags["cudnn_deterministic"]:
            reasons.append("cuDNN may choose other convolution algorithms")
        if flags["cudnn_benchmark"]:
            reasons.append("cuDNN chooses convolution algorithms by timing them")
        if not flags["deterministic_algorithms"]:
            reasons.append("operations that add atomically (some poolings and interpolations) may round differently")
    return {"flags": flags, "not_deterministic": reasons}


def _flags() -> dict[str, Any]:
    cudnn = torch.backends.cudnn
    try:
        tf32 = cudnn.allow_tf32
    except RuntimeError:  # set for convolutions alone, through the newer switches
        tf32 = cudnn.conv.fp32_precision == "tf32"  # type: ignore[attr-defined]
    return {
        "matmul_precision": torch.get_float32_matmul_precision(),
        "cudnn_benchmark": cudnn.benchmark,
        "cudnn_deterministic": cudnn.deterministic,
        "cudnn_tf32": tf32,
    }


def _set_flags(flags: dict[str, Any]) -> None:
    torch.set_float32_matmul_precision(flags["matmul_precision"])
    torch.backends.cudnn.allow_tf32 = flags["cudnn_tf32"]
    torch.backends.cudnn.benchmark = flags["cudnn_benchmark"]
    torch.backends.cudnn.deterministic = flags["cudnn_deterministic"]


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return cpu_name()


def _under_test(base: Path) -> dict[str, Any]:
    """The commit of the checkout that holds a folder of the user's; empty outside one, and inside epsbench's own."""
    top, commit = _top_and_commit(base)
    return _state(base, commit) if top != _own()[0] else {}


@cache
def _own() -> tuple[str, dict[str, Any]]:
    """The folder and the commit of epsbench's own checkout, asked for once: the code runs as it was then."""
    folder = Path(__file__).parent
    top, commit = _top_and_commit(folder)
    return top, _state(folder, commit)


def _top_and_commit(folder: Path) -> tuple[str, str]:
    """The checkout that holds a folder, and its commit; empty texts outside one, and before its first commit."""
    top, _, commit = (_output("git", "-C", str(folder), "rev-parse", "--show-toplevel", "HEAD") or "").rpartition("\n")
    return top, commit


def _state(folder: Path, commit: str) -> dict[str, Any]:
    """The commit of a folder's checkout and whether it has uncommitted changes; empty without a commit."""
    if not commit:
        return {}
    return {"commit": commit, "dirty": bool(_output("git", "-C", str(folder), "status", "--porcelain", "-uno"))}


def _output(*command: str) -> str | None:
    """What a command prints; None if it is not installed or fails."""
    environment = {name: value for name, value in os.environ.items() if name not in _OF_ANOTHER_CHECKOUT}
    # `git status` would write what it learns into the user's index. Killed meanwhile, it leaves a lock there for good.
    environment["GIT_OPTIONAL_LOCKS"] = "0"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True, env=environment)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
