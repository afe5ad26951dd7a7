"""Makes the models importable, the tests being no package, and trains what the cheats are made of once."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pytest
from cheating_vaes import SEEN
from honest_vaes import HONEST


@pytest.fixture(scope="session")
def honest():
    return HONEST["beta 1"]()


@pytest.fixture(autouse=True)
def nothing_seen():
    SEEN.clear()
    yield
    SEEN.clear()
