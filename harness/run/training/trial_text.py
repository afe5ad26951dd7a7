"""How the messages of trials name what they saw."""

from __future__ import annotations

from epsbench.harness.errors import summary


def count_of(size: int) -> str:
    """``"one image"`` or ``"2 images"``."""
    return "one image" if size == 1 else f"{size} images"


def short(value: object) -> str:
    """An error in a line; any other value by its type: ``"a dict"``, ``"nothing"`` for None."""
    if isinstance(value, BaseException):
        return summary(value)[:300]
    return "nothing" if value is None else f"a {type(value).__name__}"
