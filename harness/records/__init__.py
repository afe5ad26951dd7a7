"""The record of a finished cell: its format (`format`), and its files (`files`). No torch.

A record is a JSON file, ``RESULTS/cells/<id>.json``. Its pictures, if it has any, are in ``RESULTS/pictures/<id>.npz``.
``docs/records.md`` documents every field.
"""

from __future__ import annotations

from epsbench.harness.records.files import (
    LARGEST_RECORD,
    find_record,
    images_path,
    is_there,
    kept_images,
    read_pictures,
    read_record,
    read_records,
    record_path,
    write_pictures,
    write_record,
)
from epsbench.harness.records.format import (
    Distances,
    Failure,
    Metric,
    Part,
    Record,
    Shard,
    Status,
    Verdicts,
    pack_bits,
    unpack_bits,
    within,
)

__all__ = [
    "LARGEST_RECORD", "Distances", "Failure", "Metric", "Part", "Record", "Shard", "Status", "Verdicts",
    "find_record", "images_path", "is_there", "kept_images", "pack_bits", "read_pictures", "read_record",
    "read_records", "record_path", "unpack_bits", "within", "write_pictures", "write_record",
]  # fmt: skip
