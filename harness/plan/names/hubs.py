"""The names of the models in timm and torchvision, read from their source, because importing them loads torch."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_REGISTERED = re.compile(r"^@register_model\b.*?^def (\w+)\(", re.MULTILINE | re.DOTALL)
_DEPRECATED = re.compile(r"^register_model_deprecations\(__name__, \{(.*?)^\}", re.MULTILINE | re.DOTALL)
_KEY = re.compile(r"^\s*['\"](\w+)['\"]\s*:", re.MULTILINE)


@cache
def model_names(library: str) -> frozenset[str]:
    """The classifiers of ``timm`` or ``torchvision``; empty when the library is not installed."""
    spec = find_spec(library)
    if spec is None or not spec.submodule_search_locations:
        return frozenset()
    names: set[str] = set()
    # Classifiers lie directly in this folder; models for detection, video and so on lie deeper.
    for path in (Path(spec.submodule_search_locations[0]) / "models").glob("*.py"):
        source = path.read_text(encoding="utf-8")
        names.update(_REGISTERED.findall(source))
        for table in _DEPRECATED.findall(source):
            names.update(_KEY.findall(table))
    return frozenset(names)
