"""The folder of a trace has a name that every file system takes."""

from __future__ import annotations

from epsbench.harness.run.attack.profiling import _folder_name


def test_short_names_stay_readable():
    assert _folder_name("smallcnn-none-pgd(steps=10)-linf") == "smallcnn-none-pgd_steps=10_-linf"


def test_long_names_are_cut_and_stay_different():
    long = "model-" + "x" * 400
    names = {_folder_name(long + end) for end in ("a", "b")}
    assert len(names) == 2
    assert all(len(name.encode()) < 150 for name in names)


def test_no_name_holds_what_a_file_system_refuses():
    assert _folder_name("../ü/ε=8/255\0") == ".._=8_255_"
