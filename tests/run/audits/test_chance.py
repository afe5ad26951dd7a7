"""A model at chance is reported, where there are images enough."""

from __future__ import annotations

import pytest

from epsbench.harness.run.audits.chance import audit_chance


@pytest.mark.parametrize(
    ("right", "n", "classes", "reported"),
    [(30, 300, 10, True), (28, 300, 10, True), (0, 1000, 10, True), (60, 300, 10, False), (2, 20, 10, False),
     (250, 500, 2, True), (290, 500, 2, False), (0, 0, 10, False), (5, 5, 1, False),
     (0, 16, 1000, False), (0, 120, 1000, True), (4, 120, 1000, False), (1, 120, 100, True)],
)  # fmt: skip
def test_a_model_at_chance_is_reported_where_images_are_enough(right, n, classes, reported):
    assert [each.code for each in audit_chance(right, n, classes)] == (["at-chance"] if reported else [])
