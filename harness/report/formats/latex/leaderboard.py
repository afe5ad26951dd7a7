"""A leaderboard as a paper prints it: one table an ε, accuracies after each part of an attack, ± half the interval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import mean

from epsbench.harness.latex import escape
from epsbench.harness.records import Record
from epsbench.harness.records.tables import canonical
from epsbench.harness.report.formats.latex.tables import LONGEST_NAME, floating, head, label_of, name_column
from epsbench.harness.report.results.cells import AttackKey, attack_key, numbers
from epsbench.harness.report.results.units import norm_name
from epsbench.harness.report.robustness.leaderboard import Board, Row
from epsbench.harness.report.robustness.scores import STATE_NAMES, Score, over_seeds

CAPTION = (
    "Robust accuracy on {data} under {norm} attacks with $\\varepsilon$ = {eps}{images}, in percent. $\\pm$: half "
    "the 95\\,\\% interval ({interval}). Bold: the interval lies wholly above those of all other models.{parts}"
)
AFTER = " Under {attacks}: the accuracy after each part."
WORST = "worst case"


@dataclass(frozen=True)
class Series:
    """One column of accuracies."""

    group: str
    """The attack whose part it is, else empty."""
    title: str
    """What stands above it."""
    scores: tuple[Score, ...]
    """One for each row."""


def leaderboard_tables(board: Board) -> Iterator[str]:
    """One table for every ε of the board, ascending."""
    for eps, spelled in board.eps:
        yield _table(board, eps, spelled)


def _table(board: Board, eps: Fraction, spelled: str) -> str:
    series = list(_series(board, eps))
    minutes = [_minutes(row, eps) for row in board.rows]
    timed = any(each is not None for each in minutes)
    labels = [row.label for row in board.rows]
    columns = name_column(labels) + "".join(_format(each.scores) for each in series)
    lines = [*_heads(series, timed), r"\midrule"]
    for index, label in enumerate(labels):
        entries = [escape(label, breakable=len(label) > LONGEST_NAME)]
        entries += [_entry(each.scores, index) for each in series]
        entries += [_time(minutes[index])] if timed else []
        lines.append(" & ".join(entries) + r" \\")
    ensembles = list(dict.fromkeys(each.group for each in series if each.group))
    images = f" ({board.examples:,} test images)" if board.examples else ""
    several = any(len(row.seeds) > 1 for row in board.rows)
    caption = CAPTION.format(
        data=escape(board.data, breakable=True), norm=escape(norm_name(board.norm)), eps=escape(spelled), images=images,
        interval="Student's t over seeds" if several else "Wilson",
        parts=AFTER.format(attacks=", ".join(map(escape, ensembles))) if ensembles else "",
    )  # fmt: skip
    place = label_of("robust", board.data, board.norm, spelled)
    return floating(caption, place, columns + ("S[table-format=4.1]" if timed else ""), lines, 1 + len(series) + timed)


def _series(board: Board, eps: Fraction) -> Iterator[Series]:
    yield Series("", "clean", tuple(row.clean for row in board.rows))
    for attack in board.attacks[eps]:
        scores = tuple(row.attacks[eps, attack] for row in board.rows)
        parts = _parts(board, eps, attack)
        label = board.labels[attack]
        for name, after in list(parts.items())[:-1]:
            yield Series(label, name, after)
        # After its last part, an ensemble's accuracy is its own.
        yield Series(label, list(parts)[-1], scores) if parts else Series("", label, scores)
    if len(board.attacks[eps]) > 1:
        yield Series("", WORST, tuple(row.worst[eps] for row in board.rows))


def _parts(board: Board, eps: Fraction, attack: AttackKey) -> Mapping[str, tuple[Score, ...]]:
    """The accuracy after each part of an ensemble, by the part's name: one score for each row. Empty for others."""
    by_row = [_at(row, eps, attack) for row in board.rows]
    names = list(dict.fromkeys(part.name for records in by_row for record in records for part in record.parts))
    return {name: tuple(_after(records, name) for records in by_row) for name in names}


