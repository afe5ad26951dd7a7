"""Attacks that a program gives to `epsbench.evaluate`: names, tables and objects, as entries of a suite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from epsbench.attacks.base import Attack
from epsbench.harness.errors import InputError
from epsbench.harness.plan.named import freeze
from epsbench.harness.plan.names.kinds import KINDS
from epsbench.harness.plan.names.nested import named_default
from epsbench.harness.plan.one_word import Entry, parsed

Objects = dict[tuple[str, str], Any]


def attack_entries(attack: Any) -> tuple[list[Entry], Objects, list[str]]:
    """The entries of a suite for attacks by name, as tables or as objects; the objects, and the norms they have."""
    entries: list[Entry] = []
    objects: Objects = {}
    norms: list[str] = []
    for each in attack if isinstance(attack, list | tuple) else [attack]:
        if isinstance(each, str):
            entries.append(parsed(each))
        elif isinstance(each, Mapping):
            entry, own = _table(each)
            entries.append(entry)
            _add(objects, own)
        elif isinstance(each, Attack):
            entry, own = _entry_of(each)
            entries.append(entry)
            _add(objects, own)
            norms += [each.norm.name] if each.norm.name not in norms else []
        elif isinstance(each, type) and issubclass(each, Attack):
            raise InputError(f"attack: {each.__name__} is a class; give an object: {each.__name__}()")
        else:
            raise InputError(
                f"attack: is a {type(each).__name__}; give a name such as 'pgd:steps=40', a table, or an Attack"
            )
    if not entries:
        raise InputError("attack: is empty; give at least one")
    return entries, objects, norms


def _add(objects: Objects, more: Objects) -> None:
    """Add objects by their names. Raises `InputError` where two different classes have one name."""
    for (kind, name), each in more.items():
        if objects.setdefault((kind, name), each) is not each:
            raise InputError(f"{kind}: two classes are called {name}; give one of them another name")


def _table(entry: Mapping[str, Any]) -> tuple[dict[str, Any], Objects]:
    """A table whose values, such as the parts of an ensemble, may be attacks as objects."""
    table, objects = dict(entry), Objects()
    for key, value in entry.items():
        if isinstance(value, list | tuple) and any(isinstance(part, Attack) for part in value):
            inner = [_entry_of(part) if isinstance(part, Attack) else (part, Objects()) for part in value]
            table[key] = [part for part, _ in inner]
            for _, own in inner:
                _add(objects, own)
    return table, objects


def _entry_of(attack: Attack) -> tuple[dict[str, Any], Objects]:
    kind = type(attack)
    address = f"{kind.__module__}:{kind.__qualname__}"
    known = {place: name for name, place in KINDS["attack"].built_in.items()}
    name, objects = (known[address], {}) if address in known else (kind.__name__, {("attack", kind.__name__): kind})
    entry: dict[str, Any] = {"name": name}
    for field in fields(attack):
        if not field.init or field.name in KINDS["attack"].hidden:
            continue
        value = named_default(getattr(attack, field.name))
        if isinstance(value, tuple) and value and all(isinstance(part, Attack) for part in value):
            inner = [_entry_of(part) for part in value]
            value = [part for part, _ in inner]
            for _, own in inner:
                _add(objects, own)
        try:
            freeze(value)
        except TypeError as error:
            raise InputError(f"attack {kind.__name__}: {field.name} is a {type(value).__name__}, which no record can "
                             "hold; use numbers, texts, losses and attacks") from error  # fmt: skip
        entry[field.name] = list(value) if isinstance(value, tuple) else value
    return entry, objects
