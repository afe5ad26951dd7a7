"""The finished parts of an ensemble, kept on disk, so that a killed run goes on after the last of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from epsbench.harness.errors import InputError
from epsbench.harness.files import DAMAGED_ARCHIVE, Chunked, keep_archive
from epsbench.harness.kept_images import Stored
from epsbench.harness.plan.cell import RobustnessCell
from epsbench.harness.plan.data.budget import budget
from epsbench.harness.run.attack.kept_images import blank_images, in_parts, let_go
from epsbench.harness.run.attack.ledger import ARRAYS, COUNTS, Outcome, Part
from epsbench.harness.run.attack.returned import Returned


@dataclass(frozen=True)
class PartialResults:
    """`epsbench.harness.run.attack.ensemble.Store` in ``RESULTS/partial/<id>.npz``, one file a cell."""

    results: Path
    """The results folder."""

    cells: Sequence[RobustnessCell]
    """The cells of the ensemble, one an ε."""

    weights: str
    """SHA-256 of the weights of the attacked model and of the source: what other weights gave is not used."""

    def path(self, eps: Fraction) -> Path:
        """The file of the cell with this ε."""
        cell = next(cell for cell in self.cells if cell.eps == eps)
        return self.results / "partial" / f"{cell.id}.npz"

    def load(self, eps: Fraction) -> Outcome | None:
        """What was kept at this ε; None where nothing was, where it is damaged, or where the weights differ."""
        try:
            with np.load(self.path(eps), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files if name != "images"}
                names = set(file.files)
            kept = json.loads(str(arrays.pop("kept")))
        except DAMAGED_ARCHIVE:  # the parts are computed again
            return None
        if kept.get("weights") != self.weights or not {*ARRAYS, "images"} <= names:
            return None  # of another model, or by an epsbench that kept other fields
        images = _images(self.path(eps))
        return None if images is None else unpacked(arrays | {"images": images.numpy()}, kept, eps)

    def save(self, outcome: Outcome) -> None:
        """Keep the outcome after a further part. Raises `InputError` where it cannot be written."""
        arrays, kept = packed(outcome)
        content = {"kept": json.dumps(kept | {"weights": self.weights}), **arrays}
        keep_archive(self.path(outcome.eps), content, compressed=True)

    def drop(self, eps: Fraction) -> None:
        """Delete what was kept at this ε: its record is written."""
        self.path(eps).unlink(missing_ok=True)


def _images(path: Path) -> Tensor | None:
    """The images (k, C, H, W) of an archive, in a file of their own where they are large; None where it is damaged."""
    try:
        stored = Stored(path)
    except DAMAGED_ARCHIVE:
        return None
    images, at = blank_images(stored.shape, stored.nbytes > budget()), 0
    try:
        for part in stored.chunks():
            images[at : at + len(part)] = torch.from_numpy(part.copy())
            at += len(part)
            let_go(images)
    except InputError:
        return None
    return images


def packed(outcome: Outcome) -> tuple[dict[str, Any], dict[str, Any]]:
    """An outcome as arrays by name, some of them `Chunked`, and as values for JSON."""
    values: dict[str, Any] = {
        "counts": {name: getattr(outcome, name) for name in COUNTS},
        "radii": outcome.radii,
        "returned": {each.name: getattr(outcome.returned, each.name) for each in fields(Returned)},
        "parts": [
            {each.name: getattr(part, each.name) for each in fields(Part) if each.name != "fooled"}
            for part in outcome.parts
        ],
    }
    images = outcome.images
    whole = Chunked(tuple(images.shape), np.float32, lambda: (images[rows].numpy() for rows in in_parts(images)))
    arrays: dict[str, Any] = {name: getattr(outcome, name) for name in ARRAYS} | {"images": whole}
    arrays |= {f"part{number}": part.fooled for number, part in enumerate(outcome.parts)}
    arrays |= {} if outcome.distances is None else {"distances": outcome.distances}
    return arrays, values


def unpacked(arrays: Mapping[str, np.ndarray], values: Mapping[str, Any], eps: Fraction) -> Outcome:
    """The outcome that `packed` took apart."""
    each: dict[str, Any] = {name: arrays[name] for name in ARRAYS}
    outcome = Outcome(eps=eps, images=torch.from_numpy(arrays["images"]), **each)
    for name in COUNTS:
        setattr(outcome, name, values["counts"][name])
    outcome.radii, outcome.distances = values.get("radii", 1), arrays.get("distances")
    outcome.returned = Returned(**values["returned"])
    outcome.parts = [Part(fooled=arrays[f"part{n}"], **part) for n, part in enumerate(values["parts"])]
    return outcome
