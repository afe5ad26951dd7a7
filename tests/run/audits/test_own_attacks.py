"""The audits' own attacks: a search by scores and steps along gradients, each tried on few images first."""

from __future__ import annotations

import pytest
import torch
from broken_models import Scaled
from hypothesis import given, strategies
from lookups import Robust
from zoo import CPU, digits, probe_of

from epsbench.attacks.losses import CROSS_ENTROPY, Loss, Margin
from epsbench.attacks.norms import NORMS
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.audits.attacked import Attacked
from epsbench.harness.run.audits.gradients import step_success
from epsbench.harness.run.audits.reattack import (
    FEWEST,
    GO_ON,
    MUCH,
    SIGNIFICANT,
    Reattacked,
    Tried,
    along_gradient,
    audit_reattack,
    reattack,
)
from epsbench.harness.run.audits.search import MARGIN, QUERIES, score_search
from epsbench.harness.statistics import mcnemar_exact


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.2), ("l2", 1.0)])
def test_the_search_fools_an_undefended_model_within_the_ball_and_repeats_itself(honest, norm, eps):
    probe = probe_of(honest)
    others = digits().train.pixels(slice(0, 200))
    fooled = score_search(probe, probe.x, probe.y, NORMS[norm], eps, others)
    assert fooled.float().mean() > 0.4
    assert score_search(probe, probe.x, probe.y, NORMS[norm], eps, others).equal(fooled)
    few = score_search(probe, probe.x[:5], probe.y[:5], NORMS[norm], eps, others)
    assert few.equal(fooled[:5])
    assert not score_search(probe, probe.x, probe.y, NORMS[norm], 1e-4, others)[
        honest(probe.x).argmax(1) == probe.y
    ].any()


def test_the_search_beats_gradients_where_images_are_looked_up(honest):
    probe = probe_of(Robust(honest))
    linf, others = NORMS["linf"], digits().train.pixels(slice(0, 512))
    attacked = Attacked(Victim(probe.judge.network, CPU, "float32", "plain"), 64)
    stands, _ = along_gradient(probe, attacked, probe.x, probe.y, linf, 0.3, CROSS_ENTROPY)
    assert score_search(probe, probe.x, probe.y, linf, 0.3, others).float().mean() > (~stands).float().mean()


def test_the_search_ends_early_where_gradients_lead_further_and_nowhere_else(honest):
    probe = probe_of(honest)
    logits, others = probe.logits(probe.x), digits().train.pixels(slice(0, 200))
    right = logits.argmax(1) == probe.y
    x, y, start = probe.x[right], probe.y[right], MARGIN(logits, probe.y)[right]
    linf = NORMS["linf"]

    def searched(reached: torch.Tensor | None) -> tuple[torch.Tensor, int]:
        probe.forget()
        before = probe.judge.forwards
        return score_search(probe, x, y, linf, 0.05, others, reached), probe.judge.forwards - before

    whole, rows = searched(None)
    for no_further in (start, torch.full_like(start, torch.nan)):  # as where gradients are masked, or were not followed
        assert searched(no_further)[0].equal(whole)
        assert searched(no_further)[1] == rows
    early, fewer = searched(start + 1000)
    assert not (early & ~whole).any()
    assert len(x) < fewer < 0.2 * len(x) * QUERIES
    assert fewer < rows < len(x) * QUERIES
    half = torch.where(torch.arange(len(x)) % 2 == 0, start, start + 1000)
    mixed, _ = searched(half)
    assert mixed[::2].equal(whole[::2])
    assert mixed[1::2].equal(early[1::2])


def test_steps_along_the_gradient_end_where_the_judge_says_so(honest):
    """The judge is asked at the last point and where the attacked form is in doubt."""
    probe = probe_of(honest)
    attacked = Attacked(Victim(probe.judge.network, CPU, "float32", "plain"), 64)
    right = probe.logits(probe.x).argmax(1) == probe.y
    x, y, linf = probe.x[right], probe.y[right], NORMS["linf"]
    before = probe.judge.forwards
    stands, reached = along_gradient(probe, attacked, x, y, linf, 0.1, Margin())
    assert 0 < int(stands.sum()) < len(x)
    assert probe.judge.forwards - before <= 2 * len(x)
    assert ((reached >= 0) == ~stands).all()
    low = Attacked(Victim(probe.judge.network, CPU, "bf16", "plain"), 64)
    assert (along_gradient(probe, low, x, y, linf, 0.1, Margin())[0] != stands).sum() <= 2


