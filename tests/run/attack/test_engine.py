"""The engine against closed forms, an independent library, and itself at other batch sizes."""

from __future__ import annotations

import time
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from engines import CPU, EPS, attack_all, plain, targets_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from epsbench.attacks.base import GradientAttack
from epsbench.attacks.fgsm import FGSM
from epsbench.attacks.mifgsm import MIFGSM
from epsbench.attacks.noise import Noise
from epsbench.attacks.norms import NORMS
from epsbench.attacks.norms.l2 import L2
from epsbench.attacks.pgd import PGD
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.few_rows import FEWEST
from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.speed.prepare import prepare


@pytest.mark.parametrize(
    "attack",
    [
        FGSM(),
        PGD(steps=7),
        PGD(steps=5, random_start=True, restarts=3),
        Noise(),
        MIFGSM(steps=4),
        PGD(norm=L2()),
        Noise(norm=L2()),
    ],
    ids=repr,
)
def test_verdicts_do_not_depend_on_the_batch_size(network, digits, attack):
    _, _, targets = targets_of(network, digits, 150)
    verdicts = []
    for batch in (1, 7, 64, 512):
        outcomes, _ = attack_all(network, targets, attack, batch=batch)
        verdicts.append(np.stack([o.fooled for o in outcomes]))
    for other in verdicts[1:]:
        np.testing.assert_array_equal(other, verdicts[0])
    assert 0 < verdicts[0].mean() < 1 or isinstance(attack, Noise)


