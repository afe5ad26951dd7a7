"""Tables of records, such as cells and recipes: as one level, as text, and what tells several of them apart."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any


def canonical(value: Any) -> str:
    """A JSON-able value as one string, the same for equal values."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def flat(tree: Mapping[str, Any], prefix: str = "", *, by_name: bool = False) -> dict[str, Any]:
    """Nested objects as one level, keys joined by dots: ``attack.name`` and ``attack.steps``.

    ``by_name``: what a table names stands under the table's own key, before its parameters: ``attack``, and
    ``attack.steps``.
    """
    rows: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if not isinstance(value, Mapping):
            rows[path] = value
            continue
        inner = dict(value)
        if by_name and "name" in inner:
            rows[path] = inner.pop("name")
        rows |= flat(inner, f"{path}.", by_name=by_name)
    return rows


def varying(tables: Iterable[Mapping[str, Any]]) -> list[str]:
    """The keys that do not have the same value in all tables, in their order; a key may be missing in some."""
    tables = list(tables)
    keys = dict.fromkeys(key for table in tables for key in table)
    return [key for key in keys if len({canonical(table.get(key)) for table in tables}) > 1]


def varying_by_name(tables: Iterable[Mapping[str, Any]]) -> dict[str, set[str]]:
    """The parameters that tables of one name have with different values: name → their keys."""
    forms: dict[str, dict[str, Mapping[str, Any]]] = {}
    for table in tables:
        forms.setdefault(str(table.get("name")), {})[canonical(table)] = table
    return {name: set(varying(alike.values())) for name, alike in forms.items()}
