"""The words that open a report: what the records say, in words, with nothing the tables do not hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

from epsbench.harness.report.contrasts import contrast_words
from epsbench.harness.report.generative.settings import Setting
from epsbench.harness.report.generative.words import generative_words
from epsbench.harness.report.leaderboard import Board, Row
from epsbench.harness.report.results import Results
from epsbench.harness.report.table import score_entry
from epsbench.harness.report.transfer import Matrix, transfer_words
from epsbench.harness.report.units import enumerate_words, norm_name, plural


def reading(
    results: Results, leaderboards: list[Board], matrices: Sequence[Matrix], models: Sequence[Setting]
) -> list[str]:
    """A few sentences in short paragraphs: what was measured, who stands firmest, and what is missing."""
    asked = results.questions
    told = [[f"{name}: {question}"] for name, question in asked.items() if question and len(asked) > 1]
    told += [part for board in leaderboards for part in (_board(board), contrast_words(board), list(_one_step(board)))]
    told += [*transfer_words(matrices), *generative_words(models), _status(results)]
    return [" ".join(sentences) for sentences in told if sentences]


def _board(board: Board) -> list[str]:
    eps, spelled = board.ranked
    images = f" over {board.examples:,} test images" if board.examples else ""
    said = [
        f"On {board.data}, {plural(len(board.rows), 'trained model')} met {enumerate_words(board.names)} "
        f"at {norm_name(board.norm)} ε up to {board.eps[-1][1]}{images}."
    ]
    ranked = [row for row in board.rows if row.rank is not None]
    if not ranked:
        return [*said, f"No worst case at ε = {spelled} is complete."]
    best = [row for row in ranked if row.rank == 1]
    if len(best) > 1 and len(best) == len(ranked):
        said.append(f"The intervals do not tell the models apart at ε = {spelled}; {_stands(best[0], board)}")
    elif len(best) > 1:
        said.append(f"The first {len(best)} share a rank, for their intervals overlap; {_stands(best[0], board)}")
    else:
        said.append(f"Firmest: {_stands(best[0], board)}")
    last = [row for row in ranked if row.rank == ranked[-1].rank and row.rank != 1]
    if len(last) > 1:
        said.append(f"{enumerate_words([row.label for row in last])} come last and are not told apart.")
    elif last and last[0].clean.value is not None:
        worst = score_entry(last[0].worst[eps])
        said.append(f"Last: {last[0].label} falls from {score_entry(last[0].clean).text} to {worst.plain}.")
    return said


def _one_step(board: Board) -> Iterator[str]:
    """Models that withstand a single gradient step and not several, each at the largest ε where that shows.

    In a model trained on attacks this is catastrophic overfitting (Wong et al., "Fast is better than free", 2020).
    """
    found = [(row, *gap) for row in board.rows if (gap := _gap(row, board)) is not None]
    for row, eps, spelled, one, several in found:
        high, low = (score_entry(row.attacks[eps, name]).text for name in (one, several))
        yield f"{row.label} keeps {high} under {one} but {low} under {several} at ε = {spelled}."
    if any(row.defense != "none" for row, *_ in found):
        yield (
            "What withstands one gradient step and not several is not robust; a model that was trained on single "
            "steps has then overfitted to them (catastrophic overfitting)."
        )
    elif found:
        yield "What withstands one gradient step and not several is not robust."


def _gap(row: Row, board: Board) -> tuple[Fraction, str, str, str] | None:
    """The largest ε, with its spelling, at which the attacks of one step leave a model more than half of its clean
    accuracy and one of several steps less than a quarter of that, and these two attacks, each the strongest of its
    kind. The intervals must agree."""
    for eps, spelled in reversed(board.eps):
        known = {name: row.attacks[eps, name] for name in board.attacks[eps] if row.attacks[eps, name].state == "ok"}
        kinds = [[n for n in known if board.efforts[n] == 1], [n for n in known if board.efforts[n] > 1]]
        if not all(kinds) or row.clean.low is None:
            continue
        one, several = (min(names, key=lambda name: known[name].value or 0.0) for names in kinds)
        least, most = known[one].low or 0.0, known[several].high
        if most is not None and least > (row.clean.value or 0.0) / 2 and most < least / 4:
            return eps, spelled, one, several
    return None


def _stands(row: Row, board: Board) -> str:
    eps, spelled = board.ranked
    clean = score_entry(row.clean)
    return f"{row.label} keeps {score_entry(row.worst[eps]).plain} at ε = {spelled}, of {clean.text} clean."


def _status(results: Results) -> list[str]:
    counts = {state: sum(record.status == state for record in results.current) for state in ("failed", "void")}
    said = [f"{plural(count, 'cell')} {state}." for state, count in counts.items() if count]
    warnings = sum(f.severity == "warning" for record in results.current for f in record.findings)
    if warnings:
        said.append(f"The audits raised {plural(warnings, 'warning')}.")
    if results.conflicts:
        said.append(
            f"{plural(len(results.conflicts), 'cell')} measured differently in several folders; the newest record of "
            "each is shown."
        )
    if results.superseded:
        said.append(f"{plural(len(results.superseded), 'record')} of earlier code left out.")
    return said or [f"All {plural(len(results.current), 'cell')} measured, none failed or void."]
