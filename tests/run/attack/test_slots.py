"""Rows that change places: whoever leaves, whoever comes, every row keeps its own tensors and its count of steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from epsbench.harness.run.attack.slots import Bundle


def bundle(rows: list[int]) -> Bundle:
    """Rows whose every tensor says which row it belongs to."""
    x = torch.tensor(rows, dtype=torch.float32).view(-1, 1, 1, 1) + torch.zeros(len(rows), 2, 3, 3)
    tensors = {
        "x_adv": x.contiguous(memory_format=torch.channels_last),
        "y": torch.tensor(rows, dtype=torch.int64),
        "state.m": x.clone(),
    }
    host = np.array(rows, dtype=np.int64)
    return Bundle(host, host + 1000, tensors, frozenset({"state.m"}))


def assert_each_is_its_own(bundle: Bundle, expected: list[int]) -> None:
    assert sorted(bundle.rows.tolist()) == sorted(expected)
    np.testing.assert_array_equal(bundle.step, bundle.rows + 1000)
    for tensor in bundle.tensors.values():
        assert len(tensor) == len(bundle)
        rows = torch.from_numpy(bundle.rows).view(-1, *[1] * (tensor.dim() - 1))
        assert (tensor == rows).all()


@given(st.integers(1, 12), st.data())
def test_whoever_comes_takes_the_slot_of_whoever_leaves(count, data):
    holes = data.draw(st.sets(st.integers(0, count - 1)))
    coming = data.draw(st.integers(0, 14))
    before = bundle(list(range(count)))
    state = before.tensors["state.m"].clone()
    shared = before.tensors["state.m"]
    new = bundle(list(range(100, 100 + coming))) if coming else None
    after = before.without(np.array(sorted(holes), dtype=np.int64), new)
    assert_each_is_its_own(after, [r for r in range(count) if r not in holes] + list(range(100, 100 + coming)))
    assert torch.equal(shared, state)  # the attack may hold it too


@given(st.lists(st.integers(0, 50), min_size=1, max_size=9, unique=True), st.data())
def test_rows_taken_are_copies(rows, data):
    which = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), unique=True)), dtype=np.int64)
    whole = bundle(rows)
    part = whole.take(which)
    assert_each_is_its_own(part, [rows[i] for i in which])
    part.tensors["y"].fill_(-1)
    assert_each_is_its_own(whole, rows)


@pytest.mark.parametrize("leaving", [[0], [3], [0, 1, 2], []])
def test_images_keep_their_layout_and_rows_that_stay_are_not_copied(leaving):
    before = bundle([0, 1, 2, 3])
    memory = before.tensors["x_adv"].data_ptr()
    after = before.without(np.array(leaving, dtype=np.int64), None)
    assert after.tensors["x_adv"].data_ptr() == memory
    assert after.tensors["x_adv"].is_contiguous(memory_format=torch.channels_last)
    assert before.take(np.array([1, 2])).tensors["x_adv"].is_contiguous(memory_format=torch.channels_last)
