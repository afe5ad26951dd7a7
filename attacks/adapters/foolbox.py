"""Attacks of Foolbox (Rauber et al., 2020), as ``foolbox:LinfPGD``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from epsbench.attacks.adapters.base import LibraryAttack

if TYPE_CHECKING:
    from torch import Tensor

_PREFIXES = {"Linf": "linf", "LInf": "linf", "L2": "l2", "L1": "l1", "L0": "l0"}
_OTHER = {"PGD": "linf", "MIFGSM": "linf", "FGSM": "linf", "FGM": "l2", "DDNAttack": "l2", "BoundaryAttack": "l2",
          "EADAttack": "l1", "NewtonFoolAttack": "l2", "GenAttack": "linf"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Foolbox(LibraryAttack):
    """An attack of Foolbox, against misclassification; one for the smallest change is cut off at ε."""

    version: ClassVar[int] = 1
    prefix: ClassVar[str] = "foolbox"
    distribution: ClassVar[str] = "foolbox"
    module: ClassVar[str] = "foolbox.attacks"
    given: ClassVar[frozenset[str]] = frozenset({"distance", "init_attack", "tensorboard", "eps"})

    @classmethod
    def attacks(cls, library: ModuleType) -> Iterator[tuple[str, Callable[..., Any]]]:
        for name, each in vars(library).items():
            if inspect.isclass(each) and not inspect.isabstract(each) and hasattr(each, "run"):
                yield name, each

    def norm_of_attack(self) -> str | None:
        begins = (norm for prefix, norm in _PREFIXES.items() if self.attack_name.startswith(prefix))
        return next(begins, _OTHER.get(self.attack_name))

    def takes_eps(self, attack: Callable[..., Any]) -> bool:
        return True  # Foolbox takes ε at the call, and clips to it

    def images(self, attack: Callable[..., Any], model: Any, x: Tensor, y: Tensor, eps: float) -> Tensor:
        import foolbox

        known = inspect.signature(attack).parameters
        given: dict[str, Any] = dict(self.options)
        if "distance" in known and hasattr(foolbox.distances, self.norm.name):
            given["distance"] = getattr(foolbox.distances, self.norm.name)
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
        _, clipped, _ = attack(**given)(wrapped, x, foolbox.criteria.Misclassification(y), epsilons=eps)
        images: Tensor = clipped
        return images
