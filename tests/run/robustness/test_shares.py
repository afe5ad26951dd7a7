"""Who attacks which targets: everything once, all devices to the end, nothing lost with a device."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epsbench.harness.run.attack.merging import Shard
from epsbench.harness.run.robustness import shares as module
from epsbench.harness.run.robustness.shares import Shares


def shard(first: int, last: int, seconds: float = 1.0) -> Shard:
    return Shard(first, last, (), seconds=seconds)


def simulated(total: int, slots: int, rates: list[float], kept=()) -> tuple[Shares, list[float]]:
    """Devices of these rates take ranges until none is left; returns when each one ended, in seconds."""
    shares = Shares(total, len(rates), slots, done=list(kept))
    now, free = 0.0, {f"device {n}": 0.0 for n in range(len(rates))}
    ends = dict.fromkeys(free, 0.0)
    working: dict[str, object] = {}
    while free:
        name = min(free, key=free.get)
        now = free[name]
        if name in working:
            running = working.pop(name)
            shares.give(name, shard(running.first, running.last, now - ends[name]))
        ends[name] = now
        running = shares.take(name)
        if running is None:
            del free[name]
            continue
        working[name] = running
        free[name] = now + (running.last - running.first) / rates[int(name.split()[1])]
    return shares, list(ends.values())


@given(
    total=st.integers(1, 5000), slots=st.integers(1, 600),
    rates=st.lists(st.floats(1, 1000), min_size=1, max_size=5), data=st.data(),
)  # fmt: skip
def test_every_target_is_attacked_exactly_once(total, slots, rates, data):
    cuts = sorted(data.draw(st.sets(st.integers(0, total), max_size=4)))
    kept = [shard(a, b) for a, b in zip(cuts[::2], cuts[1::2], strict=False) if a < b]
    shares, _ = simulated(total, slots, rates, kept)
    assert shares.finished
    ranges = sorted((each.first, each.last) for each in shares.done)
    assert [first for first, _ in ranges] == [0, *(last for _, last in ranges[:-1])]
    assert ranges[-1][1] == total


@pytest.mark.parametrize("rates", [[100.0, 100.0], [100.0, 25.0], [10.0, 10.0, 10.0, 90.0]])
def test_all_devices_end_together_whatever_their_rates(rates):
    shares, ends = simulated(50_000, 64, rates)
    best = 50_000 / sum(rates)
    assert max(ends) <= 1.03 * best + 64 / min(rates)
    assert len(shares.done) < 100  # and handing out costs little


def test_few_images_are_not_cut_into_ranges_that_leave_slots_empty():
    shares, _ = simulated(95, 95, [10.0, 10.0])
    assert sorted(len(each) for each in shares.done) == [47, 48]
    shares, _ = simulated(1000, 512, [10.0, 10.0])
    assert sorted(len(each) for each in shares.done) == [500, 500]


def test_a_lost_range_goes_to_the_next_and_fails_when_it_is_lost_again():
    shares = Shares(100, 2, 10)
    first = shares.take("a")
    assert not shares.lose("a")
    again = shares.take("b")
    assert (again.first, again.last) == (first.first, first.last)
    assert shares.lose("b")
    assert not shares.lose("b")  # it had nothing any more


def test_a_late_range_is_begun_by_another_and_the_first_answer_counts(monkeypatch):
    shares = Shares(20, 2, 10)
    slow, quick = shares.take("slow"), shares.take("quick")
    assert shares.take("quick") is None
    shares.give("quick", shard(quick.first, quick.last))
    assert shares.take("quick") is None
    later = time.monotonic() + module.LATE * 1.0 + module.LATE_SECONDS + 1  # at the rate of the other
    monkeypatch.setattr(module.time, "monotonic", lambda: later)
    duplicate = shares.take("quick")
    assert (duplicate.first, duplicate.last) == (slow.first, slow.last)
    assert shares.progress() == 10
    assert shares.give("slow", shard(slow.first, slow.last))
    assert not shares.give("quick", shard(slow.first, slow.last))
    assert shares.finished
    assert shares.targets_done == 20
