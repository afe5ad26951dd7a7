"""What a network or a defense changes in itself while it trains, outside the network's state dict.

A counter of steps, a moving mean in a plain attribute, a random generator of its own: the next step depends on them, so
a resumed training needs them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from epsbench.harness.run.training.generator_states import of_numpy, of_python, to_numpy, to_python

State = dict[str, dict[str, dict[str, Any]]]
"""By object and attribute: how the value is kept, with the value in a form that a checkpoint can hold."""

_OF_TORCH = frozenset(vars(nn.Module()))  # ``training`` and the tables of parameters, buffers, modules and hooks
_PLAIN = (bool, int, float, str, type(None))


class OwnState:
    """Numbers, text, arrays, tensors and random generators in the attributes of modules, and of other objects.

    Attributes are looked at one by one; what is inside a list, a dictionary or another object is not. Only those are
    kept that differ from what they were when this object was made, which for most networks are none.
    """

    def __init__(self, network: nn.Module, others: Mapping[str, object] | None = None) -> None:
        """``others``: further objects to look at, by a name that no module has."""
        self._network, self._others = network, dict(others or {})
        self._first = self._read()

    def add(self, name: str, other: object) -> None:
        """Look at one more object, of which nothing has changed yet, by a name that no other has."""
        self._others[name] = other
        self._first[name] = _attributes_of(other)

    def state_dict(self) -> State:
        """What has changed since the beginning, for a checkpoint."""
        now = self._read()
        changed = {
            name: {key: kept for key, kept in values.items() if not _equal(kept, self._first[name].get(key))}
            for name, values in now.items()
            if name in self._first
        }
        return {name: values for name, values in changed.items() if values}

    def load_state_dict(self, state: State) -> None:
        """Continue from what `state_dict` returned; what is not in it is brought back to the beginning.

        Raises `KeyError` for the state of other objects.
        """
        objects = self._objects()
        for name in {*self._first, *state}:
            attributes = vars(objects[name])
            for key, kept in (self._first.get(name, {}) | state.get(name, {})).items():
                _write(attributes, key, kept)

    def _objects(self) -> dict[str, object]:
        named = {f"network.{name}": module for name, module in self._network.named_modules()}
        return {name: each for name, each in (named | self._others).items() if hasattr(each, "__dict__")}

    def _read(self) -> State:
        return {name: _attributes_of(each) for name, each in self._objects().items()}


def _attributes_of(thing: object) -> dict[str, dict[str, Any]]:
    """How the attributes of an object are kept, as far as they are of a kind that can be."""
    values = {key: _kept(value) for key, value in vars(thing).items() if key not in _OF_TORCH}
    return {key: kept for key, kept in values.items() if kept is not None}


def _kept(value: Any) -> dict[str, Any] | None:
    """How a value is kept in a checkpoint; None for one of another kind."""
    if type(value) in _PLAIN:
        return {"plain": value}
    if isinstance(value, np.generic | np.ndarray) and value.dtype.kind in "biuf":
        return {"array": json.dumps([value.dtype.str, np.shape(value), value.tolist()]), "single": np.ndim(value) == 0}
    if isinstance(value, Tensor) and not isinstance(value, nn.Parameter) and value.layout == torch.strided:
        return {"tensor": value.detach().clone()}
    if isinstance(value, torch.Generator):
        return {"torch": value.get_state(), "device": str(value.device)}
    if isinstance(value, np.random.Generator):
        return {"numpy": of_numpy(value.bit_generator.state)}
    if isinstance(value, np.random.RandomState):
        return {"legacy numpy": of_numpy(value.get_state(legacy=False))}
    return {"python": of_python(value.getstate())} if type(value) is random.Random else None


def _write(attributes: dict[str, Any], key: str, kept: dict[str, Any]) -> None:
    """Give an attribute the value that `_kept` keeps. A generator stays the object that it is: others may share it."""
    now, (kind, value) = attributes.get(key), next(iter(kept.items()))
    if kind == "plain":
        attributes[key] = value
    elif kind == "array":
        dtype, shape, numbers = json.loads(value)
        array = np.array(numbers, dtype).reshape(shape)
        attributes[key] = array[()] if kept["single"] else array
    elif kind == "tensor":
        attributes[key] = value.to(now.device if isinstance(now, Tensor) else value.device).clone()
    elif kind == "torch":
        attributes[key] = now if isinstance(now, torch.Generator) else torch.Generator(kept["device"])
        attributes[key].set_state(value.cpu())
    elif kind == "numpy":
        state = to_numpy(value)
        if not isinstance(now, np.random.Generator):
            attributes[key] = np.random.Generator(getattr(np.random, state["bit_generator"])())
        attributes[key].bit_generator.state = state
    elif kind == "legacy numpy":
        attributes[key] = now if isinstance(now, np.random.RandomState) else np.random.RandomState()
        attributes[key].set_state(to_numpy(value))
    else:
        attributes[key] = now if isinstance(now, random.Random) else random.Random()
        attributes[key].setstate(to_python(value))


def _equal(kept: dict[str, Any], other: dict[str, Any] | None) -> bool:
    if other is None or kept.keys() != other.keys():
        return False
    return all(_same(one, other[key]) for key, one in kept.items())


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one.cpu(), other.cpu())
    return type(one) is type(other) and bool(one == other)
