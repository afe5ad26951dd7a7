"""What the parts of an ensemble show about the model: the warnings of AutoAttack, as findings."""

from __future__ import annotations

from collections.abc import Iterator

from epsbench.attacks.base import Attack
from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.attack.ledger import Outcome

SHARE, FEWEST = 0.002, 2  # of all attacked images, and in number: AutoAttack's own threshold


def audit_ensemble(attack: Attack, outcome: Outcome, classes: int) -> Iterator[Finding]:
    """Findings about an ensemble's parts at one ε."""
    if adapted := attack.adapted(classes):
        yield finding("adapted-to-few-classes", f"the data has {classes} classes", classes=classes, adapted=adapted)
    followed = 0
    for (name, member), part in zip(attack.members(classes), outcome.parts, strict=True):
        fooled, n = len(part.fooled), len(outcome.fooled)
        if member.query == "logits" and followed and fooled >= max(FEWEST, SHARE * n):
            fact = f"{name} fools {fooled} images that withstood {followed} attacks along gradients"
            yield finding("black-box-finds-more", fact, part=name, fooled=fooled, attacked=part.attacked)
        followed += member.query in ("gradient", "jacobian")
