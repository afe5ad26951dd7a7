"""Fuzz the report renderer and the comparison: ``python tests/fuzz/fuzz_report.py -runs=100000``."""

from fuzzing import fuzz

if __name__ == "__main__":
    fuzz("report_is_rendered_or_refused")
