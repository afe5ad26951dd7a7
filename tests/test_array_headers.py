"""The header of a stored array is read in both versions of the format."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from epsbench.harness.files import read_array_header
from epsbench.harness.kept_images import PerImage


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_header_is_read_and_the_rows_follow_it(version, order):
    array = np.asarray(np.arange(24, dtype=np.float32).reshape(2, 3, 4), order=order)
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=version)
    file.seek(0)
    assert read_array_header(file) == ((2, 3, 4), order == "F", np.dtype(np.float32))
    assert np.frombuffer(file.read(), np.float32).tolist() == array.ravel(order="K").tolist()


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
@pytest.mark.parametrize("most", [0, 10**6])
def test_kept_images_are_read_in_both_versions_of_the_format(tmp_path, version, most):
    images = np.random.default_rng(0).random((5, 1, 4, 4), dtype=np.float32)
    with zipfile.ZipFile(tmp_path / "kept.npz", "w") as archive:
        for name, array in {"images": images, "labels": np.arange(5)}.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array, version=version)
    kept = PerImage.read(tmp_path / "kept.npz", most)
    assert (kept["images"] == images).all()
    assert (np.concatenate(list(kept.parts())) == images).all()
