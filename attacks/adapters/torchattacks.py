"""Attacks of torchattacks (Kim, 2020), as ``torchattacks:PGDL2``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from epsbench.attacks.adapters.base import LibraryAttack

if TYPE_CHECKING:
    from torch import Tensor

_NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
_OTHER = {
    **dict.fromkeys(("PGDL2", "PGDRSL2", "CW", "DeepFool"), "l2"),
    **dict.fromkeys(("EADL1", "EADEN", "SparseFool"), "l1"),
    **dict.fromkeys(("JSMA", "OnePixel", "Pixle"), "l0"),
}
"""The norms of attacks that are not for L∞."""
_OBJECTS = ("LGV", "MultiAttack", "Attack")  # they take objects, which a suite cannot name


@dataclass(frozen=True, kw_only=True)
class TorchAttacks(LibraryAttack):
    """An attack of torchattacks, in its default mode."""

    version: ClassVar[int] = 1
    prefix: ClassVar[str] = "torchattacks"
    distribution: ClassVar[str] = "torchattacks"
    module: ClassVar[str] = "torchattacks"
    given: ClassVar[frozenset[str]] = frozenset({"model", "eps", "norm", "n_classes", "verbose"})

    @classmethod
    def attacks(cls, library: ModuleType) -> Iterator[tuple[str, Callable[..., Any]]]:
        for name, each in vars(library).items():
            if inspect.isclass(each) and name not in _OBJECTS:
                yield name, each

    def norm_of_attack(self) -> str | None:
        if "norm" in inspect.signature(self.find(self.attack_name)).parameters:
            return None
        return _OTHER.get(self.attack_name, "linf")

    def images(self, attack: Callable[..., Any], model: Any, x: Tensor, y: Tensor, eps: float) -> Tensor:
        known = inspect.signature(attack).parameters
        given: dict[str, Any] = dict(self.options)
        given |= {"eps": eps} if "eps" in known else {}
        given |= {"norm": _NORMS.get(self.norm.name, self.norm.name)} if "norm" in known else {}
        given |= {"n_classes": model(x[:1]).shape[1]} if "n_classes" in known else {}
        images: Tensor = attack(model, **given)(x, y)
        return images
