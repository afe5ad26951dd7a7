"""Names among the parameters of a name: the loss of an attack, the parts of an ensemble or of a VAE."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from epsbench.attacks.losses import LOSSES, Loss
from epsbench.harness.errors import InputError
from epsbench.harness.plan.named import Named, freeze, thaw
from epsbench.harness.plan.names.parameters import Parameter, as_argument
from epsbench.models.parts import Part

NESTED = {
    "Loss": "loss", "tuple[Attack, ...]": "attack", "EncoderPart": "encoder", "DecoderPart": "decoder",
    "PriorPart": "prior", "LikelihoodPart": "likelihood",
}  # fmt: skip
"""The annotation of a parameter → the kind that it names."""


def is_nested(parameter: Parameter) -> bool:
    """Whether a parameter's value is a name, or a list of names."""
    return parameter.type in NESTED


def read_nested(
    known: Mapping[str, Parameter], given: dict[str, Any], read: Callable[[str, Any], Named]
) -> tuple[dict[str, Any], list[str]]:
    """What a suite gives, with every nested name in the form that records hold; and the problems, one message each.

    ``read`` reads one entry of a kind.
    """
    values, problems = dict(given), []
    for key, value in given.items():
        kind = NESTED.get(known[key].type) if key in known else None
        if kind is None:
            continue
        several = kind == "attack"
        if several and not isinstance(value, list):
            problems.append(f'{key}: must be a list of attacks, such as ["pgd", "square"], not {value!r}')
            continue
        entries: list[Any] = []
        for position, entry in enumerate(value if several else [value]):
            try:
                entries.append(recorded(read(kind, entry)))
            except InputError as error:
                place = f"{key}[{position}]" if several else key
                problems += [f"{place}: {message}" for message in error.messages]
        values[key] = entries if several else (entries or [None])[0]
    return {key: value for key, value in values.items() if value is not None}, problems


def recorded(named: Named) -> str | dict[str, Any]:
    """A nested name as a record holds it: alone, or with its parameters."""
    return named.as_dict() if named.params else named.name


def of_record(entry: str | Mapping[str, Any]) -> Named:
    """The name that `recorded` was given."""
    if isinstance(entry, str):
        return Named(entry)
    return Named(entry["name"], tuple(sorted((key, freeze(value)) for key, value in entry.items() if key != "name")))


def named_default(value: Any) -> Any:
    """The name of a loss or of a part of a VAE that a suite can name; anything else as it is."""
    if isinstance(value, Part):
        return value.name if value == type(value)() else value
    return next((name for name, loss in LOSSES.items() if loss == value), value) if isinstance(value, Loss) else value


def built(parameter: Parameter, value: Any, make: Callable[[str, Named], Any]) -> Any:
    """The argument that a recorded value stands for; ``make`` makes the object of one nested name of a kind."""
    kind = NESTED.get(parameter.type)
    if kind is None:
        return as_argument(parameter, value)
    made = [make(kind, of_record(entry)) for entry in (value if isinstance(value, list) else [value])]
    return tuple(made) if isinstance(value, list) else made[0]


def nested_names(known: Mapping[str, Parameter], named: Named) -> list[tuple[str, Named]]:
    """The names among a name's parameters, each with its kind."""
    nested = []
    for key, value in named.params:
        if key in known and (inner := NESTED.get(known[key].type)):
            plain = thaw(value)
            nested += [(inner, of_record(entry)) for entry in (plain if isinstance(plain, list) else [plain])]
    return nested