def _at(row: Row, eps: Fraction, attack: AttackKey) -> list[Record]:
    return [
        record for record in row.records if Fraction(record.cell["eps"]) == eps and attack_key(record.cell) == attack
    ]


def _after(records: Sequence[Record], name: str) -> Score:
    scores = [_after_part(record, name) for record in records]
    return over_seeds(scores) if scores else Score("missing")


def _after_part(record: Record, name: str) -> Score:
    if record.status != "ok":
        return Score(record.status)
    for part in record.parts:
        if part.name == name:
            after = part.robust_accuracy
            return Score("ok", after.value, after.low, after.high, after.n)
    return Score("missing")


def _minutes(row: Row, eps: Fraction) -> float | None:
    """The minutes that all attacks at this ε took, the mean over seeds; None where they were not timed."""
    by_seed: dict[str, list[Record]] = {}
    for record in row.measured.get(eps, []):
        by_seed.setdefault(canonical(record.cell["seed"]), []).append(record)
    totals = [
        sum(seconds) for records in by_seed.values() if (seconds := numbers([r.cost for r in records], "seconds"))
    ]
    return mean(totals) / 60 if totals else None


def _heads(series: Sequence[Series], timed: bool) -> Iterator[str]:
    """One or two lines: above the parts of an ensemble stands its name."""
    groups: list[tuple[str, int]] = []
    for each in series:
        if groups and each.group and groups[-1][0] == each.group:
            groups[-1] = each.group, groups[-1][1] + 1
        else:
            groups.append((each.group, 1))
    if any(name for name, _ in groups):
        cells, rules, column = [""], [], 2
        for name, span in groups:
            cells.append(head(name, span) if name else "" if span == 1 else f"\\multicolumn{{{span}}}{{c}}{{}}")
            rules += [f"\\cmidrule(lr){{{column}-{column + span - 1}}}"] if name else []
            column += span
        yield " & ".join(cells + [""] * timed) + r" \\"
        yield "".join(rules)
    yield " & ".join(["model", *(head(each.title) for each in series), *([head("min")] if timed else [])]) + r" \\"


def best(scores: Sequence[Score]) -> int | None:
    """The index of the score whose interval lies wholly above those of all others; None where there is none."""
    known = [(score.value, index) for index, score in enumerate(scores) if score.value is not None]
    if len(known) < 2:
        return None
    _, first = max(known)
    score = scores[first]
    others = [scores[index] for _, index in known if index != first]
    if score.bound or score.note or score.low is None or any(other.high is None for other in others):
        return None
    return first if all(score.low > (other.high or 0.0) for other in others) else None


def _entry(scores: Sequence[Score], index: int) -> str:
    score = scores[index]
    if score.value is None:
        return f"{{{STATE_NAMES[score.state] if score.state != 'missing' else '--'}}}"
    number = f"{100 * score.value:.1f}"
    half = "" if score.low is None or score.high is None else f" +- {_half(score):.1f}"
    if score.bound:
        return f"{{$\\leq$ {number}}}"
    return ("\\bfseries " if best(scores) == index else "") + number + half


def _half(score: Score) -> float:
    """Half the width of the interval, in percent."""
    return 50 * ((score.high or 0.0) - (score.low or 0.0))


def _format(scores: Sequence[Score]) -> str:
    """A siunitx column as wide as its widest number."""
    known = [score for score in scores if score.value is not None]
    digits = 3 if any(round(100 * (score.value or 0), 1) >= 100 for score in known) else 2
    widest = max((_half(score) for score in known), default=0.0)
    return f"S[table-format={digits}.1({3 if round(widest, 1) >= 10 else 2})]"


def _time(minutes: float | None) -> str:
    if minutes is None:
        return "{--}"
    return f"{minutes:.1f}" if minutes >= 0.05 else "{$<$ 0.1}"
