"""Images that the functions of the package are tried on."""

from __future__ import annotations

import pytest

N = 80


@pytest.fixture(scope="module")
def x(digits):
    return digits[0][:N]


@pytest.fixture(scope="module")
def y(digits):
    return digits[1][:N]
