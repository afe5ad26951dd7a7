"""Peak memory of runs on streamed data: ``python measure_memory.py FOLDER SIDE IMAGES…`` prints a line of JSON each.

A first, small number of images warms up what every run needs once. For each number it makes an ``.npz`` file of uint8
images, half of them for training, without ever having all of them in memory. Then it trains a small network for an
epoch and attacks the test images. ``EPSBENCH_DATA_MEMORY`` is 1M unless it is set.
"""

from __future__ import annotations

import json
import os
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import torch

SUITE = """
[robustness]
data = "data.npz"
training = { epochs = 1, batch_size = 64 }
[robustness.matrix]
model = "small.py:Small"
attack = { name = "pgd", steps = 2, random_start = true }
eps = "8/255"
"""
MODEL = """
from torch import nn
class Small(nn.Module):
    def __init__(self, num_classes: int):
        super().__init__()
        self.pool, self.layer = nn.AdaptiveAvgPool2d(4), nn.Linear(48, num_classes)
    def forward(self, x):
        return self.layer(self.pool(x).flatten(1))
"""


def write(path: Path, images: int, side: int) -> None:
    """An archive of random images and their labels."""
    rng = np.random.RandomState(0)
    with zipfile.ZipFile(path, "w") as archive:
        for split in ("test", "train"):
            count = images // 2
            labels = np.arange(count) % 5
            with archive.open(f"x_{split}.npy", "w", force_zip64=True) as file:
                header = {"descr": "|u1", "fortran_order": False, "shape": (count, 3, side, side)}
                np.lib.format.write_array_header_1_0(file, header)
                for start in range(0, count, 100):
                    some = rng.randint(0, 128, (min(100, count - start), 3, side, side), dtype=np.uint8)
                    some += (25 * labels[start : start + 100]).astype(np.uint8)[:, None, None, None]
                    file.write(some.data)
            with archive.open(f"y_{split}.npy", "w") as file:
                np.lib.format.write_array(file, labels)


def measured(folder: Path, images: int, side: int) -> dict[str, object]:
    """Make the data, run, and say what it cost."""
    from epsbench.harness.options import Options
    from epsbench.harness.plan.suite import load_suite
    from epsbench.harness.records import read_records
    from epsbench.harness.run.machine.memory import peak_bytes, release, reset_peak
    from epsbench.harness.run.runner import run_suite

    folder.mkdir()
    write(folder / "data.npz", images, side)
    (folder / "small.py").write_text(MODEL)
    (folder / "own.toml").write_text(SUITE)
    cpu = torch.device("cpu")
    release()
    reset_peak(cpu)
    began, spent = time.perf_counter(), time.process_time()
    suite = load_suite(str(folder / "own.toml"))
    described, peak = time.process_time() - spent, peak_bytes(cpu)
    options = Options(quiet=True, device="cpu", compile="off", batch_size=64, threads=1)
    run_suite(suite, folder / "results", options)
    (record,) = read_records(folder / "results")
    return {
        "images": images,
        "side": side,
        "streamed": any((folder.parent / "cache" / "decoded").glob("*/index.npz")),
        "peak_bytes": peak_bytes(cpu),
        "peak_bytes_of_describing": peak,
        "seconds": round(time.perf_counter() - began, 1),
        "processor_seconds": round(time.process_time() - spent, 1),
        "processor_seconds_of_describing": round(described, 1),
        "cells": record.status,
        "robust": int(record.verdicts.unpack()[1].sum()) if record.verdicts else None,
        "weights": record.training.get("weights_sha256"),
    }


if __name__ == "__main__":
    place, side = Path(sys.argv[1]), int(sys.argv[2])
    os.environ["EPSBENCH_CACHE"] = str(place / "cache")
    os.environ.setdefault("EPSBENCH_DATA_MEMORY", "1M")
    for number, images in enumerate(sys.argv[3:]):
        print(json.dumps(measured(place / str(number), int(images), side)), flush=True)
