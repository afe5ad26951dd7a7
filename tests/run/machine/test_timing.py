"""How long a call takes."""

from __future__ import annotations

import time

import pytest
import torch

from epsbench.harness.run.machine.timing import seconds

CPU = torch.device("cpu")


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_with_one_thread_waiting_does_not_count(threads):
    threads(1)
    assert seconds(lambda: time.sleep(0.05), CPU, 1) < 0.05


def test_with_several_threads_the_clock_counts(threads):
    threads(2)
    assert seconds(lambda: time.sleep(0.05), CPU, 1) >= 0.05


def test_the_clock_counts_where_it_is_asked_for(threads):
    threads(1)
    assert seconds(lambda: time.sleep(0.05), CPU, 1, by_clock=True) >= 0.05
