"""Classes and confidences survive packing, and damaged ones are refused."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epsbench.harness.digest import cell_id
from epsbench.harness.errors import InputError
from epsbench.harness.records import Record, Verdicts, read_record, write_record
from epsbench.harness.records.predictions import Answers, Predictions

CELL = {"task": "robustness"}


def answers(seed: int, n: int, classes: int) -> Answers:
    draw = np.random.default_rng(seed)
    confidences = (draw.random(n) for _ in range(2))
    return Answers(*(draw.integers(classes, size=n) for _ in range(3)), *confidences)


@given(st.integers(0, 99), st.integers(0, 50), st.sampled_from([1, 2, 10, 256, 257, 1000]))
def test_what_is_packed_comes_back(seed, n, classes):
    given_answers = answers(seed, n, classes)
    back = Predictions.pack(given_answers, classes).unpack()
    for packed, original in zip(back[:3], given_answers[:3], strict=True):
        assert packed.tolist() == original.tolist()
    for packed, original in zip(back[3:], given_answers[3:], strict=True):
        assert np.abs(packed - original).max(initial=0) <= 0.5 / 254 + 1e-9


def test_a_confidence_that_is_not_known_stays_unknown_and_the_ends_are_exact():
    confidence = np.array([0.0, 1.0, np.nan])
    kept = Predictions.pack(Answers(*np.zeros((3, 3), dtype=int), confidence, confidence), 2).unpack()
    np.testing.assert_array_equal(kept.adversarial_confidence, confidence)


def test_ten_thousand_usual_images_take_36_kilobytes_at_most():
    draw = np.random.default_rng(0)
    labels = draw.integers(10, size=10_000)
    clean = np.where(draw.random(10_000) < 0.95, labels, draw.integers(10, size=10_000))
    adversarial = np.where(draw.random(10_000) < 0.5, clean, draw.integers(10, size=10_000))
    sure = 1 - draw.beta(0.3, 6, size=10_000)
    packed = Predictions.pack(Answers(labels, clean, adversarial, sure, draw.uniform(0.3, 1, 10_000)), 10)
    assert len(packed.model_dump_json()) < 36_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": base64.b64encode(b"no zlib").decode()}, "cannot be unpacked"),
        ({"adversarial": base64.b64encode(zlib.compress(bytes(8))).decode()}, "other than the 9"),
        ({"adversarial": base64.b64encode(zlib.compress(bytes(10**7))).decode()}, "other than the 9"),
        ({"clean": base64.b64encode(zlib.compress(bytes([3] * 9))).decode()}, "not one of the 3"),
        ({"n": 8}, "other than the 8"),
    ],
)
def test_damaged_predictions_are_refused_with_the_file(tmp_path, change, message):
    good = Predictions.pack(answers(0, 9, 3), 3)
    bits = np.ones(9, dtype=bool)
    record = Record(
        id=cell_id(CELL, {}), status="ok", cell=CELL, verdicts=Verdicts.pack(bits, bits),
        predictions=good,
    )  # fmt: skip
    assert read_record(write_record(tmp_path, record)) == record
    bad = record.model_copy(update={"predictions": good.model_copy(update=change)})
    with pytest.raises(InputError, match=f"{record.id}.json.*predictions.*{message}"):
        read_record(write_record(tmp_path, bad))


def test_predictions_of_another_number_of_images_than_the_verdicts_are_refused(tmp_path):
    bits = np.ones(9, dtype=bool)
    record = Record(
        id=cell_id(CELL, {}), status="ok", cell=CELL, verdicts=Verdicts.pack(bits, bits),
        predictions=Predictions.pack(answers(0, 8, 3), 3),
    )  # fmt: skip
    with pytest.raises(InputError, match="8 examples, and 9 verdicts"):
        read_record(write_record(tmp_path, record))
