"""From a name in a suite to the object that it names: built-ins, entry points, ``module:Object``, ``path.py:Object``.

Nothing here imports torch. The built-in attacks, defenses and architectures import it only when they are used.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from epsbench.attacks.norms.base import Norm
from epsbench.harness.digest import digest
from epsbench.harness.errors import FAILURES, InputError, did_you_mean
from epsbench.harness.plan.named import HashableDict, Named, Table, thaw
from epsbench.harness.plan.names.aliases import ALIASES, without_alias
from epsbench.harness.plan.names.declared import ignored
from epsbench.harness.plan.names.hubs import model_names
from epsbench.harness.plan.names.kinds import KINDS, Kind, address_of, entry_points_of, known_names
from epsbench.harness.plan.names.loading import load_object
from epsbench.harness.plan.names.nested import built, is_nested, named_default, nested_names, read_nested
from epsbench.harness.plan.names.norms import norm_of
from epsbench.harness.plan.names.parameters import Parameter, check_parameters, parameters_of
from epsbench.harness.plan.names.places import file_of, in_one_spelling, require_weights
from epsbench.harness.plan.names.raised import what_was_raised
from epsbench.harness.plan.names.versions import code_version
from epsbench.harness.plan.one_word import parsed
from epsbench.harness.plan.toml import toml_text
from epsbench.models.parts import NEEDS, OwnPart, Part

_COMPARED = ("attack", "loss", "defense")
"""Kinds whose objects are looked up among others: what was tried, what is compiled."""


@dataclass(frozen=True)
class Source:
    """What a name resolves to."""

    factory: Callable[..., Any]
    """The callable that makes the object."""
    fixed: tuple[tuple[str, Any], ...] = ()
    """Arguments that the name itself contains, such as the model in ``timm:resnet18``."""


_IN_MEMORY: dict[tuple[str, str], Any] = {}


@contextmanager
def registered(objects: Mapping[tuple[str, str], Any]) -> Iterator[None]:
    """Inside, objects of this process have names: (kind, name) → a factory, or for data the data itself."""
    _IN_MEMORY.update(objects)
    try:
        yield
    finally:
        for key in objects:
            _IN_MEMORY.pop(key, None)


def any_in_memory() -> bool:
    """Whether objects of this process have names now: another process does not know them."""
    return bool(_IN_MEMORY)


def in_memory(kind: str, name: str) -> Any:
    """The object that `registered` has given this name; None where there is none."""
    return _IN_MEMORY.get((kind, name))


def resolve(kind: str, name: str, base: Path) -> Source:
    """What a name of a kind of `KINDS` stands for; files are relative to ``base``.

    Raises `InputError`, with the nearest known name, when there is no such object or it is of another kind.
    """
    table = KINDS[kind]
    if (given := in_memory(kind, name)) is not None:
        return Source(given if kind == "data" else _checked(table, name, given))
    prefix, colon, rest = name.partition(":")
    if name in table.built_in:
        return Source(load_object(table.built_in[name], base))
    if colon and prefix in table.prefixes:
        address, parameter = table.prefixes[prefix]
        if parameter == "attack_name":
            return Source(_of_library(name, load_object(address, base)))
        return Source(load_object(address, base), ((parameter, _hub_name(prefix, rest, base)),))
    if name in (points := entry_points_of(table.group)):
        return Source(_checked(table, name, load_object(address_of(points[name]), base)))
    if colon and "=" in rest and prefix in known_names(kind):
        raise InputError(f"{name!r}: here parameters are keys of a table: {toml_text(parsed(name))}")
    if colon:
        return Source(_checked(table, name, load_object(name, base)))
    addresses = "".join(f", {each}" for each in table.addresses)
    hint = did_you_mean(name, [*known_names(kind), *ALIASES.get(kind, ())])
    raise InputError(
        f"unknown {table.noun} {name!r}{hint}{addresses if hint.startswith('; known') else ''}"
        f" (your own: path/to/file.py:Object or module:Object)"
    )


def _of_library(name: str, adapter: Any) -> Callable[..., Any]:
    """What makes the attack of another library that a suite names."""
    try:
        factory: Callable[..., Any] = adapter.named(name.partition(":")[2])
    except ValueError as error:
        raise InputError(f"{name}: {error}") from error
    return factory


@cache
def built_in_defaults(kind: str, name: str) -> Mapping[str, Any]:
    """The parameters of a built-in and their defaults; empty for any other name."""
    address = KINDS[kind].built_in.get(name)
    if address is None:
        return {}
    known = parameters(kind, Source(load_object(address, Path())))
    return {parameter.name: parameter.default for parameter in known.values()}


def parameters(kind: str, source: Source) -> dict[str, Parameter]:
    """The parameters a suite may set. Losses and attacks among their defaults are shown by their names."""
    known = parameters_of(source.factory, KINDS[kind].hidden)
    return {key: replace(each, default=named_default(each.default)) for key, each in known.items()}


def name_with_parameters(kind: str, entry: str | Mapping[str, Any], base: Path) -> Named:
    """A suite's entry, a name or ``{"name": ..., parameters}``, with every default filled in.

    Makes the object once, to see whether it accepts the values. Raises `InputError`, one message per problem, for
    parameters that are unknown, missing or of the wrong type, and for values that the object refuses.
    """
    given = {"name": entry} if isinstance(entry, str) else dict(entry)
    name = given.pop("name", None)
    if not isinstance(name, str) or not name:
        raise InputError(f'must be a name or a table such as {{ name = "..." }}, not {entry!r}')
    name, given = without_alias(kind, name, given)
    name = in_one_spelling(name, base)
    known = parameters(kind, resolve(kind, name, base))
    given, nested_problems = read_nested(known, given, lambda kind, entry: name_with_parameters(kind, entry, base))
    values, problems = check_parameters(known, given)
    problems += nested_problems
    if problems:
        raise InputError([f"{name}: {problem}" for problem in problems])
    defaults, _ = check_parameters(known, {})
    changed = tuple(key for key in sorted(values) if key not in defaults or values[key] != defaults[key])
    named = Named(name, tuple(sorted(values.items())), changed)
    require_weights(name, base)
    make(kind, named, base)
    return named


def make(kind: str, named: Named, base: Path, norm: Norm | str | None = None) -> Any:
    """Make the object that a resolved name stands for; an attack gets its norm.

    A user's own model is wrapped in `epsbench.models.catalogue.Custom`. Raises `InputError` when the object refuses
    its parameters.
    """
    source = resolve(kind, named.name, base)
    known = parameters(kind, source)

    def make_one(inner: str, nested: Named) -> Any:
        return make(inner, nested, base)

    arguments = {
        key: built(known[key], _argument(value, is_nested(known[key])), make_one)
        for key, value in named.params
        if key in known
    }
    if kind == "data":
        arguments["base"] = base
    if "path" in dict(source.fixed) and "architecture" in arguments:
        arguments["architecture"] = _own_architecture(arguments["architecture"], base)
    if norm is not None:
        arguments["norm"] = norm_of(norm, base) if isinstance(norm, str) else norm
    factory = _wrapped(source.factory) if kind == "model" else source.factory
    if kind in NEEDS and not (isinstance(factory, type) and issubclass(factory, Part)):
        return OwnPart(kind, factory, tuple(sorted(arguments.items())))
    return _called(kind, named.name, partial(factory, **dict(source.fixed), **arguments))


def _called(kind: str, name: str, factory: Callable[[], Any]) -> Any:
    """What a factory makes. Raises `InputError` where it refuses its arguments, and with what else it raises."""
    try:
        made = factory()
    except InputError:
        raise
    except (ValueError, TypeError) as error:  # how a class of ours or of the user's refuses a value
        raise InputError(f"{name}: {error}") from error
    except FAILURES as error:
        raise InputError(f"{name}: making it raises {what_was_raised(error)}; correct the file") from error
    if kind in _COMPARED:
        try:
            hash(made)
        except TypeError as error:
            raise InputError(
                f"{name}: it cannot be compared with another {KINDS[kind].noun} ({error}); let its fields be numbers, "
                "texts, tuples and dicts of such, and make arrays and sets in start() or in a property"
            ) from error
    return made


def _argument(value: Any, nested: bool) -> Any:
    """A frozen value as an object takes it: a table as a dict that can be hashed, since objects are compared."""
    if nested:
        return thaw(value)
    return HashableDict(thaw(value)) if isinstance(value, Table) else value


def _own_architecture(entry: Any, base: Path) -> Any:
    """The architecture that a file's weights belong to, where it is code of the user's own; else the entry as it is."""
    name = entry.get("name", "") if isinstance(entry, Mapping) else entry
    prefix, colon, _ = str(name).partition(":")
    if not colon or prefix in KINDS["model"].prefixes:
        return entry
    return make("model", name_with_parameters("model", entry, base), base)


def versions(kind: str, named: Named, base: Path) -> dict[str, str]:
    """The version of the code behind a name, and for ``file:PATH`` those of the weights and of their architecture.

    Raises `InputError` when the file of weights cannot be read.
    """
    source = resolve(kind, named.name, base)
    file = file_of(named.name, base)
    code = {kind: code_version(source.factory, *([file] if file else []))}
    inner = [versions(inner, nested, base)[inner] for inner, nested in nested_names(parameters(kind, source), named)]
    if inner:
        code[kind] = digest([code[kind], *inner])
    if {"path", "images_file"} & dict(source.fixed).keys():
        try:
            stored = make(kind, named, base)
            if kind == "attack":
                return {kind: digest([code[kind], stored.digest()])}
            inner_model = stored.inner()
            architecture = getattr(inner_model, "factory", type(inner_model))
            code |= {"architecture": code_version(architecture), "weights": stored.digest()}
        except ValueError as error:
            raise InputError(f"{named.name}: {error}") from error
    return code


def _wrapped(factory: Callable[..., Any]) -> Callable[..., Any]:
    from epsbench.models.base import Architecture
    from epsbench.models.catalogue import Custom
    from epsbench.models.generative import VAE

    if isinstance(factory, type) and issubclass(factory, Architecture | VAE):
        return factory
    return lambda **arguments: Custom(factory, tuple(sorted(arguments.items())))


def _hub_name(prefix: str, rest: str, base: Path) -> str:
    if not rest:
        raise InputError(f"'{prefix}:' needs a name after the colon")
    if prefix in ("file", "images"):
        return str(base / rest)
    plain = rest.partition(".")[0]  # timm writes architecture.weights
    known = model_names(prefix)
    if known and ":" not in rest and plain not in known:
        hint = did_you_mean(plain, known)
        raise InputError(f"{prefix} has no model {plain!r}{hint if 'did you mean' in hint else ''}")
    return rest


def _checked(kind: Kind, name: str, factory: Any) -> Any:
    if not callable(factory):
        raise InputError(f"{name!r} is no {kind.noun}: it is {type(factory).__name__} and cannot be called")
    bases = tuple(load_object(address, Path()) for address in kind.bases)
    if bases and not (isinstance(factory, type) and issubclass(factory, bases)):
        wanted = " or ".join(kind.bases).replace(":", ".")
        raise InputError(f"{name!r} is no {kind.noun}: it must be a class derived from {wanted}")
    if inspect.isabstract(factory):
        missing = " and ".join(f"{each}()" for each in sorted(factory.__abstractmethods__))
        raise InputError(f"{name!r} does not define {missing}, which every {kind.noun} of its kind needs")
    if problem := ignored(factory):
        raise InputError(f"{name!r}: {problem}")
    for method, remedy in kind.uncalled.items():
        if inspect.isfunction(getattr(factory, method, None)):
            raise InputError(f"{name!r} defines {method}(), which nothing calls: {remedy}, or rename the method")
    return factory
