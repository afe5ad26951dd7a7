"""Fuzz the suite parser: ``python tests/fuzz/fuzz_suite.py -runs=100000``."""

from fuzzing import fuzz

if __name__ == "__main__":
    fuzz("suite_is_valid_or_refused")
