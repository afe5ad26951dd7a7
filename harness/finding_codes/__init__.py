"""Every code that a finding may have: what it means and what to do about it. ``docs/audits.md`` repeats the table."""

from __future__ import annotations

from epsbench.harness.finding_codes.attacks import ATTACK, CELLS
from epsbench.harness.finding_codes.code import Code
from epsbench.harness.finding_codes.generative import GENERATIVE_MODEL
from epsbench.harness.finding_codes.models import GRADIENTS, MODEL, OWN_GRADIENTS
from epsbench.harness.finding_codes.outputs import OUTPUTS, SPEED

__all__ = ["CODES", "OWN_GRADIENTS", "Code"]

CODES: dict[str, Code] = {**MODEL, **GENERATIVE_MODEL, **GRADIENTS, **ATTACK, **CELLS, **OUTPUTS, **SPEED}
"""Code → its meaning, in the order of the documentation."""
