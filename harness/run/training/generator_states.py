"""States of NumPy's and Python's random generators as text, which a checkpoint can hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np


def of_numpy(state: Mapping[str, Any]) -> str:
    """That of a bit generator, or of a ``RandomState``, of which ``get_state(legacy=False)`` gives it."""
    return json.dumps(state, default=np.ndarray.tolist)


def to_numpy(text: str) -> Any:
    """What `of_numpy` was given, with lists for arrays, which NumPy takes as well."""
    return json.loads(text)


def of_python(state: tuple[Any, ...]) -> str:
    """That of a ``random.Random``, of which ``getstate()`` gives it."""
    return json.dumps(state)


def to_python(text: str) -> tuple[Any, ...]:
    """What `of_python` was given."""
    version, internal, gauss = json.loads(text)
    return version, tuple(internal), gauss
