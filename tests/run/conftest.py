"""Makes `small` importable, the tests being no package; the data, a suite and a finished run for many tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pytest
import torch

from epsbench.harness.plan.suite import Suite
from epsbench.harness.records import Record
from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.data.load import load_data


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Suite, Path, dict[str, Record]]:
    from small import run, suite_of

    folder = tmp_path_factory.mktemp("finished")
    suite = suite_of(folder)
    code, records = run(suite, folder / "results")
    assert code == 0
    return suite, folder / "results", records


@pytest.fixture(scope="module")
def data(request: pytest.FixtureRequest) -> Data:
    """The digits; of each split at most as many as the file of tests says with ``LIMIT``."""
    return load_data("digits", None, torch.device("cpu"), getattr(request.module, "LIMIT", None))


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    from small import TINY, suite_of

    return suite_of(tmp_path, TINY)
