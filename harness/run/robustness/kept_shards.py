"""The finished shards of an evaluation, kept on disk, so that a killed run attacks only the other images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from epsbench.harness.files import DAMAGED_ARCHIVE, keep_archive
from epsbench.harness.plan.cell import RobustnessCell, digest
from epsbench.harness.run.attack.merging import Shard
from epsbench.harness.run.robustness.partial import packed, unpacked


@dataclass(frozen=True)
class KeptShards:
    """``RESULTS/partial/shards-<cells>/<first>-<last>.npz``, one file a shard, until the records are written."""

    results: Path
    """The results folder."""

    cells: Sequence[RobustnessCell]
    """The cells of the stream, by ε."""

    weights: str
    """SHA-256 of the weights of the attacked model and of the source: what other weights gave is not used."""

    index: np.ndarray
    """Indices of all targets in the test split, (n,)."""

    images: int = 0
    """How many of the first targets keep their adversarial image."""

    @property
    def folder(self) -> Path:
        """Where they are."""
        return self.results / "partial" / f"shards-{digest([cell.id for cell in self.cells])[:16]}"

    def load(self) -> list[Shard]:
        """Those that are there and belong to these targets, in order; none overlaps with another."""
        kept: list[Shard] = []
        for path in self.folder.glob("*-*.npz"):
            try:
                kept += self._read(path)
            except DAMAGED_ARCHIVE:  # computed again
                continue
        shards: list[Shard] = []
        for shard in sorted(kept, key=lambda each: (each.first, -each.last)):
            if not shards or shard.first >= shards[-1].last:
                shards.append(shard)
        return shards

    def _read(self, path: Path) -> Iterator[Shard]:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        kept = json.loads(str(arrays.pop("kept")))
        first, last = kept["first"], kept["last"]
        mine = np.array_equal(arrays["index"], self.index[first:last]) and kept["weights"] == self.weights
        if not mine or kept["images"] != self.images or last > len(self.index):
            return
        outcomes = []
        for e, (cell, values) in enumerate(zip(self.cells, kept["outcomes"], strict=True)):
            prefix = f"{e}."
            own = {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}
            outcomes.append(unpacked(own, values, cell.eps))
        yield Shard(
            first, last, tuple(outcomes), arrays.get("zero"), kept["device"], kept["seconds"], kept["peak_bytes"]
        )

    def save(self, shard: Shard) -> None:
        """Keep a finished shard. Raises `InputError` where it cannot be written."""
        arrays: dict[str, object] = {"index": self.index[shard.first : shard.last]}
        arrays |= {} if shard.zero is None else {"zero": shard.zero}
        values = []
        for e, outcome in enumerate(shard.outcomes):
            own, kept = packed(outcome)
            arrays |= {f"{e}.{name}": array for name, array in own.items()}
            values.append(kept)
        about = {
            "weights": self.weights, "images": self.images, "first": shard.first, "last": shard.last,
            "device": shard.device, "seconds": shard.seconds, "peak_bytes": shard.peak_bytes, "outcomes": values,
        }  # fmt: skip
        path = self.folder / f"{shard.first}-{shard.last}.npz"
        keep_archive(path, {"kept": json.dumps(about), **arrays}, compressed=True)

    def drop(self) -> None:
        """Delete them: the records are written. What cannot be deleted stays, and is not used again."""
        shutil.rmtree(self.folder, ignore_errors=True)
