"""Models from files and libraries: what was loaded, and what happens to images."""

from __future__ import annotations

import factory
import numpy as np

from epsbench.harness.records import write_record
from epsbench.harness.report.build import report
from epsbench.harness.report.results.loading import load_results
from epsbench.harness.report.robustness.given import given_table
from epsbench.models.preprocessing import Preprocessing

RIGHT = np.array([True, True, False])
KNOWN = Preprocessing("timm", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 256, 224, "bicubic")


def write(folder, model, **training):
    record = factory.robustness(RIGHT, RIGHT, model={"name": model})
    write_record(folder, record.model_copy(update={"training": record.training | training}))


def test_what_was_loaded_and_how_images_are_prepared_is_in_the_report(tmp_path):
    write(tmp_path, "file:a.pt", loaded="'ema' without the prefix 'module.'")
    write(tmp_path, "timm:resnet50", preprocessing=KNOWN.record())
    table = given_table(load_results(tmp_path))
    assert {tuple(entry.text for entry in row) for row in table.rows} == {
        ("file:a.pt", "'ema' without the prefix 'module.'", "–"),
        ("timm:resnet50", "–", "normalises with mean 0.5, 0.5, 0.5 and std 0.25, 0.25, 0.25 (timm); published for "
                               "resize 256 (bicubic) and crop 224"),
    }  # fmt: skip
    assert "published for resize 256 (bicubic) and crop 224" in report(tmp_path, "markdown", None)


def test_without_any_there_is_no_table(tmp_path):
    write(tmp_path, "smallcnn")
    assert given_table(load_results(tmp_path)) is None
