"""What a model returns where logits (N, classes) are needed, and the two lines that mend it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

# On one line each, because a message is one line.
_WRAPPER = "class Logits(torch.nn.Sequential): forward = lambda self, x: {}"
_INSIDE = "super(Logits, self).forward(x)"


def remedy(outputs: Any, n: int, classes: int, function: bool = False) -> str:
    """What to do where the outputs of ``n`` images hold the logits somewhere; empty where no wrapper is known.

    ``function``: the model is a plain function, which no module can hold.
    """
    if type(outputs).__module__ == "numpy":
        return "; compute the logits with torch: an array has no gradient, and torch.from_numpy(logits) gives none back"
    for form in (_logits, _one_logit):
        for place, value in _held(outputs):
            if not isinstance(value, Tensor) or not (expression := form(value, f"{_INSIDE}{place}", n, classes)):
                continue
            if not value.is_floating_point():
                return f"; its outputs are {value.dtype}, as those of argmax: return the logits that it is taken of"
            between = form is _one_logit and bool(((value >= 0) & (value <= 1)).all())
            first = "its outputs lie between 0 and 1: where a sigmoid gives them, return what goes into it, and then "
            lines = f"two lines: `{_WRAPPER.format(expression)}` and `model = Logits(model)`"
            if function:
                lines = f"a line: `model = lambda x, model=model: {expression.replace(_INSIDE, 'model(x)')}`"
            return f"; {first if between else ''}mend it in {lines}"
    return ""


def _held(outputs: Any) -> Iterator[tuple[str, Any]]:
    """Where in the outputs logits may be: the Python that goes there, and what is there."""
    if isinstance(outputs, Mapping):
        yield from ((f"[{key!r}]", value) for key, value in outputs.items() if isinstance(key, str))
    elif isinstance(outputs, tuple | list):
        yield from ((f"[{place}]", value) for place, value in enumerate(outputs))
    elif isinstance(outputs, Tensor):
        yield "", outputs
    else:
        yield ".logits", getattr(outputs, "logits", None)


def _logits(value: Tensor, there: str, n: int, classes: int) -> str:
    """Python that makes the logits of a tensor with one number for each class; empty where it has others."""
    if value.shape[:2] != (n, classes) or value.numel() != n * classes:
        return ""
    return f"{there}.flatten(1)" if value.ndim > 2 else there


def _one_logit(value: Tensor, there: str, n: int, classes: int) -> str:
    """Python that makes the logits of two classes of a tensor with one number an image; empty where it has others."""
    if classes != 2 or value.numel() != n or value.shape[:1] != (n,):
        return ""
    return f"torch.nn.functional.pad({there}.reshape(-1, 1), (1, 0))"