class Counted(Attacked):
    """Counts the images whose gradients it is asked for, and has margins of its own at each step."""

    def __init__(self, attacked: Attacked, margins: list[list[float]]) -> None:
        super().__init__(attacked.victim, attacked.batch)
        object.__setattr__(self, "margins", margins)
        object.__setattr__(self, "asked", [])

    def query(self, loss: Loss, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        images = (10 * x[:, 0, 0, 0]).round().long().tolist()  # no step moves an image
        step = len(self.asked)
        self.asked.append(images)
        logits = torch.zeros(len(x), 10)
        logits[torch.arange(len(x)), y] = torch.tensor([-self.margins[image][step] for image in images])
        return torch.zeros_like(x), logits


def test_images_leave_where_steps_gain_too_little_after_an_even_way_and_nowhere_else(honest):
    """Masked gradients have plateaus and jumps: an image that met one is followed to the last step."""
    even = [-9.0, -8.0, -7.0, -6.0, -5.0, -4.9, -4.8] + [-4.8] * 8  # it would come to -3.9
    lively = [-9.0, -8.0, -7.0, -6.0, -5.0, -4.0, -3.0, -2.0, -1.5] + [-1.0] * 6
    plateau = [-9.0, -9.0, -8.9, -6.0, -5.0] + [-5.0] * 10
    still = [-9.0] * 15
    probe = probe_of(honest)
    x = (torch.arange(4) / 10).view(4, 1, 1, 1).expand(4, 1, 8, 8).clone()
    attacked = Counted(
        Attacked(Victim(probe.judge.network, CPU, "float32", "plain"), 64), [even, lively, plateau, still]
    )
    along_gradient(probe, attacked, x, torch.zeros(4, dtype=torch.long), NORMS["linf"], 0.1, Margin())
    steps = [sum(image in asked for asked in attacked.asked) for image in range(4)]
    assert 5 < steps[0] < 9 < steps[1] < 15
    assert steps[2:] == [15, 15]


def test_an_attack_goes_on_until_it_is_certain_whether_it_fools_enough():
    asked: list[int] = []
    some = torch.arange(48) < 6
    tried = Reattacked(answers(some), answers(some, asked), answers(some), torch.arange(48), torch.ones(48))
    everyone = torch.ones(48, dtype=torch.bool)
    assert tried.fools(tried.margin, everyone, 6)
    assert len(asked) == 12
    assert not tried.fools(tried.margin, everyone, 25)  # 24 are left after the second dozen
    assert len(asked) == 36
    assert not tried.fools(tried.margin, everyone, 49)
    assert len(asked) == 36


def test_margin_steps_fool_where_the_cross_entropy_is_saturated(honest):
    for network, expected in ((honest, []), (Scaled(honest, 200.0), ["margin-beats-cross-entropy"])):
        probe = probe_of(network)
        attacked = Attacked(Victim(probe.judge.network, CPU, "float32", "plain"), 64)
        result = reattack(probe, attacked, probe.x, probe.y, probe.logits(probe.x), NORMS["linf"], 0.2, probe.x)
        findings = list(audit_reattack(result, torch.zeros(48, dtype=torch.bool), 0.2))
        assert [each.code for each in findings] == expected
        assert all(each.evidence["margin"] > each.evidence["cross_entropy"] + 0.15 for each in findings)


def test_a_step_of_saturated_logits_is_measured_all_the_same(honest):
    """So that scaled logits are not taken for catastrophic overfitting."""
    plain, scaled = (step_success(probe_of(each, 64), "linf", 0.2) for each in (honest, Scaled(honest, 1000.0)))
    assert abs(plain[0] - scaled[0]) <= 2  # rounding
    assert plain[0] > 10


@pytest.mark.parametrize(
    ("confidence", "remedy", "not_this"),
    [
        (1.0, "divide the logits by their scale", "train the model longer"),
        (0.15, "train the model longer", "divide the logits"),
        (0.9, "use an attack with a margin loss", "divide the logits"),
    ],
)
def test_the_remedy_for_steps_on_the_cross_entropy_fits_the_cause(confidence, remedy, not_this):
    none, some = torch.zeros(40, dtype=torch.bool), torch.arange(40) < 20
    ways = (answers(fooled) for fooled in (none, some, none))
    (remark,) = audit_reattack(Reattacked(*ways, torch.arange(40), torch.full((40,), confidence)), none, 0.1)
    assert remedy in remark.message
    assert not_this not in remark.message


def test_images_that_the_recorded_attack_fools_do_not_count():
    none = torch.zeros(40, dtype=torch.bool)
    some = torch.arange(40) < 20
    for ways, code in (
        ((none, none, some), "score-search-beats-gradient"),
        ((none, some, none), "margin-beats-cross-entropy"),
    ):
        result = Reattacked(*(answers(fooled) for fooled in ways), torch.arange(40), torch.ones(40))
        assert [each.code for each in audit_reattack(result, none, 0.1)] == [code]
        assert not list(audit_reattack(result, some, 0.1))


def test_what_steps_to_the_nearest_image_fool_is_no_sign_of_masked_gradients():
    none, some, asked = torch.zeros(40, dtype=torch.bool), torch.arange(40) < 20, []
    for reached, reported in ((some, False), (torch.arange(40) < 12, True), (none, True)):
        ways = answers(none), answers(none), answers(some)
        result = Reattacked(*ways, torch.arange(40), torch.ones(40), answers(reached, asked))
        assert bool(list(audit_reattack(result, none, 0.1))) == reported
    assert sorted(asked) == sorted(3 * list(range(20))), "only images that the search alone fools are asked about"
    asked.clear()
    nothing = Reattacked(
        answers(none), answers(none), answers(none), torch.arange(40), torch.ones(40), answers(some, asked)
    )
    assert not list(audit_reattack(nothing, none, 0.1))
    assert not asked


def answers(fooled: torch.Tensor, asked: list[int] | None = None) -> Tried:
    """An attack that fools these images; ``asked`` counts what it is asked for."""

    def attack(at: torch.Tensor) -> torch.Tensor:
        if asked is not None:
            asked.extend(at.tolist())
        return fooled[at]

    return Tried(attack, len(fooled), CPU)


def test_an_attack_that_fools_none_of_the_nearest_images_is_tried_on_no_others():
    none, asked, searched, given = torch.zeros(40, dtype=torch.bool), [], [], []
    nearest = torch.arange(40).flip(0)
    tried = Reattacked(answers(none, given), answers(none, asked), answers(none, searched), nearest, torch.ones(40))
    assert not list(audit_reattack(tried, none, 0.1))
    assert (sorted(asked), sorted(searched), given) == (list(range(34, 40)), list(range(34, 40)), [])
    recorded = torch.arange(40) >= 35  # images that the recorded attack fools are not attacked
    assert not list(audit_reattack(tried, recorded, 0.1))
    assert (min(asked), len(asked), len(set(asked))) == (29, 11, 11)
    # Of the nearest half, steps on the margin must fool two and the search one: the other half is asked, and no more.
    one, two = torch.arange(40) == 36, torch.arange(40) // 2 == 18
    for margin, search, asked, searched in ((one, none, 6, 6), (two, none, 12, 6), (none, one, 12, 12)):
        of_margin, of_search = [], []
        others = answers(margin, of_margin), answers(search, of_search)
        assert not list(audit_reattack(Reattacked(answers(none), *others, nearest, torch.ones(40)), none, 0.1))
        assert sorted(of_margin) == list(range(40 - asked, 40))
        # What steps on the margin fool is not searched once more than the nearest are asked about.
        assert len(of_search) == searched


def test_nothing_is_tried_where_too_few_images_are_left_for_a_finding():
    everyone, asked, searched = torch.ones(48, dtype=torch.bool), [], []
    nearest = torch.arange(48)
    tried = Reattacked(
        answers(everyone), answers(everyone, asked), answers(everyone, searched), nearest, torch.ones(48)
    )
    assert not list(audit_reattack(tried, nearest >= 7, 0.1))  # 7 are 15 %, and a finding needs more
    assert (asked, searched) == ([], [])
    none = torch.zeros(48, dtype=torch.bool)
    few = torch.arange(48) % 6 == 0  # of 8 images 2: the others cannot make up for those of the first 6
    tried = Reattacked(answers(none), answers(none), answers(few, searched), nearest, torch.ones(48))
    assert not list(audit_reattack(tried, nearest >= 8, 0.1))
    assert searched == list(range(6))


@given(strategies.lists(strategies.tuples(*[strategies.booleans()] * 4), min_size=16, max_size=48))
def test_the_short_way_finds_what_attacks_on_all_images_find(images):
    """Where enough of the nearest images are fooled for the attacks to go on."""
    cross_entropy, margin, search, recorded = (torch.tensor(each) for each in zip(*images, strict=True))
    n, left = len(recorded), ~recorded
    order = (left & (margin | search)).int().argsort(descending=True, stable=True)
    tried = Reattacked(answers(cross_entropy), answers(margin), answers(search), order, torch.ones(n))
    expected = set()
    gained, lost = int((margin & ~cross_entropy & left).sum()), int((cross_entropy & ~margin).sum())
    if gained - lost > MUCH * n and mcnemar_exact(gained, lost) < SIGNIFICANT:
        expected.add("margin-beats-cross-entropy")
    more = int((search & ~cross_entropy & ~margin & left).sum())
    if more > max(MUCH * n, FEWEST / 4):
        expected.add("score-search-beats-gradient")
    reported = {each.code for each in audit_reattack(tried, recorded, 0.1)}
    assert reported <= expected
    near = tried.first(left)
    if int((margin & near).sum()) >= GO_ON or "margin-beats-cross-entropy" not in expected:
        assert ("margin-beats-cross-entropy" in reported) == ("margin-beats-cross-entropy" in expected)
    after = tried.first(left & ~margin)
    if int((search & after).sum()) >= GO_ON and int((margin & near).sum()) >= GO_ON:
        assert reported == expected
