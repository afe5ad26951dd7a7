"""Weights of a file in a network: which set of them fits, and what the prefix of its names is.

The rule: a file may hold several sets of weights under keys, such as ``state_dict`` and ``state_dict_ema``, and all
names of a set may begin with one prefix, such as ``module.``. A set is loaded when, without a prefix, it has every
tensor of the network in its shape and nothing else. When two different sets fit, the suite has to name one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import Tensor, nn

from epsbench.models.layers import Normalise, rounded
from epsbench.models.weight_files import State, load_state

# Of batch norm and of averaged models: absent from some files, and used by nobody in evaluation mode.
_COUNTER = ("num_batches_tracked", "n_averaged")
_MOST_NAMES = 4  # of missing and of unknown tensors in a message
_MEANS, _STDS = {"mean", "mu", "new_mean", "_mean"}, {"std", "sigma", "new_std", "_std"}
_MOST_CHANNELS = 4  # of a mean or a standard deviation of pixels


@dataclass(frozen=True)
class Loaded:
    """What was loaded of a file."""

    chosen: str
    """Which set of weights, in words."""

    mean: tuple[float, ...] = ()
    """What the file's model subtracts from each channel, where the network does not normalise; one number is for all.
    """

    std: tuple[float, ...] = ()
    """What it then divides by."""


def load_checkpoint(network: nn.Module, path: Path, key: str = "") -> Loaded:
    """Load the set of weights in a file that fits ``network``, or the one under ``key``; returns which one that was.

    Raises `ValueError` as `load_state`, and where no set fits, or two that differ.
    """
    sets = load_state(path)
    if key:
        if key not in sets:
            raise ValueError(f"weights {path}: there are no weights under {key!r}; there are: {_listed(sets)}")
        sets = {key: sets[key]}
    return _load(network, sets, str(path))


def load_into(network: nn.Module, state: State, where: str) -> None:
    """Copy ``state`` into ``network``. Raises `ValueError`, naming ``where``, when their tensors differ."""
    if _load(network, {"": state}, where).mean:
        raise ValueError(f"weights {where}: their model normalises its images, and this one does not")


@dataclass(frozen=True)
class _Fit:
    """A set of weights that fits a network: its tensors by the network's names, and the prefix they had."""

    key: str
    prefix: str
    state: State
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


def _load(network: nn.Module, sets: Mapping[str, State], where: str) -> Loaded:
    from epsbench.models.hub import HubNetwork

    # A network of timm or torchvision lies inside our own preparation; files with and without it load.
    target = network
    while isinstance(target, HubNetwork):
        target = target.network
    own = {name: value for name, value in target.state_dict().items() if isinstance(value, Tensor)}
    fits: list[_Fit] = []
    problems = []
    for key, state in sets.items():
        try:
            fits += _without_prefix(own, key, state, network)
        except ValueError as error:
            problems.append((len(own.keys() & state.keys()), str(error)))
    if not fits:
        raise ValueError(f"weights {where}: {max(problems)[1]}")
    first = fits[0]
    if any(not _alike(first, other) for other in fits[1:]):
        choices = ", ".join(dict.fromkeys(_called(fit) for fit in fits))
        last = fits[-1].key
        remedy = f'name one, such as key = "{last}" (--key {last})' if first.key != last else "keep one in the file"
        raise ValueError(f"weights {where}: {len(fits)} sets of weights fit this model ({choices}); {remedy}")
    if any(value.is_meta for value in first.state.values()):
        raise ValueError(f"weights {where}: the tensors have no data: they were on the device 'meta' when saved")
    for name, value in first.state.items():
        if own[name].is_floating_point() and not value.is_floating_point():
            raise ValueError(
                f"weights {where}: {name} is {value.dtype} in the file and {own[name].dtype} here; save the weights as "
                "floats: what is quantised loses its scale"
            )
    with torch.no_grad():
        target.load_state_dict(first.state, strict=False)  # `_without_prefix` has compared every name
    return Loaded(_called(first), first.mean, first.std)


def _without_prefix(own: Mapping[str, Tensor], key: str, state: State, network: nn.Module) -> Iterator[_Fit]:
    """Every prefix under which a set has all of the network's tensors, with those; raises `ValueError` if none does."""
    wanted = [name for name in own if not name.endswith(_COUNTER)]
    probe = wanted[0] if wanted else ""
    ends = (name for name in state if name == probe or name.endswith(f".{probe}"))
    candidates = {name[: len(name) - len(probe)] for name in ends} if wanted else {""}
    complete = [
        prefix
        for prefix in sorted(candidates, key=lambda each: (len(each), each))
        if all(_same(own, state, prefix, n) for n in wanted)
    ]
    if not complete:
        raise ValueError(_misfit(own, state))
    taken = {prefix + name for prefix in complete for name in own}
    rest = {name: value for name, value in state.items() if name not in taken and not name.endswith(_COUNTER)}
    statistics = {name: value for name, value in rest.items() if _kind_of_statistic(name, value)}
    if others := sorted(rest.keys() - statistics.keys()):
        raise ValueError(_differing([], others, []))
    mean, std = _normalisation(statistics, network)
    for prefix in complete:
        yield _Fit(key, prefix, {name: state[prefix + name] for name in own if prefix + name in state}, mean, std)


