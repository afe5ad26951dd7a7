"""Graphs of several sizes answer any number of rows as the query itself does.

Where there is no CUDA device, a graph is imitated: it computes what its inputs hold, and overwrites its outputs.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from epsbench.attacks import AutoAttack
from epsbench.attacks.losses import CROSS_ENTROPY
from epsbench.attacks.pgd import PGD
from epsbench.harness.run.attack import graphs
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.graphs import Ladder, Size, least_rows, steps_down
from epsbench.harness.run.attack.judge import Judge, frozen_copy
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.speed import accelerate as tuning
from epsbench.harness.run.speed.accelerate import Work, bare
from epsbench.harness.run.speed.chosen import Chosen
from tests.run.attack.imitation import imitated

CPU = torch.device("cpu")
PARTS = dict(AutoAttack().members(10))


@pytest.fixture
def without_cuda(monkeypatch):
    monkeypatch.setattr(graphs, "captured", imitated)
    monkeypatch.setattr(graphs, "new_pool", lambda: None)


@pytest.fixture
def all_faster(without_cuda, monkeypatch):
    monkeypatch.setattr(Ladder, "faster", lambda self, device, instead=None: self.sizes)


@pytest.fixture
def targets(network, digits) -> Targets:
    x, y = digits
    with torch.no_grad():
        right = (network(x).argmax(1) == y).nonzero().flatten()[:50]
    return Targets(lambda at: x[right][at], y[right], right)


def victim_of(network) -> Victim:
    return Victim(frozen_copy(network, CPU), CPU, "float32", "plain")


def shifted(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return 2 * x + y[:, None], x.sum(1)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 2**31))
def test_any_number_of_rows_gets_what_the_query_gives(rows, seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "captured", imitated)
        patch.setattr(graphs, "new_pool", lambda: None)
        generator = torch.Generator().manual_seed(seed)
        ladder = Ladder(shifted, (torch.zeros(40, 3), torch.zeros(40, dtype=torch.long)), steps_down(40))
        asked = [(torch.rand(n, 3, generator=generator), torch.randint(9, (n,), generator=generator)) for n in rows]
        answers = [ladder(*each) for each in asked]  # which no later call may overwrite
    for each, answer in zip(asked, answers, strict=True):
        for ours, expected in zip(answer, shifted(*each), strict=True):
            assert torch.equal(ours, expected)


def test_more_rows_than_the_largest_graph_has_are_not_served(without_cuda):
    ladder = Ladder(shifted, (torch.zeros(8, 3), torch.zeros(8, dtype=torch.long)), steps_down(8))
    assert ladder.serves(8)
    assert not ladder.serves(9)
    with pytest.raises(ValueError, match="9 rows are more than the 8 of the largest graph"):
        ladder(torch.zeros(9, 3), torch.zeros(9, dtype=torch.long))


def test_sizes_go_down_by_halves():
    assert [size.rows for size in steps_down(200)] == [200, 100, 50, 25]
    assert [size.rows for size in steps_down(5)] == [5]


@pytest.mark.parametrize(
    ("graph", "plain_below", "plain", "least"),
    [
        (1.0, 0.5, 2.0, 22),  # 0.5 + (n - 16) / 16 · 1.5 seconds are more than 1 from 22 rows on
        (1.0, 1.0, 2.0, 17),
        (0.3, 0.5, 2.0, 17),
        (2.0, 0.5, 2.0, 33),  # no faster: never
        (1.999, 0.5, 2.0, 32),
    ],
)
def test_a_graph_serves_fewer_rows_where_it_is_faster(graph, plain_below, plain, least):
    assert least_rows(graph, 16, plain_below, 32, plain) == least


def test_only_sizes_that_are_faster_are_kept(without_cuda, monkeypatch):
    """The query takes 1 s and 0.1 s a row, a graph 0.2 s a row: at 25 rows it is no faster."""
    ladder = Ladder(shifted, (torch.zeros(40, 3), torch.zeros(40, dtype=torch.long)), [Size(9, 1), Size(40, 1)])

    def paced(call, device, repeats=3):
        rows = len(call()[1])
        return 0.2 * rows if call.func is ladder else 1 + 0.1 * rows

    monkeypatch.setattr(graphs, "seconds", paced)
    ladder.keep(ladder.faster(CPU))
    assert ladder.sizes == (Size(9, 1),)
    assert ladder.serves(9)
    assert not ladder.serves(10)


@pytest.mark.parametrize("name", [*PARTS, "pgd"])
def test_an_attack_by_graphs_gives_the_same_verdicts(network, targets, all_faster, name):
    """Also where few rows are left, whose number no graph has."""
    attack = PGD(steps=10) if name == "pgd" else replace(PARTS[name], steps=200 if name == "square" else 10)
    fooled = []
    for way in ("plain", "graphs"):
        victim = victim_of(network)
        if way == "graphs":
            x, y = targets.batch(20)
            tuning._capture(victim, x, y, Work(1, int(attack.query == "logits"), attack.losses(10)))
            assert victim.form == "plain, CUDA graph"
            assert {None} & set(victim.graphs) == ({None} if attack.query == "logits" else set())
            assert victim.graphs
        engine = Engine(victim, Judge(network, CPU), targets, 20)
        (outcome,) = engine.run(attack, [Fraction(1, 20)], seed=0)
        fooled.append((outcome.fooled, outcome.forwards, outcome.backwards))
    assert (fooled[0][0] == fooled[1][0]).all()
    assert fooled[0][1:] == fooled[1][1:]
    assert fooled[0][0].sum() > 0


def test_a_query_that_cannot_be_captured_is_a_finding_and_others_keep_their_graphs(
    network, targets, all_faster, monkeypatch
):
    def refuses(query, inputs, pool):
        if len(inputs) > 2:
            raise RuntimeError("it synchronises")
        return imitated(query, inputs, pool)

    monkeypatch.setattr(graphs, "captured", refuses)
    victim = victim_of(network)
    targeted = next(loss for part in PARTS.values() for loss in part.losses(10) if len(loss.inputs) > 1)
    tuning._capture(victim, *targets.batch(20), Work(1, 0, (CROSS_ENTROPY, targeted)))
    assert list(victim.graphs) == [CROSS_ENTROPY]
    (finding,) = victim.findings
    assert finding.code == "not-graphed"
    assert "it synchronises" in finding.message


def test_a_graph_that_computes_something_else_is_refused(network, targets, all_faster, monkeypatch):
    """It computes what its inputs were when it was captured, negated."""

    def stale(query, inputs, pool):
        outputs = tuple(-each.clone() for each in query(*inputs))
        return lambda: outputs

    monkeypatch.setattr(graphs, "captured", stale)
    victim = victim_of(network)
    tuning._capture(victim, *targets.batch(20), Work(1))
    assert not victim.graphs
    assert victim.form == "plain"
    assert [each.code for each in victim.findings] == ["not-graphed"]


def test_another_process_captures_the_same_sizes(network, targets, without_cuda, monkeypatch):
    sizes = (Size(20, 15), Size(40, 25))
    monkeypatch.setattr(Ladder, "faster", lambda self, device, instead=None: sizes)
    first, second = victim_of(network), victim_of(network)
    judge = Judge(network, CPU)
    tuning._capture(first, *targets.batch(40), Work(1, 1))
    chosen = Chosen.of(first, judge, 40)
    chosen.apply(second, judge, targets)
    assert {loss: ladder.sizes for loss, ladder in second.graphs.items()} == {CROSS_ENTROPY: sizes, None: sizes}
    x = targets.batch(30)[0]
    assert torch.equal(first.scores(x), second.scores(x))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_captured_queries_give_what_the_bare_queries_give(network, targets):
    device = torch.device("cuda")
    victim = Victim(frozen_copy(network, device), device, "float32", "plain")
    x, y = (each.to(device) for each in targets.batch(40))
    for loss, inputs in ((CROSS_ENTROPY, (x, y)), (None, (x,))):
        query = bare(victim, loss)
        ladder = Ladder(query, inputs, steps_down(40))
        for rows in (40, 39, 21, 20, 3):
            given = [each[:rows].flip(0) for each in inputs]
            first = ladder(*given)
            ladder(*inputs)
            for actual, expected in zip(first, query(*given), strict=True):
                torch.testing.assert_close(actual, expected)
