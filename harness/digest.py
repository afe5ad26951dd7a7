"""Digests of settings: by them cells and recipes are recognised, in plans as in records. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def digest(value: Any) -> str:
    """The first 16 hex digits of the SHA-256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cell_id(cell: Mapping[str, Any], code: Mapping[str, str]) -> str:
    """The id of a cell in canonical form, with the versions of the code behind it."""
    return digest({"cell": cell, "code": code})
