"""The model names timm and torchvision know, read from their source: importing either would load torch."""

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
    """The classifiers of ``timm`` or ``torchvision`` as installed; empty where it is not."""
    found = find_spec(library)
    if found is None or not found.submodule_search_locations:
        return frozenset()
    names: set[str] = set()
    # Classifiers lie directly in this folder; detection, video and the like lie deeper.
    for path in (Path(found.submodule_search_locations[0]) / "models").glob("*.py"):
        source = path.read_text(encoding="utf-8")
        names.update(_REGISTERED.findall(source))
        for table in _DEPRECATED.findall(source):
            names.update(_KEY.findall(table))
    return frozenset(names)
