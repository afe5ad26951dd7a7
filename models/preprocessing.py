"""How a library prepares the images of a network: normalisation, and the resize and crop of its published accuracy.

The network normalises; resize and crop belong to the data. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Preprocessing:
    """What happens to images before a network of another library."""

    source: str
    """Who says so: ``"timm"``, ``"torchvision"``, ``"suite"``, or ``"file"`` for numbers in a file of weights."""

    mean: tuple[float, ...]
    """What the network subtracts from each channel of pixels in [0, 1]."""

    std: tuple[float, ...]
    """What it then divides by."""

    resize: int = 0
    """The length in pixels that the shorter side was scaled to; 0 where it is not published."""

    crop: int = 0
    """The side in pixels of the square that was then cut out of the middle; 0 where it is not published."""

    interpolation: str = ""
    """How images were scaled: ``"bilinear"``, ``"bicubic"``."""

    scaled_to: tuple[int, ...] = ()
    """(height, width) that the network is given, where it does not take the data's size; scaled bilinearly."""

    def record(self) -> dict[str, Any]:
        """As in a record's ``training.preprocessing``."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items() if value}


def preprocessing_text(table: Mapping[str, Any]) -> str:
    """One sentence about what `Preprocessing.record` gives."""
    text = f"normalises with mean {_numbers(table['mean'])} and std {_numbers(table['std'])} ({table['source']})"
    if table.get("scaled_to"):
        text += f"; scales images to {'×'.join(map(str, table['scaled_to']))} itself"
    if table.get("crop"):
        text += f"; published for resize {table['resize']} ({table['interpolation']}) and crop {table['crop']}"
    return text


def differences(table: Mapping[str, Any], data: Mapping[str, Any], size: tuple[int, int]) -> list[str]:
    """In what the data's own resize, crop and interpolation differ from those that a network was published for.

    ``data`` are the parameters of the data, and ``size`` is (height, width) of its images.
    """
    if not table.get("crop"):
        return []
    if not any(data.get(key) for key in ("resize", "crop")):
        wanted = table["crop"]
        return [] if size == (wanted, wanted) else [f"images are {size[0]}×{size[1]}, not {wanted}×{wanted}"]
    return [
        f"{key} is {data[key] or 'none'}, not {table[key]}"
        for key in ("resize", "crop", "interpolation")
        if key in data and data[key] != table[key]
    ]


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
