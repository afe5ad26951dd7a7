"""Marks of tests that need units for bf16."""

from __future__ import annotations

import pytest
import torch

from epsbench.harness.run.machine.precision import has_units

units_for_bf16 = pytest.mark.skipif(
    not has_units(torch.device("cpu"), "bf16"), reason="without units for bf16 oneDNN packs no weights"
)
BF16 = pytest.param("bf16", marks=units_for_bf16)
