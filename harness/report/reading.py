"""The words that open a report: what the records say, in words, with nothing the tables do not hold."""

from __future__ import annotations

from harness.report.leaderboard import Board, Row
from harness.report.results import Results
from harness.report.table import Table, score_entry
from harness.report.units import enumerate_words, norm_name, plural


def reading(results: Results, leaderboards: list[Board], vaes: list[Table]) -> list[str]:
    """A few sentences in short paragraphs: what was measured, who stands firmest, and what is missing."""
    told = [_board(board) for board in leaderboards] + [_vae(table) for table in vaes] + [_status(results)]
    return [" ".join(sentences) for sentences in told if sentences]


def _board(board: Board) -> list[str]:
    eps, spelled = board.eps[-1]
    attacks = list(dict.fromkeys(name for names in board.attacks.values() for name in names))
    images = f" over {board.examples:,} test images" if board.examples else ""
    said = [
        f"On {board.data}, {plural(len(board.rows), 'trained model')} met {enumerate_words(attacks)} "
        f"at {norm_name(board.norm)} ε up to {spelled}{images}."
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
    last = ranked[-1]
    if last.rank != 1 and last.clean.value is not None:
        worst = score_entry(last.worst[eps])
        said.append(f"Last: {last.label} falls from {score_entry(last.clean).text} to {worst.plain}.")
    return said


def _stands(row: Row, board: Board) -> str:
    eps, spelled = board.eps[-1]
    clean = score_entry(row.clean)
    return f"{row.label} keeps {score_entry(row.worst[eps]).plain} at ε = {spelled}, of {clean.text} clean."


def _vae(table: Table) -> list[str]:
    if not table.rows or table.rows[0][6].state:
        return []
    model, z_dim, beta, _, _, _, test = (entry for entry in table.rows[0][:7])
    best = f"the best of {len(table.rows)} settings, " if len(table.rows) > 1 else ""
    return [
        f"{table.title}: {best}{model.text} with z_dim {z_dim.text} and beta {beta.text} reaches {test.plain} bits per "
        "dimension on the test set."
    ]


def _status(results: Results) -> list[str]:
    counts = {state: sum(record.status == state for record in results.current) for state in ("failed", "void")}
    said = [f"{plural(count, 'cell')} {state}." for state, count in counts.items() if count]
    warnings = sum(f.severity == "warning" for record in results.current for f in record.findings)
    if warnings:
        said.append(f"The audits raised {plural(warnings, 'warning')}.")
    if results.superseded:
        said.append(f"{plural(len(results.superseded), 'record')} of earlier code left out.")
    return said or [f"All {plural(len(results.current), 'cell')} measured, none failed or void."]
