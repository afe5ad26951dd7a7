"""Sentences that summarize a leaderboard: which models are most and least robust, and which resist one step only."""

from __future__ import annotations

from fractions import Fraction

from epsbench.harness.report.results.cells import AttackKey
from epsbench.harness.report.results.units import norm_name, plural, some_of
from epsbench.harness.report.robustness.leaderboard import Board, Row
from epsbench.harness.report.robustness.scores import score_entry

ONE_STEP = "A model that resists one gradient step but not several is not robust"
OVERFITTED = (
    f"{ONE_STEP}. One that was trained on single steps has overfitted to them (catastrophic overfitting, Wong et al.)."
)


def board_sentences(board: Board) -> list[str]:
    """What was measured, and the models at the head and at the end of the leaderboard."""
    eps, spelled = board.ranked
    images = f" over {board.examples:,} test images" if board.examples else ""
    attacks = some_of(list(board.labels.values()))
    was = "was" if len(board.rows) == 1 else "were"
    sentences = [
        f"On {board.data}, {plural(len(board.rows), 'trained model')} {was} attacked with {attacks} "
        f"at {norm_name(board.norm)} ε up to {board.eps[-1][1]}{images}."
    ]
    ranked = [row for row in board.rows if row.rank is not None]
    if not ranked:
        return [*sentences, f"No model has a complete worst case at ε = {spelled}."]
    best = [row for row in ranked if row.rank == 1]
    if len(best) > 1 and len(best) == len(ranked):
        sentences.append(f"At ε = {spelled} the intervals of all models overlap; {_keeps(best[0], board)}")
    elif len(best) > 1:
        sentences.append(
            f"The first {len(best)} share a rank, because their intervals overlap; {_keeps(best[0], board)}"
        )
    else:
        sentences.append(f"Most robust: {_keeps(best[0], board)}")
    last = [row for row in ranked if row.rank == ranked[-1].rank and row.rank != 1]
    if len(last) > 1:
        sentences.append(f"{some_of([row.label for row in last])} share the last rank.")
    elif last and last[0].clean.value is not None:
        worst = score_entry(last[0].worst[eps])
        sentences.append(
            f"Least robust: {last[0].label} falls from {score_entry(last[0].clean).text} to {worst.plain}."
        )
    return sentences


def one_step_sentences(board: Board) -> list[str]:
    """Models that resist a single gradient step but not several, each at the largest ε where that shows.

    In a model trained on attacks this is catastrophic overfitting (Wong et al., "Fast is better than free", 2020).
    """
    gaps = [(row, *gap) for row in board.rows if (gap := _gap(row, board)) is not None]
    if not gaps:
        return []
    defended = any(row.defense != "none" for row, *_ in gaps)
    return [*(_one_step(board, *gap) for gap in gaps), OVERFITTED if defended else f"{ONE_STEP}."]


def _one_step(board: Board, row: Row, eps: Fraction, one: AttackKey, several: AttackKey) -> str:
    high, low = (
        f"{score_entry(row.attacks[eps, attack]).text} under {board.labels[attack]}" for attack in (one, several)
    )
    return f"{row.label} keeps {high} but {low} at ε = {dict(board.eps)[eps]}."


def _gap(row: Row, board: Board) -> tuple[Fraction, AttackKey, AttackKey] | None:
    """The largest ε at which the attacks of one step leave a model more than half of its clean
    accuracy and an attack of several steps less than a quarter of that; and these two attacks, each the strongest of
    its kind. The intervals must agree."""
    for eps, _ in reversed(board.eps):
        scores = {attack: row.attacks[eps, attack] for attack in board.attacks[eps]}
        known = {attack: score for attack, score in scores.items() if score.state == "ok"}
        kinds = [[a for a in known if 0 < board.efforts[a] <= 1], [a for a in known if board.efforts[a] > 1]]
        if not all(kinds) or row.clean.low is None:
            continue
        one, several = (min(attacks, key=lambda attack: known[attack].value or 0.0) for attacks in kinds)
        least, most = known[one].low or 0.0, known[several].high
        if most is not None and least > (row.clean.value or 0.0) / 2 and most < least / 4:
            return eps, one, several
    return None


def _keeps(row: Row, board: Board) -> str:
    eps, spelled = board.ranked
    clean, worst = score_entry(row.clean), score_entry(row.worst[eps])
    return f"{row.label} keeps {worst.plain} at ε = {spelled}; its clean accuracy is {clean.text}."
