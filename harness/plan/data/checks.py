"""Are these images and labels? One message for each way in which they are not."""

from __future__ import annotations

from typing import Any

import numpy as np

from epsbench.harness.errors import InputError

LAYOUTS = ("auto", "nchw", "nhwc")
_CHANNELS = (1, 3)
_OVERSHOT = 0.25
"""So far beyond the box lie pixels of images that were resized with bicubic weights."""


def checked_images(images: Any, where: str, layout: str = "auto") -> np.ndarray:
    """Images (N, C, H, W): uint8 with 0 to 255, or float32 in [0, 1].

    ``images`` is (N, H, W), (N, C, H, W) or (N, H, W, C). ``layout`` is "nchw", "nhwc" or "auto", which goes by the
    axis of 1 or 3 channels. Raises `InputError`, naming ``where``, for anything else.
    """
    images = as_array(images, where)
    if not len(images):
        raise InputError(f"{where}: holds no image")
    images = checked_chunk(images, where, layout)
    if images.dtype == np.uint8 and images.max() <= 1:
        raise all_black(where)
    return images


def all_black(where: str) -> InputError:
    """The error of uint8 images without a value above 1."""
    return InputError(
        f"{where}: images are uint8, and no value is above 1; uint8 means 0 to 255: save them as float32 in [0, 1], "
        "or multiply by 255"
    )


def checked_chunk(images: np.ndarray, where: str, layout: str = "auto", first: int = 0) -> np.ndarray:
    """As `checked_images`, for some of the images: those from number ``first`` on. They may all be black."""
    images = _channels_first(images, where, layout)
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    if images.dtype.kind != "f":
        raise InputError(
            f"{where}: images are {images.dtype}; save them as uint8 (0 to 255), or as float32 divided by 255"
        )
    return _in_the_box(images, where, first)


def _in_the_box(images: np.ndarray, where: str, first: int) -> np.ndarray:
    images = np.ascontiguousarray(images, dtype=np.float32)
    low, high = float(images.min()), float(images.max())
    if not np.isfinite(low) or not np.isfinite(high):
        bad = int(np.flatnonzero(~np.isfinite(images.reshape(len(images), -1)).all(1))[0])
        raise InputError(f"{where}: image {first + bad} holds NaN or infinity; leave it out, or correct it")
    if low < 0 or high > 1:
        raise InputError(
            f"{where}: pixels go from {low:.8g} to {high:.8g}, and must lie in [0, 1]; {_into_box(low, high)}"
        )
    return images


def _into_box(low: float, high: float) -> str:
    """What to do with pixels that go from ``low`` to ``high``."""
    if low >= -_OVERSHOT and high <= 1 + _OVERSHOT:  # rounding, or an interpolation that overshoots
        return "set what lies outside to 0 or 1: images.clip(0, 1)"
    if low < 0:
        return "undo the normalisation: it belongs into the model"
    return "divide them by the largest value that a pixel can have, 255 for bytes"


def _channels_first(images: np.ndarray, where: str, layout: str) -> np.ndarray:
    shape = "×".join(["N", *map(str, images.shape[1:])])  # of a large data set these are a few of the images
    if images.ndim == 3:
        return images[:, None]
    if images.ndim != 4:
        raise InputError(f"{where}: images have the shape {shape}; give (N, C, H, W), (N, H, W, C) or (N, H, W)")
    first, last = images.shape[1] in _CHANNELS, images.shape[3] in _CHANNELS
    if layout == "auto" and first == last:
        raise InputError(
            f'{where}: from the shape {shape} it is not clear which axis holds the channels; say layout = "nchw" or '
            '"nhwc"'
        )
    by_shape = "nchw" if first else "nhwc"
    return images if (by_shape if layout == "auto" else layout) == "nchw" else images.transpose(0, 3, 1, 2)


def checked_labels(labels: Any, images: int, where: str, classes: int = 0) -> np.ndarray:
    """Labels (N,), int64, from 0 to ``classes`` - 1, or to any number where that is 0; one for each image.

    Raises `InputError`, naming ``where``, for anything else.
    """
    labels = as_array(labels, where)
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise InputError(f"{where}: labels have the shape {labels.shape}, as if one-hot; give labels.argmax(1)")
    if labels.dtype.kind in "US":
        raise InputError(
            f"{where}: labels are text; number the classes: names, labels = numpy.unique(labels, return_inverse=True)"
        )
    if labels.ndim != 1:
        raise InputError(f"{where}: labels have the shape {labels.shape}; give one integer for each image: (N,)")
    if labels.dtype.kind not in "iu":
        raise InputError(f"{where}: labels are {labels.dtype}; give integers: labels.astype('int64')")
    if len(labels) != images:
        raise InputError(f"{where}: {images:,} images and {len(labels):,} labels; give one label for each image")
    labels = labels.astype(np.int64)
    wrong = np.flatnonzero((labels < 0) | ((labels >= classes) if classes else np.zeros(len(labels), bool)))
    if len(wrong):
        last = f" to {classes - 1}" if classes else ""
        raise InputError(
            f"{where}: label {labels[wrong[0]]} of example {wrong[0]} is out of range; classes are counted from 0{last}"
        )
    return labels


def as_array(value: Any, where: str) -> np.ndarray:
    """A tensor, an array or a nested list as an array. Raises `InputError` for what is none."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
        value = value.numpy()
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise InputError(f"{where}: cannot be read as an array ({error})") from error
    if not array.ndim and array.dtype.kind in "fiub":
        raise InputError(f"{where}: is a single number; give one for each image, in an array")
    if array.dtype == object or not array.ndim:
        raise InputError(f"{where}: holds {type(value).__name__} objects where an array of numbers is needed")
    return array
