"""Checks of a model that is random: is it, and does the majority of its passes decide?"""

from __future__ import annotations

from collections.abc import Iterator

from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.attack.random_model import VotingJudge
from epsbench.harness.run.audits.probe import Probe

SAME = 1e-6  # of the largest logit: passes that differ by less are one function
FEW = 0.05  # share of clean images whose class another vote changes; fewer are not reported


def audit_votes(probe: Probe) -> Iterator[Finding]:
    """Vote on the probed images once more with the same draws, and once with others."""
    judge, x, y = probe.judge, probe.x, probe.y
    assert isinstance(judge, VotingJudge)
    passes = judge.passes(x)
    if float((passes - passes[:, :1]).abs().max()) <= SAME * float(passes.abs().max()) and judge.votes > 1:
        fact = f"{judge.votes} passes over each of {len(x)} images give the same logits"
        yield finding("not-random", fact, images=len(x), votes=judge.votes)
        return
    _, voted = judge.verdict(x, y, probe.batch)
    again = int((judge.verdict(x, y, probe.batch)[1] != voted).sum())
    other = int((judge.another_verdict(x, y) != voted).sum())
    if again or other > FEW * len(x):
        how = "with the same draws" if again else "with other draws"
        rows = again or other
        fact = f"in another vote of {judge.votes} passes {how}, {rows} of {len(x)} clean images get another class"
        yield finding("unsettled-votes", fact, same_draws=again, other_draws=other, of=len(x), votes=judge.votes)
