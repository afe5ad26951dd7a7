"""What the parts of an ensemble show about the model: the warnings of AutoAttack, as findings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from epsbench.attacks.base import Attack
from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.attack.ledger import Outcome

SHARE, FEWEST = 0.002, 2  # of all attacked images, and in number: AutoAttack's own threshold


def audit_ensemble(attack: Attack, outcome: Outcome, classes: int) -> Iterator[Finding]:
    """Findings about an ensemble's parts at one ε."""
    if adapted := attack.adapted(classes):
        fact = f"the data has {classes} classes, so the attack has {_in_words(adapted)}"
        yield finding("adapted-to-few-classes", fact, classes=classes, adapted=adapted)
    followed = 0
    for (name, member), part in zip(attack.members(classes), outcome.parts, strict=True):
        fooled, n = len(part.fooled), len(outcome.fooled)
        if member.query == "logits" and followed and fooled >= max(FEWEST, SHARE * n):
            fact = f"{name} fools {fooled} images that withstood {followed} attacks along gradients"
            yield finding("black-box-finds-more", fact, part=name, fooled=fooled, attacked=part.attacked)
        followed += member.query in ("gradient", "jacobian")


def _in_words(adapted: Mapping[str, Any]) -> str:
    """What `Attack.adapted` gives, as a text: parameters by their values, parts by what takes their place."""
    values = {key: value for key, value in adapted.items() if not isinstance(value, Mapping | str)}
    own = [f"{key} = {value}" for key, value in values.items()]
    instead = [f"{value} in place of {key}" for key, value in adapted.items() if isinstance(value, str)]
    parts = [
        f"{key} with {', '.join(f'{name} = {value}' for name, value in changes.items())}"
        for key, changes in adapted.items() if isinstance(changes, Mapping)
    ]  # fmt: skip
    return "; ".join([*own, *instead, *parts])
