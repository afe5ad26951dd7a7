"""From the bytes of an image file to pixels, by several threads: decoded, and cut to size as torchvision does it."""

from __future__ import annotations

import io
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from epsbench.harness.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

Item = TypeVar("Item")
Result = TypeVar("Result")
INTERPOLATIONS = {"bilinear": 2, "bicubic": 3}
"""By name, as PIL numbers them."""
_EIGHT_BITS = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"})
"""PIL's modes with eight bits a channel, or one."""
_AHEAD = 8  # images a thread may be ahead of the one that is taken next


@dataclass(frozen=True)
class Shaping:
    """What becomes of each image: its channels, its size, and the part of it that is kept."""

    resize: int = 0
    """The shorter side is scaled to so many pixels; 0: left as it is."""
    crop: int = 0
    """The side of the square that is cut out of the middle; 0: nothing is cut off."""
    interpolation: str = "bilinear"
    """Or ``"bicubic"``."""
    channels: int = 3
    """3, or 1 for grey images."""

    def __post_init__(self) -> None:
        if self.interpolation not in INTERPOLATIONS:
            known = ", ".join(INTERPOLATIONS)
            raise ValueError(f"interpolation must be one of {known}, not {self.interpolation!r}")
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, not {self.channels}")
        if min(self.resize, self.crop) < 0:
            raise ValueError("resize and crop must not be negative; 0 leaves them out")

    def pixels(self, content: bytes, where: object) -> np.ndarray:
        """The image in a file's bytes as uint8 (C, H, W). Raises `InputError`, naming ``where``, where it is none."""
        from PIL import Image as Images

        with warnings.catch_warnings():
            # A large image is no attack here, and what is wrong with one raises.
            warnings.simplefilter("ignore", Images.DecompressionBombWarning)
            try:
                with Images.open(io.BytesIO(content)) as file:
                    return self.of_image(file, where)
            except InputError:
                raise
            except Images.UnidentifiedImageError as error:
                raise InputError(
                    f"{where}: is no image, or damaged (its format is not known); replace it, or take it out"
                ) from error
            # Decoders of broken files raise of all kinds.
            except Exception as error:
                raise InputError(f"{where}: is no image, or damaged ({error}); replace it, or take it out") from error

    def of_image(self, image: Image, where: object) -> np.ndarray:
        """As `pixels`, of an image of PIL's."""
        if image.mode not in _EIGHT_BITS:
            raise InputError(
                f"{where}: has more than 8 bits a channel (mode {image.mode}); save it with 8 bits, or give the images "
                "as float32 in [0, 1] in an .npz file"
            )
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")
        image = image.convert("L" if self.channels == 1 else "RGB")
        if self.resize:
            image = image.resize(_scaled(image.size, self.resize), INTERPOLATIONS[self.interpolation])
        if self.crop:
            image = _cropped(image, self.crop, where)
        pixels = np.asarray(image, dtype=np.uint8)
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def of_one_size(pixels: np.ndarray, first: tuple[int, ...], where: object) -> np.ndarray:
    """``pixels`` (C, H, W), which must have the shape of the first image. Raises `InputError` where they do not."""
    if pixels.shape != first:
        (_, height, width), (_, first_height, first_width) = pixels.shape, first
        raise InputError(
            f"{where}: has {height}×{width} pixels, and the first image {first_height}×{first_width}; set "
            "resize and crop, such as resize = 256 and crop = 224"
        )
    return pixels


def by_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """``function`` of each item, in their order, by as many threads as there are cores.

    Decoding and resizing let other threads run. Only a few results wait at a time.
    """
    threads = min(16, os.cpu_count() or 1)
    if threads == 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(threads, "decoding") as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= threads * _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _scaled(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    """Width and height with the shorter side at so many pixels, as torchvision rounds them."""
    width, height = size
    return (shorter, int(shorter * height / width)) if width <= height else (int(shorter * width / height), shorter)


def _cropped(image: Image, crop: int, where: object) -> Any:
    width, height = image.size
    if min(width, height) < crop:
        raise InputError(f"{where}: has {height}×{width} pixels, too few for crop = {crop}; set resize too")
    left, top = round((width - crop) / 2.0), round((height - crop) / 2.0)
    return image.crop((left, top, left + crop, top + crop))