def _same(own: Mapping[str, Tensor], state: State, prefix: str, name: str) -> bool:
    return prefix + name in state and state[prefix + name].shape == own[name].shape


def _misfit(own: Mapping[str, Tensor], state: State) -> str:
    """Why a set of weights does not fit: a shape, or a name."""
    prefix = _common_prefix(own, state)
    shown = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    shapes = [
        f"{name} is {tuple(shown[name].shape)} in the file and {tuple(own[name].shape)} here"
        for name in sorted(own.keys() & shown.keys())
        if own[name].shape != shown[name].shape
    ]
    if shapes:
        return f"{shapes[0]}; they belong to another architecture, another input shape or another number of classes"
    missing, unknown = sorted(own.keys() - shown.keys()), sorted(shown.keys() - own.keys())
    return _differing(missing, unknown, sorted(state))


def _differing(missing: list[str], unknown: list[str], there: list[str]) -> str:
    """Which tensors a set of weights lacks, each with the nearest of the file, and which belong to no layer.

    ``there`` are the names of the file, shown where none of them is unknown.
    """
    what = f"no tensor {missing[0]!r}" if missing else f"a tensor {unknown[0]!r} that does not belong there"
    lacking = []
    for name in missing[:_MOST_NAMES]:
        near = get_close_matches(name, unknown, n=1)
        lacking.append(f"{name!r} (nearest in the file: {near[0]!r})" if near else repr(name))
    parts = [f"{what} ({len(missing)} missing, {len(unknown)} unknown)"]
    parts += [f"missing: {_some(lacking, len(missing))}"] if missing else []
    parts += [f"unknown: {_some([repr(name) for name in unknown[:_MOST_NAMES]], len(unknown))}"] if unknown else []
    if missing and not unknown:
        parts.append(f"the file has {_some([repr(name) for name in there[:_MOST_NAMES]], len(there))}")
    return "; ".join([*parts, "name the architecture these weights were trained for"])


def _some(names: list[str], of: int) -> str:
    return ", ".join(names) + (f" and {of - len(names)} more" if of > len(names) else "")


def _common_prefix(own: Mapping[str, Tensor], state: State) -> str:
    """The prefix that gives a set the most names in common with the network."""
    prefixes = {name[: len(name) - len(mine)] for mine in own for name in state if name.endswith(f".{mine}")}
    return max(["", *sorted(prefixes)], key=lambda prefix: sum(prefix + name in state for name in own), default="")


def _kind_of_statistic(name: str, value: Tensor) -> str:
    """``"mean"`` or ``"std"`` for a tensor that is one of pixels, by its name and size; else nothing."""
    leaf = name.rpartition(".")[2]
    kind = "mean" if leaf in _MEANS else "std" if leaf in _STDS else ""
    return kind if value.numel() <= _MOST_CHANNELS else ""


def _normalisation(statistics: State, network: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and the standard deviation that a file's model normalises with, where the network does not.

    Raises `ValueError` where the network normalises with other numbers, and where it is not clear what they are.
    """
    layers = [module for module in network.modules() if isinstance(module, Normalise)]
    for name, value in statistics.items():
        for layer in layers:
            if not layer.is_identity:
                _require_alike(name, value, getattr(layer, _kind_of_statistic(name, value)))
    if layers or not statistics:
        return (), ()
    kinds = {_kind_of_statistic(name, value): value.flatten().tolist() for name, value in statistics.items()}
    first, value = min(statistics.items())
    if len(statistics) != 2 or len(kinds) != 2:
        raise ValueError(
            f"{first} is {rounded(value)}: the file's model normalises its images, and a mean and a standard deviation "
            f"are needed for that, not {', '.join(sorted(statistics))}; give mean and std beside architecture (--mean "
            "and --std)"
        )
    if max(kinds["mean"]) > 1 or min(kinds["std"]) <= 0:
        raise ValueError(
            f"{first} is {rounded(value)}, and is no statistic of pixels in [0, 1]; give mean and std beside "
            "architecture (--mean and --std), divided by 255 where they are for bytes"
        )
    return tuple(kinds["mean"]), tuple(kinds["std"])


def _require_alike(name: str, value: Tensor, own: Tensor) -> None:
    mine, theirs = own.flatten().cpu(), value.flatten().float()
    alike = len(mine) == len(theirs) or 1 in (len(mine), len(theirs))  # one number is for all channels
    if not alike or not torch.allclose(mine, theirs, atol=1e-3):
        raise ValueError(
            f"{name} is {rounded(value)}, and the model normalises with {rounded(mine)}; give a model of your own "
            "that normalises as the file does: path/to/file.py:Object"
        )


def _alike(a: _Fit, b: _Fit) -> bool:
    same = (a.mean, a.std) == (b.mean, b.std) and a.state.keys() == b.state.keys()
    return same and all(torch.equal(value, b.state[name]) for name, value in a.state.items())


def _called(fit: _Fit) -> str:
    key = f"{fit.key!r}" if fit.key else "the whole file"
    return f"{key} without the prefix {fit.prefix!r}" if fit.prefix else key


def _listed(sets: Mapping[str, State]) -> str:
    return ", ".join(repr(name) if name else "the file itself (leave key out)" for name in sets)
