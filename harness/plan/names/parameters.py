"""The parameters of an attack, a defense or a model, and whether a suite's values fit them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from fractions import Fraction
from typing import Any

from epsbench.harness.errors import FAILURES, InputError, did_you_mean
from epsbench.harness.plan.epsilon import any_epsilon, parse_epsilon
from epsbench.harness.plan.named import freeze
from epsbench.harness.plan.names.raised import what_was_raised

# Of types whose name says little to who writes a suite.
_EXAMPLES = {"tuple[Attack, ...]": '["fgsm", "square"]'}


@dataclass(frozen=True)
class Parameter:
    """One parameter of an attack, a defense or a model."""

    name: str
    type: str
    """The annotation as text."""
    default: Any = None
    required: bool = False
    """Whether it has no default."""
    later: bool = False
    """Whether it was added after the first records: at its default it is no part of the cell, so old ids stay valid."""


def parameters_of(factory: Callable[..., Any], hidden: Collection[str] = ()) -> dict[str, Parameter]:
    """The parameters of a dataclass or of any callable, without the ``hidden`` ones, which the harness sets.

    Raises `InputError` for a callable without a signature.
    """
    all_parameters = _fields(factory) if is_dataclass(factory) else _signature(factory)
    return {parameter.name: parameter for parameter in all_parameters if parameter.name not in hidden}


def check_parameters(parameters: Mapping[str, Parameter], given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The frozen value of every parameter, defaults filled in; and the problems of ``given``, one message each."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    for key in given:
        if key not in parameters:
            hint = did_you_mean(key, parameters) if parameters else "; it takes none"
            problems.append(f"unknown parameter {key!r}{hint}")
    for key, parameter in parameters.items():
        if key in given:
            try:
                value = _fit(parameter, given[key])
                if isinstance(value, Fraction) and "norm" not in parameters:
                    parse_epsilon(given[key])  # of L∞, where it is at most 1; what has a norm checks its own ε
                if not (parameter.later and value == parameter.default):
                    values[key] = freeze(value)
            except (ValueError, TypeError) as error:
                problems.append(f"{key}: {error}")
        elif parameter.required and parameter.type in _EXAMPLES:
            problems.append(f"{key} is missing; give it, as in {key} = {_EXAMPLES[parameter.type]}")
        elif parameter.required:
            problems.append(
                f"{key} is missing; give {key} = <{parameter.type}>, or name a function of your own that needs no {key}"
            )
        elif not parameter.later:
            try:
                values[key] = freeze(parameter.default)
            except TypeError:  # JSON cannot hold this default: it is no part of the cell, and the object sets it itself
                continue
    return values, problems


def _fields(factory: Any) -> list[Parameter]:
    parameters = []
    for field in fields(factory):
        if field.init:
            default = field.default if field.default_factory is MISSING else _made(field, factory)
            required, later = default is MISSING, bool(field.metadata.get("later"))
            parameters.append(Parameter(field.name, _text(field.type), default, required, later))
    return parameters


def _made(field: Field[Any], factory: Any) -> Any:
    """The default that a field makes. Raises `InputError` with what the user's code raises."""
    try:
        return field.default_factory()  # type: ignore[operator]
    except FAILURES as error:
        raise InputError(
            f"{factory.__name__}: making the default of {field.name} raises {what_was_raised(error)}; correct the file"
        ) from error


def _signature(factory: Callable[..., Any]) -> list[Parameter]:
    try:
        signature = inspect.signature(factory)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{factory!r} has no signature, so its parameters are unknown; wrap it in a function with named parameters"
        ) from error
    return [
        Parameter(each.name, _text(each.annotation), each.default, required=each.default is each.empty)
        for each in signature.parameters.values()
        if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
    ]


def _text(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return "anything"
    if isinstance(annotation, str):
        return annotation.strip("'\"")
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    return value


def _float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)


def _numbers(value: Any) -> Any:
    """A list of numbers, as it is: an integer stays one, and so does the id of its cell."""
    if not isinstance(value, list | tuple):
        raise TypeError
    for each in value:
        _float(each)
    return value


def _instance_of(kind: type) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not isinstance(value, kind):
            raise TypeError
        return value

    return check


# Type in an annotation → its name in messages, and what converts a suite's value. Other types are not checked here.
_FITS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "int": ("an integer", _integer),
    "float": ("a number", _float),
    "str": ("a string", _instance_of(str)),
    "bool": ("true or false", _instance_of(bool)),
    "tuple[float, ...]": ("a list of numbers", _numbers),
    "Fraction": ("an ε", any_epsilon),
    "fractions.Fraction": ("an ε", any_epsilon),
}


def _fit(parameter: Parameter, value: Any) -> Any:
    alternatives = [part.strip() for part in parameter.type.split("|") if part.strip() != "None"]
    if not all(part in _FITS for part in alternatives):
        return value
    for part in alternatives:
        try:
            return _FITS[part][1](value)
        except TypeError:
            continue
    raise TypeError(f"must be {' or '.join(_FITS[part][0] for part in alternatives)}, not {value!r}")


def as_argument(parameter: Parameter, value: Any) -> Any:
    """A thawed value as the object takes it: an exact fraction where the annotation says so."""
    return any_epsilon(value) if "Fraction" in parameter.type and isinstance(value, str) else value
