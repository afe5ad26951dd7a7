"""Makes the zoo importable, the tests being no package, and trains what several of them break."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pytest
from torch import nn


@pytest.fixture(scope="module")
def honest() -> nn.Module:
    """A network that normalises inside and is right on most digits; broken ones are made around it."""
    from zoo import HONEST

    return HONEST["batch norm, max-pool"]()
