"""The architectures that a suite can name, as frozen values. Only ``build`` imports torch.

Every classifier built here takes pixels (N, C, H, W) in [0, 1]: its first layer normalises them.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from epsbench.models.base import Architecture, DataShape
from epsbench.models.file_kinds import cannot_read_weights

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class SmallCNN(Architecture):
    """Two strided 4×4 convolutions and two linear layers: the MNIST network of Wong & Kolter (2018).

    ``width`` is the number of filters of the first convolution (the second has twice as many), ``hidden`` the
    number of units before the logits. It takes images of at least 4×4 pixels.
    """

    version: ClassVar[str] = "ee56e585e0022bfb"

    width: int = 16
    hidden: int = 100

    def __post_init__(self) -> None:
        at_least(1, width=self.width, hidden=self.hidden)

    def check(self, data: DataShape) -> None:
        at_least_pixels(4, "smallcnn", data)

    def build(self, data: DataShape) -> nn.Module:
        from epsbench.models.smallcnn import SmallCNNNetwork

        return SmallCNNNetwork(data, self.width, self.hidden)


@dataclass(frozen=True)
class ResNet18(Architecture):
    """ResNet-18 (He et al., 2016) with a 3×3 convolution of stride 1 as its stem.

    ``stem = "pool"`` adds the 3×3 max-pooling of stride 2 behind it: for CIFAR-10 the first stage then has 16×16
    positions, and an image costs a quarter. ``width`` is the number of filters of the first stage.
    """

    version: ClassVar[str] = "27c5cdb7d6acd4d3"

    width: int = 64
    stem: str = field(default="plain", metadata={"later": True})

    def __post_init__(self) -> None:
        at_least(1, width=self.width)
        if self.stem not in ("plain", "pool"):
            raise ValueError(f'stem is "plain" or "pool", not {self.stem!r}')

    def build(self, data: DataShape) -> nn.Module:
        from epsbench.models.resnet import ResNet18Network

        return ResNet18Network(data, self.width, self.stem)


@dataclass(frozen=True)
class Timm(Architecture):
    """Any classifier of timm, which normalises with timm's mean and standard deviation.

    The input is resized only where the architecture cannot take the data's size.
    """

    version: ClassVar[str] = "1b478a616e197e24"

    name: str
    pretrained: bool = False

    def build(self, data: DataShape) -> nn.Module:
        from epsbench.models.hub import timm_classifier

        return timm_classifier(self.name, data, self.pretrained)


@dataclass(frozen=True)
class TorchVision(Architecture):
    """Any classifier of torchvision, which normalises as its weights were trained, without weights as for ImageNet.

    The input is resized only where the architecture cannot take the data's size.
    """

    version: ClassVar[str] = "1b478a616e197e24"

    name: str
    pretrained: bool = False

    def build(self, data: DataShape) -> nn.Module:
        from epsbench.models.hub import torchvision_classifier

        return torchvision_classifier(self.name, data, self.pretrained)


@dataclass(frozen=True)
class FromFile(Architecture):
    """A named architecture with the weights of a local safetensors or state-dict file.

    ``architecture`` is a name (``"resnet18"``, ``"timm:NAME"``) or a table (``{name = "resnet18", width = 32}``).
    ``key`` names one of several sets of weights in the file, such as ``"state_dict_ema"``. ``mean`` and ``std``, one
    number a channel, are what a network that does not normalise its images itself was trained with; where they are not
    given, a mean and a std among the tensors of the weights count. Mean 0 and std 1 leave the images as they are,
    for an architecture whose code normalises them.
    """

    version: ClassVar[str] = "1b478a616e197e24"

    path: str
    architecture: str | Mapping[str, Any] | Architecture
    key: str = ""
    mean: tuple[float, ...] = field(default=(), metadata={"later": True})
    std: tuple[float, ...] = field(default=(), metadata={"later": True})

    def __post_init__(self) -> None:
        self.inner()
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} numbers and std {len(self.std)}; give both, one a channel")
        if any(value <= 0 for value in self.std):
            raise ValueError("std must be above 0")

    def inner(self) -> Architecture:
        """The architecture the weights belong to, with its parameters."""
        given = self.architecture
        return given if isinstance(given, Architecture) else architecture(given)

    def digest(self) -> str:
        """A digest of the file's content, so that other weights under the same path are another model.

        Raises `ValueError` when the file cannot be read.
        """
        try:
            with Path(self.path).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()[:16]
        except OSError as error:
            raise cannot_read_weights(self.path, error) from error

    def check(self, data: DataShape) -> None:
        self.digest()
        self.inner().check(data)

    def build(self, data: DataShape) -> nn.Module:
        from epsbench.models.checkpoints import load_checkpoint
        from epsbench.models.hub import normalised

        network = self.inner().build(data)
        if self.mean:
            network = normalised(network, self.mean, self.std, data)
        loaded = load_checkpoint(network, Path(self.path), self.key)
        if loaded.mean:
            channels = data.shape[0]  # one number of a file is for all of them
            mean, std = (each * channels if len(each) == 1 else each for each in (loaded.mean, loaded.std))
            network = normalised(network, mean, std, data, source="file")
        network.loaded_from = loaded.chosen  # type: ignore[assignment]
        return network


@dataclass(frozen=True)
class Custom(Architecture):
    """A user's module class or function, called with its parameters and with the facts of the data that it asks for.

    It gets ``shape``, ``classes`` and ``num_classes`` if its signature names them. It must return a module from pixels
    in [0, 1] to logits, which normalises its input itself.
    """

    factory: Callable[..., Any]
    params: tuple[tuple[str, Any], ...] = ()

    def build(self, data: DataShape) -> nn.Module:
        from epsbench.models.hub import verified

        offered = {"shape": data.shape, "classes": data.classes, "num_classes": data.classes}
        accepted = inspect.signature(self.factory).parameters.values()
        greedy = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in accepted)
        wanted = {parameter.name for parameter in accepted}
        # A factory with **kwargs gets only what it names: an unexpected "shape" might be passed on to a layer.
        given = {name: value for name, value in offered.items() if name in wanted}
        unknown = [] if greedy else [name for name, _ in self.params if name not in wanted]
        if unknown:
            raise ValueError(f"{_name_of(self.factory)} takes no parameter {unknown[0]!r}")
        arguments, sys.argv = sys.argv, sys.argv[:1]  # a parser inside reads the arguments of epsbench otherwise
        try:
            network = self.factory(**given | dict(self.params))
        finally:
            sys.argv = arguments
        return verified(network, data, _name_of(self.factory))


BUILT_IN: dict[str, type[Architecture]] = {"smallcnn": SmallCNN, "resnet18": ResNet18}
PREFIXES: dict[str, type[Architecture]] = {"timm": Timm, "torchvision": TorchVision}


def architecture(wanted: str | Mapping[str, Any]) -> Architecture:
    """The architecture of a name, or of a table of ``name`` and parameters. Raises `ValueError` for an unknown one."""
    table = {"name": wanted} if isinstance(wanted, str) else dict(wanted)
    name = table.pop("name", None)
    if not isinstance(name, str):
        raise ValueError("architecture needs a name, such as 'resnet18' or {name = 'resnet18', width = 32}")
    prefix, colon, rest = name.partition(":")
    kind = PREFIXES.get(prefix) if colon else BUILT_IN.get(name)
    if kind is None:
        near = get_close_matches(name, BUILT_IN, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(BUILT_IN)}, timm:NAME, torchvision:NAME"
        raise ValueError(f"unknown architecture {name!r}; {hint}")
    known = {each.name for each in fields(kind)} - ({"name"} if colon else set())
    for key in table:
        if key not in known:
            raise ValueError(f"architecture {name!r} takes no parameter {key!r}; it takes {', '.join(sorted(known))}")
    return kind(**({"name": rest} if colon else {}), **table)


def _name_of(factory: Callable[..., Any]) -> str:
    return getattr(factory, "__qualname__", repr(factory))


def at_least(least: int, **values: int) -> None:
    """Raise `ValueError` naming the first value below ``least``."""
    for name, value in values.items():
        if value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")


def at_least_pixels(least: int, model: str, data: DataShape) -> None:
    """Raise `ValueError` when the data's images are smaller than ``least`` pixels a side."""
    _, height, width = data.shape
    if min(height, width) < least:
        raise ValueError(f"{model} needs images of at least {least}×{least} pixels; {data.name} has {height}×{width}")
