"""The axes of a suite as pydantic types: one value or a list of different values, each checked."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
)

from epsbench.harness.errors import InputError, did_you_mean
from epsbench.harness.plan.axes.base import Axis
from epsbench.harness.plan.axes.corruptions import LEAST_SIDE, MOST_SEVERE, Corruption, read_corruption
from epsbench.harness.plan.axes.recipes import RobustnessTraining
from epsbench.harness.plan.axes.sources import SOURCE, SourceModel, SourceModels
from epsbench.harness.plan.axes.starts import START, Start
from epsbench.harness.plan.axes.tables import LARGEST_SEED, MODEL_AXES, TableAxis, read_named, read_subset
from epsbench.harness.plan.data import DATASETS, SUBSETS
from epsbench.harness.plan.data.own import OwnData
from epsbench.harness.plan.epsilon import parse_epsilon, without_rounded_twins
from epsbench.harness.plan.named import Named
from epsbench.harness.plan.names.augmentations import AUGMENTATIONS, read_augmentation
from epsbench.harness.plan.names.data import read_data
from epsbench.harness.plan.names.kinds import KINDS
from epsbench.harness.plan.names.norms import NORMS, read_norm

ROBUSTNESS_AXES = (
    *MODEL_AXES, "start", "training", "source", "attack", "norm", "eps", "corruption", "severity", "queries",
)  # fmt: skip
GENERATION_AXES = ("model", "z_dim", "beta", "training", "seed")


def _typed_epsilons(values: Any) -> Any:
    return without_rounded_twins(values) if isinstance(values, list) else values


def _epsilon(value: object, info: ValidationInfo) -> Fraction:
    return parse_epsilon(value, (info.context or {}).get("largest", 1))


def _resolved(read: Callable[[Any, Path], Any]) -> PlainValidator:
    """What ``read`` makes of a value, with names relative to the suite's folder."""

    def resolve(entry: Any, info: ValidationInfo) -> Any:
        try:
            return read(entry, _base(info))
        except InputError as error:
            raise ValueError("; ".join(error.messages)) from error

    return PlainValidator(resolve)


def _named(kind: str) -> PlainValidator:
    return _resolved(partial(read_named, kind))


def _table(axis: TableAxis) -> PlainValidator:
    def read(entry: Any, info: ValidationInfo) -> object:
        return axis.read(entry, _base(info))

    return PlainValidator(read)


def _base(info: ValidationInfo) -> Path:
    """The folder that names in the suite are relative to."""
    return (info.context or {}).get("base", Path())


def _name_or_table(kind: str) -> dict[str, Any]:
    """The schema of a name with or without parameters. Any address is allowed: the built-ins are hints for editors."""
    name = {"type": "string", "minLength": 1, "examples": list(KINDS[kind].built_in)}
    return {"anyOf": [name, {"type": "object", "properties": {"name": name}, "required": ["name"]}]}


def _data_schema() -> dict[str, Any]:
    """The schema of data: a built-in, or a source of the user's own with its parameters."""
    name = {
        "type": "string",
        "minLength": 1,
        "examples": [*DATASETS, *KINDS["data"].built_in, "test.npz", "mine.py:Birds"],
    }
    return {"anyOf": [name, {"type": "object", "properties": {"name": name}, "required": ["name"]}]}


_EPSILON = {"anyOf": [{"type": "string", "examples": ["8/255"]}, {"type": "number", "minimum": 0}]}
_SEED = Field(ge=0, le=LARGEST_SEED)
_Z_DIM = Field(ge=1, le=65_536)
_BETA = Field(ge=0)

_SEED_SCHEMA = {"type": "integer", "minimum": 0, "maximum": LARGEST_SEED}
_AUGMENTATION = {"type": "string", "minLength": 1, "examples": [*AUGMENTATIONS, "mine.py:cutout"]}
_NORM = {"type": "string", "minLength": 1, "examples": [*NORMS, "mine.py:MyNorm"]}
_PROPERTIES: dict[str, dict[str, Any]] = {
    "data": _data_schema(),
    "model": _name_or_table("model"),
    "defense": _name_or_table("defense"),
    "augmentation": _AUGMENTATION,
    "subset": {"enum": list(SUBSETS)},
    "seed": _SEED_SCHEMA,
    "training": {
        "type": "object",
        "properties": RobustnessTraining.model_json_schema()["properties"],
        "additionalProperties": False,
        "minProperties": 1,
    },
}


