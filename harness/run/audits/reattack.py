"""Attacks of the audits' own on a few images: two along gradients, with different losses, and one by scores alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass

import torch
from torch import Tensor

from epsbench.attacks.losses import CROSS_ENTROPY, Loss
from epsbench.attacks.norms import Norm
from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.audits.attacked import Attacked
from epsbench.harness.run.audits.boundary import JUMPED, along_boundary
from epsbench.harness.run.audits.probe import Probe, log_odds
from epsbench.harness.run.audits.search import MARGIN, score_search
from epsbench.harness.run.metrics import share_of
from epsbench.harness.statistics import mcnemar_exact

IMAGES, FEWEST = 48, 16  # attacked; with fewer there is no finding
STEPS, STEP = 15, 0.25  # the number of gradient steps and their size as a share of ε
# After so many steps, which lead to the surface of the ball, those images leave that would not be fooled if each step
# to come gained as much as the last ones did on average: along the surface, steps gain less and less. That holds where
# the way to the surface was even, each step of it gaining at least a share of what the best one did. A model that masks
# its gradients has plateaus, and jumps behind them.
SETTLED, LAST, EVEN = 5, 3, 0.25
SIGNIFICANT = 1e-3
SATURATED, UNSURE = 1 - 1e-4, 0.5  # median probabilities of the predicted class
MUCH = 0.15  # of the images; a smaller difference is not reported
# An attack begins with so many images, those nearest to another class, and goes on where it fools at least so many of
# them. Where it would fool enough of all images for a finding, it fools more than that of these, and one of the nearest
# half.
SCREENED, GO_ON = 12, 3
# Steps on the margin go on where they fool so many of the nearest half: they fool one of those of many honest models,
# and nearly all where the cross-entropy is flat.
OF_HALF = 2

Masks = tuple[Tensor, Tensor]


class Tried:
    """Which of N images an attack fools. An image is attacked when it is first asked for."""

    def __init__(
        self, attack: Callable[[Tensor], Tensor], n: int, device: torch.device, known: Masks | None = None
    ) -> None:
        """``attack`` takes positions (k,) of images and says which of those it fools, (k,).

        ``known`` are masks of those that were attacked before and of those that were fooled, which it goes on with.
        """
        self._attack = attack
        none = torch.zeros(n, dtype=torch.bool, device=device)
        self._known, self._fooled = known or (none, none.clone())

    @property
    def masks(self) -> Masks:
        """Which images were attacked until now, (N,), and which of them are fooled, (N,)."""
        return self._known, self._fooled

    def __call__(self, rows: Tensor) -> Tensor:
        """Which of the images marked in ``rows`` (N,) are fooled, (N,)."""
        new = (rows & ~self._known).nonzero().flatten()
        if len(new):
            self._fooled[new] = self._attack(new)
            self._known[new] = True
        return self._fooled & rows


@dataclass(frozen=True)
class Reattacked:
    """Which of N attacked images each attack fools, by the judge's verdict."""

    cross_entropy: Tried
    """By steps along the gradient of the cross-entropy."""

    margin: Tried
    """By steps along the gradient of the margin."""

    search: Tried
    """By scores alone."""

    nearest: Tensor
    """Positions (N,), those first whose logits are nearest to another class without an attack."""

    confidence: Tensor
    """The probability of the predicted class of each clean image, (N,)."""

    smallest: Tried | None = None
    """By steps along gradients to the nearest image that fools; None: they are not tried under this norm."""

    def first(self, rows: Tensor, count: int = SCREENED) -> Tensor:
        """Of the images marked in ``rows`` (N,) the ``count`` nearest to another class, (N,)."""
        marked = self.nearest[rows[self.nearest]][:count]
        return torch.zeros_like(rows).index_fill_(0, marked, True)

    def begins(self, attack: Tried, rows: Tensor, least: int, of_half: int = 1) -> bool:
        """Whether an attack fools ``of_half`` of the nearest half of those of ``rows`` (N,) that are screened.

        ``least`` must be able to fall.
        """
        n, half = int(rows.sum()), SCREENED // 2
        few = int(attack(self.first(rows, half)).sum())
        return (n <= SCREENED or few >= of_half) and few + max(0, n - half) >= least

    def worth(self, attack: Tried, rows: Tensor, least: int, of_half: int = 1) -> bool:
        """Whether an attack `begins`, and fools enough of the nearest of ``rows`` (N,) to be tried on all."""
        if not self.begins(attack, rows, least, of_half):
            return False
        return int(attack(self.first(rows)).sum()) >= min(GO_ON, int(rows.sum()))

    def fools(self, attack: Tried, rows: Tensor, least: int) -> bool:
        """Whether an attack fools ``least`` of ``rows`` (N,); the nearest are attacked first, until that is certain."""
        n = int(rows.sum())
        for asked in range(SCREENED, n + SCREENED, SCREENED):
            fooled = int(attack(self.first(rows, asked)).sum())
            if fooled >= least or fooled + max(0, n - asked) < least:
                break
        else:
            return least <= 0
        return fooled >= least

    def standing(self, rows: Tensor) -> Tensor:
        """Those of ``rows`` (N,) that steps on the margin are not known to fool; for the nearest it is known."""
        while (self.margin(self.first(rows)) & rows).any():
            rows = rows & ~self.margin.masks[1]
        return rows & ~self.margin.masks[1]


