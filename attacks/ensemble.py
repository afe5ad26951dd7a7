"""Ensembles: attacks one after the other, each on the images that withstood those before."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

from epsbench.attacks.base import Attack, State
from epsbench.attacks.losses import Loss
from epsbench.attacks.rows import Answer, Rows

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Ensemble(Attack):
    """Attacks one after the other. An image that one of them fools is not attacked by those after it."""

    version: ClassVar[int] = 1

    query: ClassVar[str] = "parts"

    parts: tuple[Attack, ...]
    """The attacks, in their order. They get the ensemble's norm."""

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError('parts is empty; name at least one attack, such as parts = ["pgd", "square"]')
        if any(each.query == "parts" for each in self.parts):
            raise ValueError("parts names an ensemble; name its attacks instead")

    def step(self, rows: Rows, answer: Answer, state: State) -> tuple[Tensor, State]:
        raise TypeError("an ensemble takes no step: its parts do")

    def check(self, classes: int) -> None:
        for name, part in self.members(classes):
            try:
                part.check(classes)
            except ValueError as error:
                raise ValueError(f"part {name}: {error}") from error

    def adapted(self, classes: int) -> dict[str, Any]:
        changes = {name: part.adapted(classes) for name, part in self.members(classes)}
        return {name: change for name, change in changes.items() if change}

    def members(self, classes: int) -> tuple[tuple[str, Attack], ...]:
        return tuple((title(part), replace(part, norm=self.norm)) for part in self.parts)

    def losses(self, classes: int) -> tuple[Loss, ...]:
        return tuple(dict.fromkeys(loss for _, part in self.members(classes) for loss in part.losses(classes)))

    def gradients(self, classes: int) -> int:
        return sum(part.gradients(classes) for _, part in self.members(classes))

    def forwards(self, classes: int) -> int:
        return sum(part.forwards(classes) for _, part in self.members(classes))


def title(attack: Attack) -> str:
    """A short name of an attack: its class in lower case, with the fields that differ from their defaults."""
    changed = [
        f"{each.name}={value!r}"
        for each in fields(attack)
        if each.name != "norm" and (value := getattr(attack, each.name)) != each.default
    ]
    name = type(attack).__name__.lower()
    return f"{name}({', '.join(changed)})" if changed else name
