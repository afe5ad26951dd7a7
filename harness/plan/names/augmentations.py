"""Augmentations by name: the built-in ones, and functions of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from epsbench.harness.errors import InputError
from epsbench.harness.plan.names.loading import load_object
from epsbench.harness.plan.names.places import file_of, known_or_own
from epsbench.harness.plan.names.versions import code_version

AUGMENTATIONS: Mapping[str, str] = {
    "none": "The images as they are.",
    "crop-flip": "A random horizontal flip, and a random crop of the image padded by 4 pixels.",
    "reflect-flip": "A random horizontal flip, and a random crop of the image with 2 pixels of its border mirrored.",
    "shift": "A random shift by up to 2 pixels each way, the rest filled with 0.",
}
"""The built-in ones, with what they do."""


def read_augmentation(name: Any, base: Path) -> str:
    """The name of an augmentation, its file's path relative to ``base``.

    A name is that of a built-in, ``path/to/file.py:function`` or ``module:function``. Raises `InputError` for any
    other, and for what is no function.
    """
    spelled = known_or_own(name, base, "augmentation", AUGMENTATIONS, "path/to/file.py:function")
    if spelled not in AUGMENTATIONS:
        own_augmentation(spelled, base)
    return spelled


def own_augmentation(name: str, base: Path) -> Callable[..., Any]:
    """The user's function of images (N, C, H, W) in [0, 1] and a generator. Raises `InputError` if it is none."""
    function = load_object(name, base)
    if not callable(function):
        raise InputError(f"{name!r} is no augmentation: it is {type(function).__name__} and cannot be called")
    if isinstance(function, type):
        raise InputError(
            f"{name!r} is a class; name a function of images (N, C, H, W) and a generator, or an object that is called "
            "like one"
        )
    return function


def augmentation_versions(name: str, base: Path) -> dict[str, str]:
    """The version of a user's own augmentation; empty for a built-in one."""
    if name in AUGMENTATIONS:
        return {}
    function, file = own_augmentation(name, base), file_of(name, base)
    code = function if hasattr(function, "__code__") else type(function)
    return {"augmentation": code_version(code, *([file] if file else []))}
