"""What a model returns where logits (N, classes) are needed, and the two lines that mend it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

# On one line each, because a message is one line.
_WRAPPER = "class Logits(torch.nn.Sequential): forward = lambda self, x: {}"
_INSIDE = "super(Logits, self).forward(x)"


def remedy(outputs: Any, n: int, classes: int) -> str:
    """What to do where the outputs of ``n`` images hold the logits somewhere; empty where no wrapper is known."""
    if type(outputs).__module__ == "numpy":
        return "; compute the logits with torch: an array has no gradient, and torch.from_numpy(logits) gives none back"
    expression = _expression(outputs, n, classes)
    if not expression:
        return ""
    return f"; mend it in two lines: `{_WRAPPER.format(expression)}` and `model = Logits(model)`"


def _expression(outputs: Any, n: int, classes: int) -> str:
    """Python that makes the logits of what the model returns."""
    if isinstance(outputs, Tensor):
        shape = tuple(outputs.shape)
        if len(shape) > 2 and shape[:2] == (n, classes) and outputs.numel() == n * classes:
            return f"{_INSIDE}.flatten(1)"
        if classes == 2 and outputs.numel() == n and shape[0] == n:
            return f"torch.nn.functional.pad({_INSIDE}.reshape(-1, 1), (1, 0))"
        return ""
    if isinstance(outputs, Mapping):
        named = ((key, value) for key, value in outputs.items() if isinstance(key, str))
        return next((f"{_INSIDE}[{key!r}]" for key, value in named if _are_logits(value, n, classes)), "")
    if isinstance(outputs, tuple | list):
        parts = enumerate(outputs)
        return next((f"{_INSIDE}[{place}]" for place, value in parts if _are_logits(value, n, classes)), "")
    value = getattr(outputs, "logits", None)
    return f"{_INSIDE}.logits" if _are_logits(value, n, classes) else ""


def _are_logits(value: Any, n: int, classes: int) -> bool:
    return isinstance(value, Tensor) and tuple(value.shape) == (n, classes)
