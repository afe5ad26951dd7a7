"""Attacks of adversarial-library (Rony and Ben Ayed, 2020), as ``adv-lib:pgd_linf``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from epsbench.attacks.adapters.base import LibraryAttack

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class AdvLib(LibraryAttack):
    """An attack of adversarial-library, untargeted."""

    version: ClassVar[int] = 1
    prefix: ClassVar[str] = "adv-lib"
    distribution: ClassVar[str] = "adv-lib"
    module: ClassVar[str] = "adv_lib.attacks"
    given: ClassVar[frozenset[str]] = frozenset(
        {"model", "inputs", "labels", "eps", "ε", "norm", "targeted", "callback", "targets"}
    )

    @classmethod
    def attacks(cls, library: ModuleType) -> Iterator[tuple[str, Callable[..., Any]]]:
        for name, each in vars(library).items():
            if inspect.isfunction(each) and {"model", "inputs", "labels"} <= set(inspect.signature(each).parameters):
                yield name, each

    def norm_of_attack(self) -> str | None:
        parts = self.attack_name.split("_")
        ends = {"linf": "linf", "l2": "l2", "l1": "l1", "l0": "l0", "ddn": "l2", "sigma": "l0"}
        return next((ends[part] for part in parts if part in ends), None)

    def images(self, attack: Callable[..., Any], model: Any, x: Tensor, y: Tensor, eps: float) -> Tensor:
        known = inspect.signature(attack).parameters
        given: dict[str, Any] = dict(self.options)
        given |= {key: eps for key in ("eps", "ε") if key in known}
        if "norm" in known:
            norm = known["norm"].default
            given["norm"] = self.norm.name if isinstance(norm, str) else float(self.norm.name.removeprefix("l"))
        images: Tensor = attack(model, x, y, **given)
        return images