def reattack(
    probe: Probe,
    attacked: Attacked,
    x: Tensor,
    y: Tensor,
    logits: Tensor,
    norm: Norm,
    eps: float,
    others: Tensor,
    memory: tuple[MutableMapping[str, Masks], str] | None = None,
) -> Reattacked:
    """Attacks on images ``x`` (N, C, H, W) that are classified correctly, as labels ``y`` (N,), at ``eps``.

    ``logits`` (N, classes) are those of the images. Gradients are those of the ``attacked`` form, as the recorded
    attack follows them. ``others`` (M, C, H, W) are further images, of any class: the search by scores tries steps
    towards them, and ends early on images where steps on the margin have come much further. ``memory`` has what
    was tried before, by the name of an attack after this key, and takes what is new.
    """
    table, key = memory or ({}, "")
    nothing = torch.full((len(x),), math.nan, device=x.device)
    reached, _ = table.setdefault(f"{key} reached", (nothing, nothing))

    def tried(name: str, fools: Callable[[Tensor], Tensor]) -> Tried:
        attack = Tried(fools, len(x), x.device, table.get(f"{key} {name}"))
        table[f"{key} {name}"] = attack.masks
        return attack

    def along(loss: Loss, at: Tensor) -> tuple[Tensor, Tensor]:
        return along_gradient(probe, attacked, x[at], y[at], norm, eps, loss)

    def margin(at: Tensor) -> Tensor:
        stands, reached[at] = along(MARGIN, at)
        return ~stands

    return Reattacked(
        tried("cross-entropy", lambda at: ~along(CROSS_ENTROPY, at)[0]),
        tried("margin", margin),
        tried("search", lambda at: score_search(probe, x[at], y[at], norm, eps, others, reached[at])),
        log_odds(logits, y).argsort(descending=True, stable=True),
        logits.softmax(1).amax(1),
        tried("smallest", lambda at: along_boundary(attacked, probe.judge, x[at], y[at], norm, eps))
        if norm.name in JUMPED
        else None,
    )


def audit_reattack(result: Reattacked, fooled: Tensor, eps: float) -> Iterator[Finding]:
    """What the attacks of the audits fool, beyond the images (N,) that the recorded attack has ``fooled`` at ``eps``.

    Without those the finding would doubt a number that already counts them. Each attack begins with the images that
    are nearest to another class, and goes on where it fools some of them.
    """
    if len(fooled) < FEWEST:
        return
    left, n = ~fooled, len(fooled)
    enough = math.floor(max(MUCH * n, FEWEST / 4)) + 1
    if int(left.sum()) < enough:  # too few for either finding
        return
    if result.worth(result.margin, left, 0, OF_HALF):
        yield from _by_margin_alone(result, fooled, eps)
        left = result.standing(left)
    if result.begins(result.search, left, enough):
        left = result.standing(left)  # what steps on the margin fool, the search is not tried on
        if result.worth(result.search, left, enough):
            yield from _by_search_alone(result, fooled, left, enough, eps)


def _by_margin_alone(result: Reattacked, fooled: Tensor, eps: float) -> Iterator[Finding]:
    n, everyone = len(fooled), torch.ones_like(fooled)
    least = next(k for k in range(math.floor(MUCH * n) + 1, n + 99) if mcnemar_exact(k, 0) < SIGNIFICANT)
    if not result.fools(result.margin, ~fooled, least):
        return
    cross_entropy, margin = result.cross_entropy(everyone), result.margin(everyone)
    gained = int((margin & ~cross_entropy & ~fooled).sum())
    lost = int((cross_entropy & ~margin).sum())
    if gained - lost > MUCH * n and mcnemar_exact(gained, lost) < SIGNIFICANT:
        shares = {"cross_entropy": share_of(cross_entropy), "margin": share_of(margin)}
        fact = (
            f"{STEPS} steps fool {shares['cross_entropy']:.0%} by the cross-entropy, {shares['margin']:.0%} by margin"
        )
        confidence = float(result.confidence.median())
        cause, remedy = _why_margin(confidence)
        yield finding("margin-beats-cross-entropy", f"{fact}: {cause}", remedy, **shares, images=n, eps=eps,
                      confidence=confidence)  # fmt: skip


