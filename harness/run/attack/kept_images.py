"""Adversarial images that an outcome keeps: in memory, or in a file where the data is streamed."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import weakref
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from epsbench.harness.errors import InputError
from epsbench.harness.plan.data.decoded import decoded_folder

CHUNK = 2**24
"""Bytes of images that are copied at a time."""

_MAPPINGS: weakref.WeakValueDictionary[int, mmap.mmap] = weakref.WeakValueDictionary()


def blank_images(shape: tuple[int, ...], in_file: bool) -> Tensor:
    """A float32 tensor of zeros. ``in_file``: its memory is a file, which goes with it, and `let_go` frees its pages.

    Raises `InputError` where there is no room for the file.
    """
    size = 4 * math.prod(shape)
    if not in_file or not size:
        return torch.zeros(*shape)
    folder = decoded_folder()
    try:
        # A file without a name: a process that is killed leaves nothing.
        with tempfile.TemporaryFile(dir=folder) as file:
            _reserve(file.fileno(), size)
            mapping = mmap.mmap(file.fileno(), size)
    except OSError as error:
        raise InputError(
            f"{folder}: there is no room for the adversarial images of streamed data ({error.strerror or error}); make "
            "room, name another folder with EPSBENCH_CACHE, or keep fewer with --keep-images"
        ) from error
    images = torch.from_numpy(np.frombuffer(mapping, dtype=np.float32).reshape(shape))
    _MAPPINGS[images.data_ptr()] = mapping
    return images


def let_go(images: Tensor) -> None:
    """Take the pages of images in a file out of this process's memory; what was written stays in the file.

    Nothing happens to images in memory, and where the system cannot do it.
    """
    mapping = _MAPPINGS.get(images.data_ptr())
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)


def is_in_file(images: Tensor) -> bool:
    """Whether `blank_images` made them in a file."""
    return images.data_ptr() in _MAPPINGS


def in_parts(images: Tensor) -> Iterator[slice]:
    """Slices of rows that cover the images (N, …), some megabytes each; in a file, pages are let go after each."""
    for rows in slices_of(len(images), images.shape[1:]):
        yield rows
        let_go(images)


def slices_of(n: int, shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices that cover ``n`` float32 images of this ``shape``, some megabytes each."""
    step = max(1, CHUNK // max(1, 4 * math.prod(shape)))
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def _reserve(number: int, size: int) -> None:
    """Give a file its size. Writing into a mapping cannot fail with an error later, so the room is taken now."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(number, 0, size)
    else:  # macOS
        os.truncate(number, size)
