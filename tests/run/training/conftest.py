"""A few digits, for trainings whose result does not matter."""

from __future__ import annotations

import pytest
import torch

from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.data.load import load_data


@pytest.fixture(scope="module")
def few() -> Data:
    return load_data("digits", None, torch.device("cpu"), limit=130)
