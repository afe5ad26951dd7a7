"""Peak memory of evaluations on streamed data: ``python measure_evaluation_memory.py FOLDER SIDE WAY IMAGES…``.

A way is ``name`` (`epsbench.evaluate` on a file, and `save_images`), ``dataset`` or ``loader`` (the same on a Dataset
or a DataLoader), ``save`` (``epsbench evaluate --save-images``) or ``score`` (``--score``). Prints a line of JSON for
each number of images; the first, a small one, warms up what every run needs once. ``EPSBENCH_DATA_MEMORY`` is 1M unless
it is set.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import torch
from measure_memory import MODEL, write
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

ATTACK = "pgd:steps=2,random_start=true"


class Noise(Dataset):
    """Images that are made when they are asked for."""

    def __init__(self, images: int, side: int) -> None:
        self.images, self.side = images, side

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        generator = torch.Generator().manual_seed(index)
        return torch.rand(3, self.side, self.side, generator=generator), index % 5


def evaluated(way: str, model: nn.Module, images: int, side: int) -> object:
    """By `epsbench.evaluate`; the adversarial images are saved."""
    import epsbench

    noise = Noise(images, side)
    x = {"name": "data.npz", "dataset": noise, "loader": DataLoader(noise, 64)}[way]
    result = epsbench.evaluate(model, x, attack=ATTACK, eps="8/255", batch_size=64, compile="off")
    result.save_images("adversarial.npz")
    return result[0].record.status


def called(*arguments: str) -> object:
    """The exit code of ``epsbench evaluate``."""
    from epsbench.harness.cli import main

    sys.argv = ["epsbench", "evaluate", "small.py:Small", "--weights", "w.pt", "--data", "data.npz", "--eps", "8/255",
                "--batch-size", "64", "--threads", "1", "--quiet", *arguments]  # fmt: skip
    try:
        main()
    except SystemExit as stopped:
        return stopped.code
    return 0


def measured(folder: Path, way: str, images: int, side: int) -> dict[str, object]:
    """Make the data, evaluate a small untrained network, and say what it cost."""
    from epsbench.harness.run.machine.memory import peak_bytes, release, reset_peak

    folder.mkdir(parents=True)
    os.chdir(folder)
    write(Path("data.npz"), 2 * images, side)  # half of them are training images
    Path("small.py").write_text(MODEL)
    names: dict[str, type[nn.Module]] = {}
    exec(MODEL, names)
    torch.manual_seed(0)
    model = names["Small"](5).eval()
    torch.save(model.state_dict(), "w.pt")
    cpu = torch.device("cpu")
    if way == "score":
        called("--attack", ATTACK, "--save-images", "adversarial.npz", "--out", "first")
    release()
    reset_peak(cpu)
    spent = time.process_time()
    if way == "save":
        outcome = called("--attack", ATTACK, "--save-images", "adversarial.npz", "--out", "results")
    elif way == "score":
        outcome = called("--score", "adversarial.npz", "--out", "results")
    else:
        outcome = evaluated(way, model, images, side)
    return {"way": way, "images": images, "side": side, "pixels_bytes": 12 * images * side**2,
            "peak_bytes": peak_bytes(cpu), "processor_seconds": round(time.process_time() - spent, 1),
            "outcome": outcome}  # fmt: skip


if __name__ == "__main__":
    place, side, way = Path(sys.argv[1]).absolute(), int(sys.argv[2]), sys.argv[3]
    os.environ["EPSBENCH_CACHE"] = str(place / "cache")
    os.environ.setdefault("EPSBENCH_DATA_MEMORY", "1M")
    torch.set_num_threads(1)
    for number, images in enumerate(sys.argv[4:]):
        print(json.dumps(measured(place / f"{way}{number}", way, int(images), side)), flush=True)
