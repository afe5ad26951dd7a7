"""A table of a suite and a list of values in it, as pydantic types."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_origin

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, model_validator
from pydantic_core import core_schema

# More values than any suite needs on one axis. A typing mistake gets a message before it fills the memory.
LONGEST = 1_000


class Part(BaseModel):
    """A table of a suite. It refuses unknown keys, wrong types, NaN and infinities."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _with_tuples(cls, table: Any) -> Any:
        """TOML has lists, and a frozen value holds them as tuples."""
        if not isinstance(table, dict):
            return table
        tuples = {key for key, field in cls.model_fields.items() if get_origin(field.annotation) is tuple}
        return {key: tuple(item) if key in tuples and isinstance(item, list) else item for key, item in table.items()}


def written_values(part: Any, axis: str) -> Iterator[tuple[str, Any]]:
    """Every value of an axis that a part of a suite lists in its matrix and its includes, with its key."""
    tables = [("matrix", part.matrix), *((f"include[{n}]", include) for n, include in enumerate(part.include))]
    for path, table in tables:
        for position, value in enumerate(getattr(table, axis, [])):
            yield f"{part.task}.{path}.{axis}[{position}]", value


@dataclass(frozen=True)
class Axis:
    """Marks a list of different values that may also be written as a single value."""

    item: dict[str, Any] | None = None
    """The JSON Schema of one value; None: as its type gives it."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        several = core_schema.no_info_after_validator_function(_distinct, handler(source))
        return core_schema.no_info_before_validator_function(_as_list, several)

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema, handler: Any) -> dict[str, Any]:
        item = self.item or handler(schema)["items"]
        return {
            "anyOf": [
                item,
                {"type": "array", "items": item, "minItems": 1, "maxItems": LONGEST, "uniqueItems": True},
            ]
        }


def _as_list(value: Any) -> Any:
    if isinstance(value, list) and len(value) > LONGEST:
        raise ValueError(f"lists {len(value):,} values; at most {LONGEST:,} are allowed")
    return value if isinstance(value, list) else [value]


def _distinct(values: list[Any]) -> list[Any]:
    if not values:
        raise ValueError("is empty; give at least one value, or leave the key out")
    first: dict[Any, int] = {}
    for position, value in enumerate(values):
        if first.setdefault(value, position) != position:
            raise ValueError(f"entry {position} repeats entry {first[value]}; give every value once")
    return values
