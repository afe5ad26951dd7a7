"""Attacks of the Adversarial Robustness Toolbox (Nicolae et al., 2018), as ``art:ProjectedGradientDescentPyTorch``."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from epsbench.attacks.adapters.base import LibraryAttack

if TYPE_CHECKING:
    from torch import Tensor

_NORMS: dict[str, float] = {"linf": math.inf, "l2": 2, "l1": 1}
_STEP = 0.25  # of ε: the library's default, 0.1, is larger than most ε


@dataclass(frozen=True, kw_only=True)
class Art(LibraryAttack):
    """An evasion attack of ART, against misclassification."""

    version: ClassVar[int] = 1
    prefix: ClassVar[str] = "art"
    distribution: ClassVar[str] = "adversarial-robustness-toolbox"
    module: ClassVar[str] = "art.attacks.evasion"
    given: ClassVar[frozenset[str]] = frozenset(
        {
            "estimator",
            "classifier",
            "eps",
            "norm",
            "batch_size",
            "verbose",
            "summary_writer",
            "tensor_board",
            "targeted",
        }
    )
    defaults: ClassVar[frozenset[str]] = frozenset({"eps_step"})

    @classmethod
    def attacks(cls, library: ModuleType) -> Iterator[tuple[str, Callable[..., Any]]]:
        for name, each in vars(library).items():
            if inspect.isclass(each) and {"estimator", "classifier"} & set(inspect.signature(each).parameters):
                yield name, each

    def norm_of_attack(self) -> str | None:
        ends = {"L0Method": "l0", "L2Method": "l2", "LInfMethod": "linf"}
        return next((norm for end, norm in ends.items() if self.attack_name.endswith(end)), None)

    def images(self, attack: Callable[..., Any], model: Any, x: Tensor, y: Tensor, eps: float) -> Tensor:
        import torch
        from art.estimators.classification import PyTorchClassifier

        classes = model(x[:1]).shape[1]
        wrapped = PyTorchClassifier(
            model, torch.nn.CrossEntropyLoss(), tuple(x.shape[1:]), classes, clip_values=(0, 1),
            device_type="gpu" if x.is_cuda else "cpu",
        )  # fmt: skip
        known = inspect.signature(attack).parameters
        given = {key: value for key, value in self.options if value is not None or key not in self.defaults}
        ours = {
            "eps": eps, "norm": _NORMS.get(self.norm.name), "batch_size": len(x), "verbose": False, "targeted": False,
            "eps_step": given.get("eps_step", _STEP * eps), "summary_writer": False,
        }  # fmt: skip
        given |= {key: value for key, value in ours.items() if key in known}
        one_hot = torch.nn.functional.one_hot(y, classes).cpu().numpy()
        images = attack(wrapped, **given).generate(x.cpu().numpy(), one_hot)
        return torch.from_numpy(images).to(x)
