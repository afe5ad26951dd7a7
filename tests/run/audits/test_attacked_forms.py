"""The form of a model that is attacked, and its copies, are compared with the model that decides."""

from __future__ import annotations

import torch
from broken_models import Scaled, Wrapped
from disguises import FlipsOnTheWay
from hidden_gradients import zeroed
from late_gradients import SpoiledOffGrid
from memories import Remembers
from torch import nn
from torch.nn import functional as F
from zoo import CPU, codes, measure, probe_of

from epsbench.attacks.losses import CROSS_ENTROPY, Margin
from epsbench.harness.run.attack.victim import Victim, rise
from epsbench.harness.run.audits.attacked import Attacked
from epsbench.harness.run.audits.points import on_the_way, points
from epsbench.harness.run.audits.same_function import audit_same_as_judged, audit_same_function, audit_same_gradient
from epsbench.harness.run.audits.slope import audit_slope

SPEED_ALONE = {"not-prepared", "not-folded", "not-traced", "not-mixed"}


def test_another_gradient_in_the_attacked_copy_is_reported(honest):
    probe = probe_of(honest)

    def mirrored(x: torch.Tensor) -> torch.Tensor:
        return probe.judge.network(2 * x.detach() - x)

    assert not list(audit_same_gradient(probe, Victim(probe.judge.network, CPU, "float32", "plain")))
    (finding,) = audit_same_gradient(probe, Victim(mirrored, CPU, "float32", "plain"))
    assert finding.code == "copy-differs-under-attack"


class Together(nn.Module):
    """All logits rise together, so the gradient of their difference is what rounding leaves of 0."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(1, 64, generator=torch.Generator().manual_seed(0)).repeat(10, 1))
        self.b = nn.Parameter(torch.arange(10.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ self.w.T + self.b


class RoundedOtherwise(Together):
    """The same within rounding."""

    def __init__(self) -> None:
        super().__init__()
        self.w.data += 2e-7 * torch.randn(10, 64, generator=torch.Generator().manual_seed(1))


def test_a_gradient_that_is_rounding_points_nowhere():
    probe = probe_of(Together())
    victim = Victim(RoundedOtherwise(), CPU, "float32", "plain")
    x, y = probe.x[:8], probe.y[:8]
    cosine = F.cosine_similarity(victim.slope(x, y).flatten(1), probe.gradient_of(rise, x, y).flatten(1))
    assert (cosine < 0.5).any()
    assert not list(audit_same_gradient(probe, victim))


def test_a_tiny_gradient_is_compared_like_any_other(honest):
    probe = probe_of(Scaled(honest, 1e-25))
    network = probe.judge.network
    assert not list(audit_same_gradient(probe, Victim(network, CPU, "float32", "plain")))
    (finding,) = audit_same_gradient(probe, Victim(lambda x: network(2 * x.detach() - x), CPU, "float32", "plain"))
    assert finding.code == "copy-differs-under-attack"


def test_a_copy_that_saw_nothing_shows_what_a_model_remembers(honest):
    """Though the model itself is asked first, about the clean images."""
    original = Remembers(honest).eval()
    probe = probe_of(original)
    probe.logits(probe.x)
    moved = points(probe, probe.gradient(probe.x, probe.y))
    assert "copy-differs-under-attack" in {each.code for each in audit_same_function(probe, moved, original)}
    probe = probe_of(honest)
    assert not list(audit_same_function(probe, moved, honest))


def test_a_true_number_stands_where_the_attacked_form_sees_through_a_zeroed_gradient(honest, tmp_path):
    """Folding batch norm traces the network, and a custom derivative is lost: the attack follows the true one."""
    (expected,) = measure(honest, tmp_path, ['"pgd"'], [0.1])
    (record,) = measure(SpoiledOffGrid(honest, zeroed).eval(), tmp_path, ['"pgd"'], [0.1])
    assert (record.status, record.metrics["robust_accuracy"]) == ("ok", expected.metrics["robust_accuracy"])
    # The classifiers of the binarisation test are built on the model itself, whose gradient is 0.
    assert codes([record]) - SPEED_ALONE == {"zero-gradient", "attack-misses-constructed-example"}


def test_the_attacked_form_is_asked_without_being_counted(honest):
    probe = probe_of(honest)
    victim = Victim(probe.judge.network, CPU, "float32", "plain")
    attacked = Attacked(victim, 20)
    gradient, logits = attacked.query(CROSS_ENTROPY, probe.x, probe.y)
    torch.testing.assert_close(gradient, probe.gradient(probe.x, probe.y))
    torch.testing.assert_close(logits, probe.logits(probe.x))
    margins, _ = attacked.query(Margin(), probe.x, probe.y)
    assert (victim.forwards, victim.backwards) == (0, 0)
    assert not margins.equal(gradient)
    torch.testing.assert_close(attacked.logits(probe.x), attacked.logits_with_gradient(probe.x, probe.y))
    assert (victim.forwards, victim.backwards) == (0, 0)


def test_a_low_precision_is_no_other_model(honest):
    """Nor is one that overflows: what is not finite is not compared."""
    probe = probe_of(honest)
    moved = points(probe, probe.gradient(probe.x, probe.y))
    low = Attacked(Victim(probe.judge.network, CPU, "bf16", "plain"), 64)
    assert not list(audit_same_as_judged(probe, low, moved))

    def other(x: torch.Tensor) -> torch.Tensor:
        return probe.judge.network(x.flip(3))

    (remark,) = audit_same_as_judged(probe, Attacked(Victim(other, CPU, "bf16", "plain"), 64), moved)
    assert remark.code == "copy-differs-under-attack"
    assert not list(
        audit_same_as_judged(probe, Attacked(Victim(lambda x: other(x) * torch.inf, CPU, "bf16", "plain"), 64), moved)
    )


def test_a_gradient_that_is_false_on_the_way_alone_is_reported(honest):
    probe = probe_of(FlipsOnTheWay(honest))
    moved = points(probe, probe.gradient(probe.x, probe.y))
    assert not list(audit_slope(probe, moved))
    (finding,) = audit_slope(probe, {"clean": probe.x, "on the way": on_the_way(probe.x, moved["one step"])})
    assert (finding.code, finding.evidence["where"]) == ("decoy-gradient", "on the way")


class OneLayout(Wrapped):
    """Refuses images that do not lie in memory row by row, as `view` does."""

    def before(self, x: torch.Tensor) -> torch.Tensor:
        if not x.is_contiguous() or x.stride()[1] == 1:
            raise RuntimeError("view size is not compatible with input tensor's size and stride")
        return x


def test_a_layout_that_a_model_refuses_is_not_compared(honest):
    probe = probe_of(OneLayout(honest))
    assert not list(audit_same_function(probe, {"clean": probe.x}, None))
