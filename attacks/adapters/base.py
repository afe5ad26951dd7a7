"""What the attacks of other libraries have in common: how a name becomes an attack, and what the library is given.

The contract: the library gets the victim as a module from [0, 1] images to logits that counts every row that goes
forward or backward, and one ε. What it returns is projected on the ball and the box, and judged, by the engine. Global
random generators are seeded for every batch and put back. So verdicts may depend on the batch, unlike those of
epsbench's own attacks.
"""

from __future__ import annotations

import importlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from epsbench.attacks.base import BatchAttack, Network
from epsbench.attacks.norms.base import RowNoise

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LibraryAttack(BatchAttack, ABC):
    """An attack of another library."""

    version: ClassVar[int] = 1

    prefix: ClassVar[str]
    """What a suite writes before the colon; also the name of the extra that installs the library."""

    distribution: ClassVar[str]
    """The name of the library's package on PyPI."""

    module: ClassVar[str]
    """The module that has its attacks."""

    given: ClassVar[frozenset[str]]
    """The library's parameters that this adapter sets, and a suite cannot."""

    attack_name: str
    """The attack's name in the library."""

    options: tuple[tuple[str, Any], ...] = ()
    """Its parameters, those that the adapter does not set."""

    @classmethod
    def named(cls, name: str) -> Callable[..., LibraryAttack]:
        """What makes the attack ``name``: a function with the library's parameters, and the library's version.

        Raises `ValueError` where the library is not installed, or has no such attack that a suite could name.
        """
        attack = cls.find(name)
        every = list(inspect.signature(attack).parameters.values())
        kept = [each for each in every if each.name not in cls.given and each.name != "self"]
        named = [each for each in kept if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]

        def make(norm: Any = None, **options: Any) -> LibraryAttack:
            given = {} if norm is None else {"norm": norm}
            return cls(attack_name=name, options=tuple(sorted(options.items())), **given)

        parameters = [
            each.replace(
                kind=each.KEYWORD_ONLY,
                annotation=each.empty,
                default=None if each.name in cls.defaults else each.default,
            )
            for each in named
        ]
        make.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [*parameters, inspect.Parameter("norm", inspect.Parameter.KEYWORD_ONLY, default=None)]
        )
        make.version = f"{cls.distribution} {cls.installed()} {cls.version}"  # type: ignore[attr-defined]
        return make

    defaults: ClassVar[frozenset[str]] = frozenset()
    """Parameters whose default depends on ε: left out, the adapter computes them."""

    @classmethod
    def library(cls) -> ModuleType:
        """The module with the library's attacks. Raises `ValueError`, naming the extra, where it cannot be imported."""
        try:
            return importlib.import_module(cls.module)
        except ImportError as error:
            remedy = f"pip install 'epsbench[{cls.prefix}]'"
            raise ValueError(f"{cls.distribution} cannot be imported ({error}); install it: {remedy}") from error

    @classmethod
    def installed(cls) -> str:
        """The version of the library."""
        try:
            return version(cls.distribution)
        except PackageNotFoundError:  # a module of that name that is no installed package
            return "unknown"

    @classmethod
    def find(cls, name: str) -> Callable[..., Any]:
        """The library's attack of this name. Raises `ValueError` where there is none."""
        known = dict(cls.attacks(cls.library()))
        if name not in known:
            near = [each for each in known if name.lower() in each.lower() or each.lower() in name.lower()]
            raise ValueError(f"{cls.distribution} has no attack {name!r}; it has {', '.join(near or known)}")
        return known[name]

    @classmethod
    @abstractmethod
    def attacks(cls, library: ModuleType) -> Iterator[tuple[str, Callable[..., Any]]]:
        """The attacks of the library, by name."""

    @abstractmethod
    def images(self, attack: Callable[..., Any], model: Any, x: Tensor, y: Tensor, eps: float) -> Tensor:
        """What the library makes of images ``x`` (N, C, H, W) with labels ``y`` (N,) at one ε."""

    def norm_of_attack(self) -> str | None:
        """The norm that the library's attack is for; None where it takes any, or where that is not known."""
        return None

    def check(self, classes: int) -> None:
        super().check(classes)
        norm = self.norm_of_attack()
        if norm is not None and norm != self.norm.name:
            raise ValueError(f"{self.attack_name} of {self.distribution} is for the norm {norm}, not {self.norm.name}")

    def perturb(self, victim: Network, x: Tensor, y: Tensor, eps: Tensor, noise: RowNoise) -> Tensor:
        attack = self.find(self.attack_name)
        images = self.images(attack, victim, x.clone(), y.clone(), float(eps.flatten()[0]))
        if "eps" in self.given and self.takes_eps(attack):
            return images
        # A smallest change may be larger than ε: then it does not count, which is no mistake of the attack.
        return self.norm.into_ball(x, images.detach().to(x), eps)

    def takes_eps(self, attack: Callable[..., Any]) -> bool:
        """Whether the library's ``attack`` is made for one ε, and not for the smallest change."""
        return bool({"eps", "ε"} & set(inspect.signature(attack).parameters))