def _default_or_table(axis: TableAxis) -> dict[str, Any]:
    table = {
        "type": "object",
        "properties": {name: _PROPERTIES[name] for name in axis.axes},
        "additionalProperties": False,
        "minProperties": 1,
    }
    return {"anyOf": [{"const": axis.default}, table]}


def _source_schema() -> dict[str, Any]:
    one = _default_or_table(SOURCE)
    return {"anyOf": [*one["anyOf"], {"type": "array", "items": one["anyOf"][1], "minItems": 2}]}


Models = Annotated[list[Annotated[Named, _named("model")]], Axis(_name_or_table("model"))]
Defenses = Annotated[list[Annotated[Named, _named("defense")]], Axis(_name_or_table("defense"))]
Attacks = Annotated[list[Annotated[Named, _named("attack")]], Axis(_name_or_table("attack"))]
Norms = Annotated[list[Annotated[str, _resolved(read_norm)]], Axis(_NORM)]
Augmentations = Annotated[list[Annotated[str, _resolved(read_augmentation)]], Axis(_AUGMENTATION)]
Subsets = Annotated[list[Annotated[str, _resolved(read_subset)]], Axis({"enum": list(SUBSETS)})]
Starts = Annotated[list[Annotated[str | Start, _table(START)]], Axis(_default_or_table(START))]
Sources = Annotated[list[Annotated[str | SourceModel | SourceModels, _table(SOURCE)]], Axis(_source_schema())]
Epsilons = Annotated[
    list[Annotated[Fraction, PlainValidator(_epsilon)]], BeforeValidator(_typed_epsilons), Axis(_EPSILON)
]
_KINDS = {"enum": ["none", *LEAST_SIDE]}
_SEVERITY = {"type": "integer", "minimum": 1, "maximum": MOST_SEVERE}
_CORRUPTION = {
    "anyOf": [
        _KINDS,
        {
            "type": "object",
            "properties": {"name": _KINDS, "severity": _SEVERITY},
            "required": ["name"],
            "additionalProperties": False,
        },
    ]
}
Corruptions = Annotated[list[Annotated[Corruption, PlainValidator(read_corruption)]], Axis(_CORRUPTION)]
Severities = Annotated[list[Annotated[int, Field(ge=1, le=MOST_SEVERE)]], Axis(_SEVERITY)]
Budgets = Annotated[
    list[Annotated[int, Field(ge=1, le=10_000_000)]], Axis({"type": "integer", "minimum": 1, "maximum": 10_000_000})
]
Seeds = Annotated[list[Annotated[int, _SEED]], Axis(_SEED_SCHEMA)]
Latents = Annotated[list[Annotated[int, _Z_DIM]], Axis({"type": "integer", "minimum": 1, "maximum": 65_536})]
Betas = Annotated[list[Annotated[float, _BETA]], Axis({"type": "number", "minimum": 0})]
Data = Annotated[str | OwnData, _resolved(read_data), WithJsonSchema(_data_schema())]


def _axes_of(axes: tuple[str, ...]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def check(where: dict[str, Any]) -> dict[str, Any]:
        for key, value in where.items():
            if key not in axes:
                raise ValueError(f"{key!r} is no axis{did_you_mean(key, axes)}")
            if isinstance(value, list) and not value:
                raise ValueError(f"{key} lists no value; give at least one, or leave the key out")
        return where

    return check


RobustnessWhere = Annotated[dict[str, Any], AfterValidator(_axes_of(ROBUSTNESS_AXES))]
GenerationWhere = Annotated[dict[str, Any], AfterValidator(_axes_of(GENERATION_AXES))]


def _reference_of(axes: tuple[str, ...]) -> PlainValidator:
    check = _axes_of(axes)

    def read(value: Any) -> dict[str, Any] | str:
        if value == "baseline":
            return "baseline"
        if not isinstance(value, dict) or not value:
            raise ValueError(f'must be "baseline" or a table of axes such as {{ {axes[0]} = … }}, not {value!r}')
        return check(value)

    return PlainValidator(read)


_REFERENCE = WithJsonSchema({"anyOf": [{"const": "baseline"}, {"type": "object", "minProperties": 1}]})
RobustnessReference = Annotated[dict[str, Any] | str, _reference_of(ROBUSTNESS_AXES), _REFERENCE]
GenerationReference = Annotated[dict[str, Any] | str, _reference_of(GENERATION_AXES), _REFERENCE]
