"""Whoever watches an attack sees how much of it is done, also while no image has its last verdict."""

from __future__ import annotations

from fractions import Fraction

import pytest

from epsbench.attacks import APGDT, PGD
from epsbench.attacks.ddn import DDN
from epsbench.harness.run.attack import stream
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.judge import Judge
from tests.run.attack.engines import CPU, plain, targets_of


class Watching:
    """Notes what it is shown beside the queries that the victim has counted."""

    def __init__(self, victim) -> None:
        self.victim, self.seen, self.total = victim, [], 0

    def begin(self, name: str, total: int) -> None:
        self.total, self.start = total, self.victim.forwards

    def at(self, done: int) -> None:
        self.seen.append((done, self.victim.forwards - self.start))


@pytest.mark.parametrize("curve", ["each", "nested"])
@pytest.mark.parametrize(
    "attack", [PGD(steps=5, restarts=4, random_start=True), APGDT(steps=7, targets=3)], ids=lambda a: type(a).__name__
)
def test_where_nothing_fools_what_is_done_are_the_queries_made(network, digits, monkeypatch, attack, curve):
    monkeypatch.setattr(stream, "SHOWN_SECONDS", -1.0)
    _, _, targets = targets_of(network, digits, 50)
    victim = plain(network)
    watch = Watching(victim)
    engine = Engine(victim, Judge(network, CPU), targets, 16, watch=watch)
    eps = [Fraction(1, 100_000), Fraction(1, 50_000)]
    assert not any(outcome.fooled.any() for outcome in engine.run(attack, eps, seed=0, curve=curve))
    assert len({done for done, _ in watch.seen}) > 20
    assert all(done == made for done, made in watch.seen)
    assert watch.seen[-1][0] == watch.total


def test_a_search_for_the_smallest_distance_is_watched_too(network, digits, monkeypatch):
    monkeypatch.setattr(stream, "SHOWN_SECONDS", -1.0)
    _, _, targets = targets_of(network, digits, 30)
    victim = plain(network)
    watch = Watching(victim)
    engine = Engine(victim, Judge(network, CPU), targets, 8, watch=watch)
    list(engine.run(DDN(steps=10, polish=0), [Fraction(1)], seed=0))
    assert [done for done, _ in watch.seen[:-1]] == [made for _, made in watch.seen[:-1]]
    assert watch.seen[-1][0] == watch.total == 30 * 10
