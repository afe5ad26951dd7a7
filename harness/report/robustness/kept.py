"""Every kept adversarial image, for the page's browser of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from epsbench.harness.records import Record, unpack_bits
from epsbench.harness.report.drawing.images import Arrays, grid, png
from epsbench.harness.report.results.class_names import class_names
from epsbench.harness.report.results.loading import Results
from epsbench.harness.report.results.units import visible
from epsbench.harness.report.robustness.pictures import magnification

MOST_BYTES = 1_500_000
"""PNG bytes of all kept images on a page: a page of 1,000 cells stays below 5 MB."""


def kept(results: Results) -> tuple[list[dict[str, Any]], list[bytes], int]:
    """The kept images by cell, the sheets that they are on, and the number of cells without room on the page.

    A sheet has the images of a cell side by side. The sheets are at ``original``, ``adversarial`` and ``difference``
    in the second list; cells whose originals are equal share that sheet.
    """
    cells: list[dict[str, Any]] = []
    sheets: dict[bytes, int] = {}
    size, left_out = 0, 0
    for record in results.robustness + results.transfer:
        if size > MOST_BYTES:
            left_out += record.pictures
            continue
        arrays = Arrays.read(results.home(record), record) if record.pictures and record.status == "ok" else None
        if arrays is None:
            continue
        original, adversarial = arrays.images("original"), arrays.images("adversarial")
        difference = adversarial - original
        factor = magnification(difference)
        made = [png(grid(images, len(images), 0)) for images in (original, adversarial, 0.5 + factor * difference)]
        size += sum(len(sheet) for sheet in made if sheet not in sheets)
        if size > MOST_BYTES:
            left_out += 1
            continue
        labels, predicted, fooled = (arrays.vector(name) for name in ("labels", "predicted", "fooled"))
        cells.append(
            {
                "id": record.id,
                **{
                    name: sheets.setdefault(sheet, len(sheets))
                    for name, sheet in zip(("original", "adversarial", "difference"), made, strict=True)
                },
                "width": original.shape[3],
                "height": original.shape[2],
                "factor": factor,
                "labels": labels.astype(int).tolist(),
                "predicted": predicted.astype(int).tolist(),
                "names": class_names(record),
                "fooled": fooled.astype(bool).tolist(),
                "parts": _parts(record, fooled.astype(bool)),
                "scores": _scores(arrays, len(original)),
            }
        )
    return cells, list(sheets), left_out


def _parts(record: Record, fooled: np.ndarray) -> Sequence[str]:
    """Which part of an ensemble fooled each kept image: empty texts where none did.

    The kept images are the first ones that the model classifies correctly. Where the verdicts say otherwise, nothing
    is claimed: the list is empty.
    """
    if not record.parts or record.verdicts is None:
        return []
    clean, robust = record.verdicts.unpack()
    places = np.flatnonzero(clean)[: len(fooled)]
    if len(places) != len(fooled) or (robust[places] == fooled).any():
        return []
    breaking = [""] * len(places)
    for part in reversed(record.parts):
        bits = unpack_bits(part.fooled, record.verdicts.n)
        breaking = [visible(part.name) if bits[place] else name for place, name in zip(places, breaking, strict=True)]
    return breaking


def _scores(arrays: Arrays, count: int) -> list[list[list[float]]]:
    """The scores of the classes before and after, for each image; empty where they were not kept."""
    if not {"scores_before", "scores_after"} <= arrays.arrays.keys():
        return []
    pair = [arrays.arrays[name] for name in ("scores_before", "scores_after")]
    if any(array.ndim != 2 or len(array) != count or not np.isfinite(array).all() for array in pair):
        return []
    return [[[round(float(v), 3) for v in array[index]] for array in pair] for index in range(count)]
