"""docs/engine.md says which attacks know a norm and have a parameter; the attacks decide."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from epsbench.attacks.norms import NORMS
from epsbench.harness.errors import InputError
from epsbench.harness.plan.names.kinds import KINDS
from epsbench.harness.plan.names.registry import built_in_defaults, make, name_with_parameters

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "engine.md").read_text(encoding="utf-8")
NAMES = [name for name in KINDS["attack"].built_in if name != "ensemble"]  # which needs parts


def knows(name: str, norm: str) -> bool:
    try:
        make("attack", name_with_parameters("attack", name, ROOT), ROOT, norm=norm).check(10)
    except (InputError, ValueError):
        return False
    return True


@pytest.mark.parametrize("norm", NORMS)
def test_the_table_of_norms_names_the_attacks_that_do_not_know_one(norm):
    (cell,) = re.findall(rf"^\| `{norm}` \| [^|]+ \| ([^|]+) \|$", DOCS, re.MULTILINE)
    listed = set(re.findall(r"`([\w-]+)`", cell))
    unknown = set(NAMES) - listed if cell.startswith("all but") else listed
    assert unknown == {name for name in NAMES if not knows(name, norm)}


@pytest.mark.parametrize("parameter", ["target", "samples"])
def test_the_table_of_variants_names_the_attacks_with_a_parameter(parameter):
    (cell,) = re.findall(rf"^\| `{parameter}` \| ([^|]+) \| [^|]+ \|$", DOCS, re.MULTILINE)
    targeted = {"apgd-t", "apgd-t-search"} if parameter == "target" else set()  # they choose their targets themselves
    having = {name for name in NAMES if parameter in built_in_defaults("attack", name)}
    assert set(re.findall(r"`([\w-]+)`", cell)) == having - targeted
