"""The answer a reader looks for first: the best model at an ε, by how much, whether that is certain, and its price."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from epsbench.harness.report.results.cells import numbers
from epsbench.harness.report.results.units import change_in_points, duration, norm_name, some_of
from epsbench.harness.report.robustness.leaderboard import Board, Row, rank
from epsbench.harness.report.robustness.scores import score_entry
from epsbench.harness.report.robustness.training_cost import training_seconds
from epsbench.harness.report.robustness.verdicts import difference_interval, records_at, worst


@dataclass(frozen=True)
class Answer:
    """What a leaderboard says at one ε, each part as a short text."""

    data: str
    """The data set."""
    norm: str
    """The norm, as a suite names it."""
    eps: str
    """ε as the suite spells it."""
    ranked: bool
    """Whether the leaderboard is sorted by this ε."""
    best: str
    """The label of the model whose worst case is the highest."""
    accuracy: str
    """Its worst case with the 95 % interval."""
    lead: str
    """By how many points it is ahead of the second, with the interval of that difference."""
    certain: bool | None
    """Whether that interval lies above zero; None where there is no second model."""
    verdict: str
    """The same in words."""
    attack: str
    """The attacks at this ε."""
    cost: str
    """The time of training the model, and of attacking it at this ε."""

    @property
    def title(self) -> str:
        """``"mnist, L∞ ε = 0.3"``."""
        return f"{self.data}, {norm_name(self.norm)} ε = {self.eps}"


def answers(boards: Sequence[Board]) -> list[Answer]:
    """One answer for every leaderboard and ε at which a model has a complete worst case, the smallest ε first."""
    return [answer for board in boards for answer in _of(board)]


def _of(board: Board) -> Iterator[Answer]:
    for eps, spelled in board.eps:
        complete = [
            row for row in rank(board.rows, eps) if row.worst[eps].value is not None and not row.worst[eps].note
        ]
        if eps > 0 and complete:
            yield _answer(board, eps, spelled, complete)


def _answer(board: Board, eps: Fraction, spelled: str, rows: Sequence[Row]) -> Answer:
    best = rows[0]
    lead, certain, verdict = _lead(best, rows[1], eps) if len(rows) > 1 else ("", None, "the only model")
    if not best.worst[eps].value:
        verdict = "no model keeps an image"
    attacks = [board.labels[attack] for attack in board.attacks[eps]]
    return Answer(
        board.data,
        board.norm,
        spelled,
        eps == board.ranked[0],
        best.label,
        score_entry(best.worst[eps]).plain,
        lead,
        certain,
        verdict,
        ("worst case of " if len(attacks) > 1 else "") + some_of(attacks, 4),
        _cost(best, eps),
    )


def _lead(best: Row, second: Row, eps: Fraction) -> tuple[str, bool | None, str]:
    interval = difference_interval(worst(second, eps), worst(best, eps))
    if interval is None:
        return "", None, f"not comparable with {second.label}: other test images or seeds"
    lead = f"{change_in_points(*interval)} over {second.label}"
    certain = interval[1] > 0
    return lead, certain, "certain: the interval lies above 0" if certain else "not certain: the interval includes 0"


def _cost(row: Row, eps: Fraction) -> str:
    trained = sum(training_seconds(row).values())
    attacked = sum(numbers([record.cost for record in records_at(row, eps)], "seconds"))
    parts = [f"{duration(trained)} of training"] if trained else []
    parts += [f"{duration(attacked)} of attacks"] if attacked else []
    return ", ".join(parts) or "not recorded"
