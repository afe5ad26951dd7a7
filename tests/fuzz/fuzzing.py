"""Runs a property under atheris, guided by the coverage of harness."""

from __future__ import annotations

import random
import sys
import warnings
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent))

# Hypothesis discards an input that ends before its choices do; libFuzzer begins with inputs of a byte.
PADDING = random.Random(0).randbytes(8192)


def fuzz(name: str) -> None:
    """Fuzz the property; the command line is libFuzzer's: ``-runs=100000``, ``-max_total_time=600``, a corpus folder.

    Needs ``pip install 'epsbench[fuzz]'``.
    """
    with atheris.instrument_imports(include=["harness"]):
        import properties
    warnings.simplefilter("ignore")
    one_input = properties.tested(getattr(properties, name), 1).hypothesis.fuzz_one_input  # type: ignore[attr-defined]
    atheris.Setup(sys.argv, lambda content: one_input(content + PADDING) and None)
    atheris.Fuzz()
