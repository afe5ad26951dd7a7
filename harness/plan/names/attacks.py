"""Whether an attack can be planned: what it says of itself before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from epsbench.attacks.base import GOALS, Attack
from epsbench.harness.errors import FAILURES, InputError
from epsbench.harness.plan.names.raised import what_was_raised

QUERIES = ("gradient", "jacobian", "logits", "nothing", "own", "parts")
"""What an attack may ask for; ``own``: it has a loop of its own, ``parts``: it is an ensemble."""


def check_attack(attack: Attack, name: str, classes: int, data: str) -> None:
    """Raise `InputError` where an attack cannot be used on data with so many classes, or says what no plan can use."""
    try:
        attack.check(classes)
        problem = next(_problems(attack, classes), None)
    except ValueError as error:
        raise InputError(f"{name}: on {data}, {error}") from error
    except FAILURES as error:
        raise InputError(f"{name}: on {data}, it raises {what_was_raised(error)}; correct the file") from error
    if problem:
        raise InputError(f"{name}: {problem}")


def _problems(attack: Attack, classes: int) -> Iterator[str]:
    for _, member in attack.members(classes):
        yield from (f"part {type(member).__name__}: {problem}" for problem in _problems(member, classes))
    if attack.goal not in GOALS:
        yield f'its goal must be "fool" or "smallest", not {attack.goal!r}'
    if attack.query not in QUERIES:
        yield f'its query must be "gradient", "logits" or "jacobian", not {attack.query!r}'
    counts = {"budget() (its steps)": attack.budget(), "attempts() (its restarts)": attack.attempts(classes)}
    for method, count in counts.items():
        if not _is_count(count):
            yield f"{method} gives {count!r}; a whole number from 0 is needed"
    views: Any = attack.views()
    if not (isinstance(views, tuple) and views and all(map(_is_count, views))):
        yield f"views() gives {views!r}; give a tuple of whole numbers, such as (4,)"


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
