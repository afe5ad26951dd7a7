"""Runs on streamed data: verdicts, weights and images equal those from memory, and memory stays flat."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epsbench.harness.options import Options
from epsbench.harness.plan.data.pixels import PixelFile
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.records import images_path, read_records
from epsbench.harness.run.attack.read_ahead import ReadAhead
from epsbench.harness.run.attack.schedule import CURVES
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.data.corruption import corrupted
from epsbench.harness.run.data.examples import Examples
from epsbench.harness.run.data.streamed import StreamedExamples
from epsbench.harness.run.runner import run_suite

SUITE = """
[robustness]
data = "data.npz"
training = { epochs = 1 }
[robustness.matrix]
model = "smallcnn"
attack = [{ name = "pgd", steps = 3, restarts = 2, random_start = true }, { name = "square", steps = 20 }]
eps = ["8/255", 0.1]
"""


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    rng = np.random.RandomState(0)
    labels = np.arange(420) % 3
    images = rng.randint(0, 120, (420, 3, 12, 12)).astype(np.uint8)
    images[:, :, 3:9, 3:9] += (labels * 60).astype(np.uint8)[:, None, None, None]
    np.savez(tmp_path / "data.npz", images=images[:120], labels=labels[:120], x_train=images[120:],
             y_train=labels[120:])  # fmt: skip
    (tmp_path / "own.toml").write_text(SUITE)
    monkeypatch.setenv("EPSBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path


def run(data: Path, name: str, batch_size: int) -> list:
    options = Options(quiet=True, device="cpu", keep_images=50, compile="off", batch_size=batch_size)
    assert run_suite(load_suite(str(data / "own.toml")), data / name, options) == 0
    return sorted(read_records(data / name), key=lambda record: record.id)


@pytest.fixture
def reads(monkeypatch) -> dict[str, int]:
    """How many images were announced, and how many were read."""
    counts = {"announced": 0, "read": 0}
    expect, read = PixelFile.expect, PixelFile.__getitem__

    def expecting(self, index):
        counts["announced"] += len(self.rows[index])
        expect(self, index)

    def reading(self, index):
        counts["read"] += len(self.rows[index])
        return read(self, index)

    monkeypatch.setattr(PixelFile, "expect", expecting)
    monkeypatch.setattr(PixelFile, "__getitem__", reading)
    return counts


def test_a_streamed_run_is_the_same_to_the_last_bit(data, monkeypatch, reads):
    inside = run(data, "memory", 32)
    assert not reads["read"]
    monkeypatch.setenv("EPSBENCH_DATA_MEMORY", "0")
    streamed = run(data, "file", 32)
    assert reads["read"] > 1000
    assert reads["announced"] > 300  # an epoch of training, and the attacks after their first batches
    assert [record.id for record in streamed] == [record.id for record in inside]
    for one, other in zip(inside, streamed, strict=True):
        assert one.verdicts == other.verdicts
        assert one.training["weights_sha256"] == other.training["weights_sha256"]
        with np.load(images_path(data / "memory", one.id)) as a, np.load(images_path(data / "file", one.id)) as b:
            assert all(np.array_equal(a[key], b[key], equal_nan=True) for key in a.files)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 9), st.sampled_from(["uint8", "float32"]), st.integers(0, 9), st.data())
def test_pixels_of_any_batch_are_bit_for_bit_those_from_memory(tmp_path, batch, kind, first, draw):
    rng = np.random.RandomState(1)
    raw = rng.randint(0, 256, (9, 3, 4, 4)).astype(np.uint8) if kind == "uint8" else rng.rand(9, 3, 4, 4)
    raw, labels, brightest = raw.astype(kind), torch.arange(9), 255 if kind == "uint8" else 1
    np.save(tmp_path / "x.npy", raw)
    whole = Examples(torch.from_numpy(raw), labels, brightest)
    order = torch.tensor(draw.draw(st.lists(st.integers(0, 8), max_size=20)), dtype=torch.int64)
    for images in (PixelFile(tmp_path / "x.npy"), raw):
        streamed = StreamedExamples(images, labels, brightest)
        for index in [None, order, *(slice(start, min(start + batch, 9)) for start in range(0, 9, batch))]:
            assert torch.equal(whole.pixels(index), streamed.pixels(index))
        assert torch.equal(whole[first:].pixels(), streamed[first:].pixels())
        assert torch.equal(whole[first:].labels, streamed[first:].labels)
        streamed.expect(order)
        streamed.pixels().zero_()  # what a model does to its images leaves the data as it is
        assert torch.equal(whole.pixels(), streamed.pixels())


def test_corrupted_images_are_streamed_too_and_the_same():
    rng = np.random.RandomState(1)
    raw, labels = rng.randint(0, 256, (20, 3, 32, 32)).astype(np.uint8), torch.arange(20)
    whole = corrupted(Examples(torch.from_numpy(raw), labels, 255), "shot-noise", 3)
    streamed = corrupted(StreamedExamples(raw, labels, 255), "shot-noise", 3)
    assert isinstance(streamed, StreamedExamples)
    assert torch.equal(whole.pixels(), streamed.pixels())


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(CURVES)), st.integers(1, 9), st.integers(1, 3), st.lists(st.integers(1, 7)), st.data())
def test_the_schedule_knows_which_rows_come_next(curve, examples, restarts, counts, draw):
    schedule = CURVES[curve]([0.1, 0.2, 0.3], examples, restarts)
    for count in counts:
        coming = schedule.coming(count)
        rows = schedule.take(count)
        assert coming.tolist() == rows.tolist()
        if len(rows):
            fooled = np.array(draw.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))))
            schedule.settle(rows, fooled, np.where(fooled, 0.15, 0.0))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 8), st.integers(1, 40), st.data())
def test_images_are_announced_before_the_schedule_takes_them(batch, examples, draw):
    announced: set[int] = set()
    labels = torch.zeros(examples, dtype=torch.int64)
    targets = Targets(lambda at: at, labels, labels, expect=lambda at: announced.update(at.tolist()))
    schedule = CURVES["each"]([0.1, 0.2], examples, 1)
    ahead, first = ReadAhead(targets, schedule), True
    while len(schedule):
        room = draw.draw(st.integers(1, batch))
        rows = schedule.take(room)
        taken = set(schedule.split(rows)[2].tolist())
        assert first or taken <= announced
        ahead.after(len(rows), batch)
        first = False
        schedule.settle(rows, np.zeros(len(rows), dtype=bool), np.zeros(len(rows)))


MEASURE = Path(__file__).with_name("measure_memory.py")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux can measure a peak again")
def test_memory_stays_flat_in_the_number_of_images(tmp_path):
    def of(images: str) -> dict:
        """In a process of its own: a second run in one process has also what the first left of the heap."""
        (tmp_path / images).mkdir()
        command = [sys.executable, str(MEASURE), str(tmp_path / images), "64", images]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    few, many = of("4000"), of("32000")
    # Kept as uint8 the other images would add 344 MB, and as floats 1.4 GB.
    assert many["peak_bytes"] - few["peak_bytes"] < 28_000 * 3 * 64 * 64 / 2
    assert many["streamed"]
    assert many["cells"] == "ok"
