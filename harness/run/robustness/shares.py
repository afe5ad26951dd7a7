"""Which targets who attacks: ranges whose size follows from the measured rates, so that all end together."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from epsbench.harness.run.attack.merging import Shard

# The first range of each device is this part of its fair share of everything: no rate is known yet.
FIRST = 0.25
# Later ones take this part of what is expected to be left, but at least so many seconds: each costs milliseconds.
PART, LEAST_SECONDS = 0.5, 1.0
# A range that takes so much longer than expected is begun by another device too, and the first answer counts.
LATE, LATE_SECONDS = 1.5, 2.0
LOST = 2  # a range whose device was lost so often fails


@dataclass
class Running:
    """A range that a device works on."""

    first: int
    last: int
    began: float
    share: float = 0.0
    """How much of it is done."""


@dataclass
class Shares:
    """The ranges of one evaluation. No locks: its owner has one."""

    total: int
    """The number of targets."""

    devices: int
    """How many attack them."""

    slots: int
    """How many rows a device attacks at a time: a smaller range would leave slots empty, and take as long."""

    done: list[Shard] = field(default_factory=list)
    running: dict[str, Running] = field(default_factory=dict)
    lost: Counter[int] = field(default_factory=Counter)
    """How often the range that begins there lost its device."""
    rates: dict[str, float] = field(default_factory=dict)
    """Targets a second, by device."""

    @property
    def finished(self) -> bool:
        """Whether every target has its outcome."""
        return self.targets_done == self.total

    @property
    def targets_done(self) -> int:
        """How many targets have their outcome."""
        return sum(len(shard) for shard in self.done)

    def progress(self) -> float:
        """The same, with the parts of ranges that are under way."""
        ranges = {(each.first, each.last): 0.0 for each in self.running.values() if not self.has(each.first)}
        for each in self.running.values():
            key = each.first, each.last
            if key in ranges:
                ranges[key] = max(ranges[key], each.share)
        return self.targets_done + sum(share * (last - first) for (first, last), share in ranges.items())

    def take(self, device: str) -> Running | None:
        """The next range for a device; None: there is none now, and perhaps there will be one again."""
        gap = next(iter(self._gaps()), None)
        span = self._late(device) if gap is None else (gap[0], min(gap[1], gap[0] + self._size(device)))
        if span is None:
            return None
        running = Running(*span, time.monotonic())
        self.running[device] = running
        return running

    def give(self, device: str, shard: Shard) -> bool:
        """Take a device's result; returns whether it counts: another one may have been faster."""
        self.running.pop(device, None)
        self.rates[device] = len(shard) / max(shard.seconds, 1e-9)
        if self.has(shard.first):
            return False
        self.done.append(shard)
        return True

    def lose(self, device: str) -> bool:
        """A device ended before it answered; returns whether its range was lost so often that it must be at fault."""
        running = self.running.pop(device, None)
        if running is None or self.has(running.first):
            return False
        self.lost[running.first] += 1
        return self.lost[running.first] >= LOST

    def has(self, first: int) -> bool:
        """Whether the target at this position has its outcome."""
        return any(shard.first <= first < shard.last for shard in self.done)

    def _gaps(self) -> Iterable[tuple[int, int]]:
        """The ranges that no device has begun, in order."""
        taken = sorted({(s.first, s.last) for s in self.done} | {(r.first, r.last) for r in self.running.values()})
        at = 0
        for first, last in [*taken, (self.total, self.total)]:
            if at < first:
                yield at, first
            at = max(at, last)

    def _rate(self, device: str) -> float | None:
        """Targets a second, by this device's last range, else by those of the others."""
        known = list(self.rates.values())
        return self.rates.get(device, sum(known) / len(known) if known else None)

    def _size(self, device: str) -> int:
        left = sum(last - first for first, last in self._gaps())
        rate = self._rate(device)
        if rate is None:
            size = FIRST * left / self.devices
        else:
            mean = sum(self.rates.values()) / len(self.rates)
            together = sum(self.rates.values()) + mean * (self.devices - len(self.rates))
            size = rate * max(LEAST_SECONDS, PART * left / max(together, rate))
        least = min(self.slots, -(-self.total // self.devices))
        size = max(least, min(round(size), -(-left // self.devices)))
        return left if left - size < least / 2 else size

    def _late(self, device: str) -> tuple[int, int] | None:
        """A range that another device should have finished long ago; None where there is none."""
        now = time.monotonic()
        for other, each in self.running.items():
            if other == device or self.has(each.first):
                continue
            rate = self._rate(other)
            if rate and now - each.began > LATE * (each.last - each.first) / rate + LATE_SECONDS:
                return each.first, each.last
        return None
