"""AutoAttack: the parameter-free ensemble by which this field compares defenses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from epsbench.attacks.apgd import APGD
from epsbench.attacks.apgd_t import APGDT
from epsbench.attacks.base import Attack
from epsbench.attacks.ensemble import Ensemble
from epsbench.attacks.fab import FAB
from epsbench.attacks.fab_t import FABT
from epsbench.attacks.losses import DLR, LogitDifference, Margin
from epsbench.attacks.square import Square

VERSIONS = ("standard", "plus", "rand")


@dataclass(frozen=True, kw_only=True)
class AutoAttack(Ensemble):
    """AutoAttack (Croce and Hein, 2020, section 6).

    - ``standard``: APGD on the cross-entropy, APGD-T with 9 targets, FAB-T with 9 targets, Square with 5,000 queries.
    - ``plus``: APGD on the cross-entropy and on DLR with 5 restarts each, FAB with 5 restarts, Square, APGD-T, FAB-T.
    - ``rand``, for models that are random: APGD on the cross-entropy and on DLR, with 20 gradients a step.

    Under L1, standard has 5 starts of APGD and 5 targets of APGD-T (Croce and Hein, 2021, section 5).

    With fewer classes than targets all wrong ones are targets. Targeted DLR is constant towards the least likely of
    three: there APGD-T follows the difference of the two logits. With two classes DLR is not defined: the margin takes
    its place, and APGD on the margin that of APGD-T.
    """

    record_version: ClassVar[int] = 2
    """`version` of other attacks, whose name is a parameter here."""

    parts: ClassVar[tuple[Attack, ...]] = ()  # type: ignore[misc]

    version: str = "standard"  # type: ignore[misc, assignment]
    """``standard``, ``plus`` or ``rand``."""

    def __post_init__(self) -> None:
        if self.version not in VERSIONS:
            raise ValueError(f"version must be one of {', '.join(VERSIONS)}, not {self.version!r}")
        self.requires_norm("linf", "l2", "l1")

    def adapted(self, classes: int) -> dict[str, Any]:
        changed, usual = super().adapted(classes), {name for name, _ in self._members()}
        if classes == 2:
            changed |= {name: "apgd-margin" for name in ("apgd-t", "apgd-dlr") if name in usual}
        elif classes == 3 and "apgd-t" in usual:
            changed["apgd-t"] |= {"loss": "logit-difference"}
        return changed

    def members(self, classes: int) -> tuple[tuple[str, Attack], ...]:
        members: list[tuple[str, Attack]] = []
        for name, part in self._members():
            if classes == 2 and name in ("apgd-dlr", "apgd-t"):
                restarts = part.restarts if isinstance(part, APGD) else 1
                name, part = "apgd-margin", APGD(loss=Margin(), restarts=restarts, norm=self.norm)
            elif isinstance(part, APGDT):
                # All wrong classes where there are not more of them; `adapted` says so.
                targets = part.targets if part.targets and part.targets < classes else None
                part = replace(part, targets=targets, loss=LogitDifference() if classes == 3 else part.loss)
            if name not in dict(members):
                members.append((name, part))
        return tuple(members)

    def _members(self) -> tuple[tuple[str, Attack], ...]:
        norm = self.norm
        sparse = norm.name == "l1"
        apgd_t, fab_t, square = APGDT(norm=norm, targets=5 if sparse else None), FABT(norm=norm), Square(norm=norm)
        if self.version == "standard":
            apgd = APGD(norm=norm, restarts=5 if sparse else 1)
            return (("apgd-ce", apgd), ("apgd-t", apgd_t), ("fab-t", fab_t), ("square", square))
        if self.version == "rand":
            return ("apgd-ce", APGD(samples=20, norm=norm)), ("apgd-dlr", APGD(loss=DLR(), samples=20, norm=norm))
        return (
            ("apgd-ce", APGD(restarts=5, norm=norm)),
            ("apgd-dlr", APGD(loss=DLR(), restarts=5, norm=norm)),
            ("fab", FAB(restarts=5, norm=norm)),
            ("square", square),
            ("apgd-t", apgd_t),
            ("fab-t", fab_t),
        )