def _by_search_alone(result: Reattacked, fooled: Tensor, left: Tensor, enough: int, eps: float) -> Iterator[Finding]:
    """``left`` (N,) are the images that neither the recorded attack nor the margin fools, as far as that is known."""
    n = len(fooled)
    if not result.fools(result.search, left, enough):
        return
    more = result.search(left)
    more &= ~result.margin(more) & ~result.cross_entropy(more)  # what gradients find is no sign of masking
    if result.smallest is not None and int(more.sum()) >= enough:
        more &= ~result.smallest(more)
    if int(more.sum()) >= enough:
        shares = {"recorded": share_of(fooled), "search": share_of(more)}
        fact = (
            f"of {n} images, this attack fools {shares['recorded']:.0%}, and a short search without gradients "
            f"{shares['search']:.0%} that gradient steps with two losses do not fool either"
        )
        yield finding("score-search-beats-gradient", fact, **shares, images=n, eps=eps)


def _why_margin(confidence: float) -> tuple[str, str]:
    """Why steps on the margin fool more images, by the median ``confidence`` of the clean ones, and what to do."""
    use = "use an attack with a margin loss"
    if confidence > SATURATED:
        return (
            f"the model is so sure (median probability {confidence:.6f}) that the cross-entropy is flat",
            f"divide the logits by their scale, or {use}",
        )
    if confidence < UNSURE:
        return (
            f"the model is unsure (median probability {confidence:.0%}), and the cross-entropy leads to all other "
            "classes at once",
            f"{use}, and train the model longer if it should be surer",
        )
    return "the cross-entropy leads elsewhere than to the nearest class", use


def along_gradient(
    probe: Probe, attacked: Attacked, x: Tensor, y: Tensor, norm: Norm, eps: float, loss: Loss
) -> tuple[Tensor, Tensor]:
    """Which images (N,) withstand projected steps along the gradient of ``loss``, at every step.

    The judge decides about the last point, and before that where the logits that come with the next gradient leave a
    doubt. Images that steps no longer move towards another class leave early. Also returns the highest `Margin` (N,)
    on the way.
    """
    radius = x.new_full((len(x), 1, 1, 1), eps)
    x_adv, stands = x, torch.ones_like(y, dtype=torch.bool)
    follows = stands.clone()
    reached = torch.full((len(x),), -math.inf, device=x.device)
    after: list[Tensor] = []  # `reached` at each step

    def judged(at: Tensor, points: Tensor) -> None:
        """Ask the judge about ``points`` of the images at these positions."""
        if len(at):
            logits = probe.logits(points)
            stands[at] = logits.argmax(1) == y[at]
            reached[at] = torch.maximum(reached[at], MARGIN(logits, y[at]))

    for step in range(STEPS):
        if step >= SETTLED:
            way = torch.stack(after[:SETTLED]).diff(dim=0)
            even = (way.amin(0) > 0) & (way.amin(0) >= EVEN * way.amax(0))
            gained = (reached - after[-1 - LAST]) / LAST
            follows &= ~(even & (reached + gained * (STEPS + 1 - step) < 0))
        left = (follows & stands).nonzero().flatten()
        if not len(left):
            break
        gradient, logits = attacked.query(loss, x_adv[left], y[left])
        reached[left] = torch.maximum(reached[left], MARGIN(logits, y[left]))
        # Not a comparison with 0 from above: the judge sees what is NaN, too.
        doubtful = ~(attacked.victim.margin(logits, y[left]) > 0)
        if step and bool(doubtful.any()):
            judged(left[doubtful], x_adv[left[doubtful]])
        at, ball = x_adv[left], radius[left]
        moved = norm.into_ball(x[left], norm.step(at, gradient, STEP * ball), ball)
        go_on = stands[left]
        x_adv = x_adv.index_copy(0, left[go_on], moved[go_on])
        after.append(reached.clone())
    left = (follows & stands).nonzero().flatten()
    judged(left, x_adv[left])
    return stands, reached
