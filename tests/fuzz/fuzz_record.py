"""Fuzz the record reader: ``python tests/fuzz/fuzz_record.py -runs=100000``."""

from fuzzing import fuzz

if __name__ == "__main__":
    fuzz("record_is_read_or_refused")
