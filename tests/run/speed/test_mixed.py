"""A precision that does not pay is left, with a finding; one that does, and short work, is not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from epsbench.harness.finding_codes import CODES
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.speed import mixed
from epsbench.harness.run.speed.mixed import float32_where_faster

CPU = torch.device("cpu")
X = torch.rand(8, 1, 4, 4)
TARGETS = Targets(lambda at: X[at], torch.zeros(8, dtype=torch.int64), torch.arange(8))


def victim(precision: str) -> Victim:
    return Victim(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval().requires_grad_(False), CPU, precision, "plain")


@pytest.mark.parametrize(
    ("low", "rows", "kept"), [(3.5, 10**6, False), (1.2, 10**6, False), (1.0, 10**6, True), (0.5, 10**6, True),
                              (3.5, 100, True)],
)  # fmt: skip
def test_a_precision_that_does_not_pay_is_left(monkeypatch, low, rows, kept):
    times = iter([low, 1.0] * 3)
    monkeypatch.setattr(mixed, "seconds", lambda call, device, repeats: (call(), next(times))[1])
    tried = victim("bf16")
    float32_where_faster(tried, TARGETS, 8, rows)
    assert tried.precision == ("bf16" if kept else "float32")
    codes = [finding.code for finding in tried.findings]
    assert codes == ([] if kept else ["not-mixed"])
    assert set(codes) <= set(CODES)
    if not kept:
        assert f"bf16 takes {low:.1f} times as long as float32 here" in tried.findings[0].message


def test_float32_tries_nothing(monkeypatch):
    monkeypatch.setattr(mixed, "seconds", lambda *args: pytest.fail("timed"))
    float32_where_faster(victim("float32"), TARGETS, 8, 10**6)
    nobody = Targets(lambda at: X[at], torch.zeros(0, dtype=torch.int64), torch.arange(0))
    float32_where_faster(victim("bf16"), nobody, 8, 10**6)