@pytest.mark.parametrize("attack", [FGSM(), PGD(steps=7), PGD(steps=5, random_start=True, restarts=3)], ids=repr)
def test_rows_wait_for_a_judge_that_sees_more_at_a_time_and_none_is_lost(network, digits, attack):
    _, _, targets = targets_of(network, digits, 150)
    expected, _ = attack_all(network, targets, attack, batch=16)
    engine = Engine(plain(network), Judge(network, CPU), targets, 16, keep=150)
    engine.judge.lay(torch.channels_last, 64)
    engine.clean_logits()  # before the sizes of the batches are noted
    sizes: list[int] = []
    engine.judge.network.register_forward_hook(lambda module, given, logits: sizes.append(len(logits)))
    actual = list(engine.run(attack, EPS, seed=0))
    for mine, right in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(mine.fooled, right.fooled)
        assert (mine.backwards, mine.judge_forwards) == (right.backwards, right.judge_forwards)
    repeated = sum(sizes) - sum(o.judge_forwards for o in actual)
    assert 0 <= repeated <= (FEWEST - 1) * sizes.count(FEWEST)
    assert max(sizes) == 64
    assert sorted(sizes)[len(sizes) // 2] > 16


def reference(network, name, eps, x, y, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torchattacks = pytest.importorskip("torchattacks", reason="torchattacks is a test extra")
        return getattr(torchattacks, name)(network, eps=eps, **options)(x, y)


@pytest.mark.parametrize("eps", EPS)
def test_fgsm_equals_torchattacks(network, digits, eps):
    x, y, targets = targets_of(network, digits, 200)
    (outcome,), _ = attack_all(network, targets, FGSM(), [eps])
    expected = reference(network, "FGSM", float(eps), x, y)
    assert (outcome.images - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("eps", EPS)
def test_pgd_linf_equals_torchattacks(network, digits, eps):
    x, y, targets = targets_of(network, digits, 200)
    (outcome,), _ = attack_all(network, targets, PGD(steps=10), [eps], early_stop=False)
    expected = reference(network, "PGD", float(eps), x, y, alpha=0.25 * float(eps), steps=10, random_start=False)
    with torch.no_grad():
        last_fools = network(expected).argmax(1) != y
    # Where the last iterate does not fool, the engine may keep an earlier one that did; the rest is the same path.
    same = last_fools | ~torch.from_numpy(outcome.fooled)
    assert (outcome.images - expected)[same].abs().max() <= 1e-5
    assert same.float().mean() > 0.97
    assert (torch.from_numpy(outcome.fooled) >= last_fools).all()


@pytest.mark.parametrize("eps", [0.5, 1.0])
def test_pgd_l2_equals_torchattacks(network, digits, eps):
    x, y, targets = targets_of(network, digits, 200)
    (outcome,), _ = attack_all(network, targets, PGD(steps=10, norm=L2()), [Fraction(eps)], early_stop=False)
    # Its default of 1e-10 under the division outweighs the gradient of a confident example.
    options = {"alpha": 0.25 * eps, "steps": 10, "random_start": False, "eps_for_division": 1e-30}
    expected = reference(network, "PGDL2", eps, x, y, **options)
    with torch.no_grad():
        last_fools = network(expected).argmax(1) != y
    same = last_fools | ~torch.from_numpy(outcome.fooled)
    assert (outcome.images - expected)[same].abs().max() <= 1e-5
    assert same.float().mean() > 0.97


def test_early_stopping_changes_cost_but_no_verdict(network, digits):
    _, _, targets = targets_of(network, digits, 150)
    stopped, _ = attack_all(network, targets, PGD(steps=10, random_start=True))
    full, _ = attack_all(network, targets, PGD(steps=10, random_start=True), early_stop=False)
    for a, b in zip(stopped, full, strict=True):
        np.testing.assert_array_equal(a.fooled, b.fooled)
        assert b.backwards == 10 * len(targets)
        assert a.backwards < b.backwards


def test_the_clean_gradient_is_computed_once_for_all_eps_and_attacks(network, digits):
    _, _, targets = targets_of(network, digits, 100)
    victim = plain(network)
    engine = Engine(victim, Judge(network, CPU), targets, 32)
    list(engine.run(FGSM(), EPS, seed=0))
    assert victim.backwards == len(targets)
    list(engine.run(PGD(steps=3), EPS, seed=0, early_stop=False))
    assert victim.backwards == len(targets) + 2 * len(targets) * len(EPS)


def test_restarts_attack_survivors_only(network, digits):
    _, _, targets = targets_of(network, digits, 120)
    one, _ = attack_all(network, targets, PGD(steps=3, random_start=True), early_stop=False)
    five, _ = attack_all(network, targets, PGD(steps=3, random_start=True, restarts=5), early_stop=False)
    for a, b in zip(one, five, strict=True):
        assert (b.fooled >= a.fooled).all()
        assert b.backwards <= 3 * (len(targets) + 4 * (len(targets) - a.fooled.sum()))


@settings(max_examples=25)
@given(
    steps=st.integers(1, 6), restarts=st.integers(1, 3), batch=st.integers(1, 90), n=st.integers(1, 60),
    count=st.integers(1, 3), early=st.booleans(), poll=st.integers(1, 4), norm=st.sampled_from(["linf", "l2"]),
)  # fmt: skip
def test_packed_equals_one_row_at_a_time(network, digits, steps, restarts, batch, n, count, early, poll, norm):
    """Any mix of ε, steps, restarts, batch size, polling and retirement gives the verdicts of a plain loop."""
    x, y, targets = targets_of(network, digits, n)
    attack = PGD(steps=steps, restarts=restarts, random_start=restarts > 1, norm=NORMS[norm])
    eps = EPS[:count]
    outcomes, _ = attack_all(network, targets, attack, eps, batch=batch, early_stop=early, engine={"poll": poll})
    for e, outcome in zip(eps, outcomes, strict=True):
        np.testing.assert_array_equal(outcome.fooled, plain_loop(network, attack, float(e), x, y, targets))


def plain_loop(network, attack: GradientAttack, eps: float, x, y, targets: Targets) -> np.ndarray:
    """The attack as a paper writes it: no slots, no retirement, no sharing."""
    everyone = torch.arange(len(x))
    fooled = torch.zeros(len(x), dtype=torch.bool)
    radius = torch.full((len(x), 1, 1, 1), eps)
    for restart in range(attack.restarts):
        x_adv = x
        if attack.random_start:
            noise = targets.noise(0, everyone, torch.full_like(everyone, restart))
            x_adv = (x + attack.norm.project(attack.norm.start(noise, x, radius), radius)).clamp(0, 1)
        for _ in range(attack.steps):
            at = x_adv.detach().requires_grad_(True)
            loss = nn.functional.cross_entropy(network(at), y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, at)
            moved = x_adv + attack.relative_step_size * eps * attack.norm.direction(gradient)
            x_adv = (x + attack.norm.project(moved - x, radius)).clamp(0, 1).detach()
            with torch.no_grad():
                fooled |= network(x_adv).argmax(1) != y
        if attack.random_start:
            with torch.no_grad():
                noise = targets.noise(0, everyone, torch.full_like(everyone, restart))
                start = (x + attack.norm.project(attack.norm.start(noise, x, radius), radius)).clamp(0, 1)
                fooled |= network(start).argmax(1) != y
    return fooled.numpy()


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_prepared_victims_agree_with_the_plain_loop_and_leave_the_model_alone(network, digits, precision):
    _, _, targets = targets_of(network, digits, 200)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    x, y = targets.pixels(torch.arange(16)), targets.labels[:16]
    victim = prepare(network, CPU, precision, x, y)
    prepared, _ = attack_all(network, targets, PGD(steps=10), victim=victim)
    assert network.training
    network.eval()
    assert victim.form == "folded, channels-last"
    assert not victim.findings
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(p.requires_grad for p in network.parameters())
    expected, _ = attack_all(network, targets, PGD(steps=10))
    for a, b in zip(prepared, expected, strict=True):
        assert abs(a.fooled.mean() - b.fooled.mean()) <= (0.0 if precision == "float32" else 0.03)


@pytest.mark.parametrize(
    "attack", [PGD(steps=8), FGSM(), PGD(steps=4, random_start=True, restarts=2), Noise()], ids=repr
)
def test_nested_never_lets_robust_accuracy_rise_and_only_adds_to_each(network, digits, attack):
    _, _, targets = targets_of(network, digits, 120)
    each, _ = attack_all(network, targets, attack)
    nested, _ = attack_all(network, targets, attack, curve="nested")
    running = np.zeros(len(targets), dtype=bool)
    for a, b in zip(each, nested, strict=True):
        running |= a.fooled
        np.testing.assert_array_equal(b.fooled, running)
        assert b.attacked.sum() == len(targets) - (running & ~b.attacked).sum()
    assert sum(o.backwards for o in nested) <= sum(o.backwards for o in each)
    assert torch.isfinite(nested[-1].images).all()


def test_bisect_agrees_with_each_where_the_curve_is_monotone_and_attacks_less(network, digits):
    _, _, targets = targets_of(network, digits, 150)
    eps = [Fraction(k, 40) for k in range(1, 9)]
    each, _ = attack_all(network, targets, PGD(steps=10), eps)
    bisect, _ = attack_all(network, targets, PGD(steps=10), eps, curve="bisect")
    e, b = np.stack([o.fooled for o in each]), np.stack([o.fooled for o in bisect])
    monotone = (np.diff(e.astype(int), axis=0) >= 0).all(0)
    assert monotone.mean() > 0.9
    np.testing.assert_array_equal(b[:, monotone], e[:, monotone])
    assert sum(o.attacked.sum() for o in bisect) <= 4 * len(targets)
    assert all(o.size[o.attacked].max() <= float(o.eps) + 1e-6 for o in bisect if o.attacked.any())


class ThirdIterate(nn.Module):
    """Fooled only while the mean pixel is in a narrow band that a path crosses; everywhere else right, but barely.

    So barely that bf16 doubts every iterate, and the first it nominates is not the one that fools.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.float().flatten(1).mean(1)
        in_band = ((mean - 0.55).abs() < 0.012).float()
        right = 10.3 - 0.2 * mean
        return torch.stack([right, (right - 0.05 + 0.1 * in_band).detach()], 1)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_without_early_stopping_an_iterate_that_fools_in_the_middle_is_kept(precision):
    x, y = torch.full((4, 1, 4, 4), 0.5), torch.zeros(4, dtype=torch.int64)
    targets = Targets(lambda at: x[at], y, torch.arange(4))
    attack = PGD(steps=10, relative_step_size=0.1)
    for early_stop in (True, False):
        victim = Victim(ThirdIterate(), CPU, precision, "plain")
        engine = Engine(victim, Judge(ThirdIterate(), CPU), targets, 4)
        (outcome,) = engine.run(attack, [Fraction(1, 4)], seed=0, early_stop=early_stop)
        assert outcome.fooled.all()


def test_an_attack_on_nothing_is_an_empty_outcome(network):
    targets = Targets(
        lambda at: torch.zeros(0, 1, 8, 8)[at], torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
    )
    outcomes, _ = attack_all(network, targets, PGD())
    assert [len(outcome.fooled) for outcome in outcomes] == [0, 0, 0]


def test_seconds_hold_the_packing_and_the_price_of_a_shared_gradient(network, digits):
    """Summed over ε, seconds are the wall time, but for the shared gradient, which every ε bears in full."""
    _, _, targets = targets_of(network, digits, 300)
    for attack in (PGD(steps=8, random_start=True), PGD(steps=8), FGSM()):
        shares = []
        for _ in range(3):  # what a busy machine puts between the engine's work is in one of three, not in all
            engine = Engine(plain(network), Judge(network, CPU), targets, 64)
            engine.clean_logits()  # known to a run before its attacks
            started = time.perf_counter()
            outcomes = list(engine.run(attack, EPS, seed=0, early_stop=False))
            wall = time.perf_counter() - started
            own = sum(outcome.seconds for outcome in outcomes) - (len(EPS) - 1) * engine.clean.seconds
            shares.append(own / wall)
            assert all((outcome.shared_backwards == 300) is (not attack.random_start) for outcome in outcomes)
        assert 0.8 <= max(shares) <= 1
