"""The leaderboard as a table, with its title and how to read it."""

from __future__ import annotations

from collections.abc import Iterator

from epsbench.harness.report.drawing.table import NEEDED, USUAL, Column, Entry, Table
from epsbench.harness.report.results.units import ABSENT, defense_name, norm_name
from epsbench.harness.report.robustness.leaderboard import Board
from epsbench.harness.report.robustness.scores import score_entry

CURVES = {
    "nested": "an image fooled at an ε counts as fooled at every larger ε.",
    "bisect": "bisection finds the smallest ε that fools an image: the image counts as fooled at every larger ε, and an"
    " image that is robust at an ε counts as robust at every smaller ε.",
}
"""How to read a curve of each kind; the kind "each" needs no explanation."""
OVER_SEEDS = "Over several seeds: the mean, ± the standard deviation, and the Student-t interval of the mean."
TRANSFERRED = "Images made on another model are in the transfer tables and do not count in the worst case."


def leaderboard_table(board: Board) -> Table:
    """The leaderboard, one line a model and ε: the attacks at that ε, then the worst case over them."""
    extra = any(row.extra for row in board.rows)
    augmented = any(row.augmentation != "none" for row in board.rows)
    columns = [Column("rank", True), Column("model", label=True), Column("defense", label=True, weight=NEEDED)]
    columns += [Column("augmentation", label=True)] if augmented else []
    columns += [Column("setting", weight=NEEDED)] if extra else []
    columns += [
        Column("clean", True, weight=NEEDED - 1),
        Column("ε", True, weight=NEEDED),
        # The attacks are ordered by effort: those of most effort stay longest.
        *(Column(label, True, weight=USUAL + index) for index, label in enumerate(board.labels.values())),
        Column("worst case", True, weight=NEEDED),
    ]
    lines: list[tuple[Entry, ...]] = []
    starts: list[int] = []
    notes: dict[str, None] = {}
    for row in board.rows:
        starts.append(len(lines))
        head = [Entry(str(row.rank or ABSENT)), Entry(row.model), Entry(defense_name(row.defense))]
        head += [Entry(row.augmentation)] if augmented else []
        head += [Entry(row.extra or ABSENT)] if extra else []
        head.append(score_entry(row.clean))
        for index, (eps, spelled) in enumerate(board.eps):
            scores = [
                score_entry(row.attacks[eps, attack])
                if attack in board.attacks[eps]
                else Entry(ABSENT, state="missing")
                for attack in board.labels
            ]
            worst = score_entry(row.worst[eps])
            lines.append((*(head if index == 0 else [Entry("")] * len(head)), Entry(spelled), *scores, worst))
            if row.worst[eps].note:
                notes[f"{row.label}, ε {spelled}: worst case {row.worst[eps].note}"] = None
    notes |= dict.fromkeys(_seeds(board))
    return Table(
        board_title(board), tuple(columns), tuple(lines), board_caption(board), tuple(notes), frozenset(starts)
    )


def _seeds(board: Board) -> Iterator[str]:
    """How many seeds a row is the mean over; one sentence where the number is the same in all rows."""
    counts = {len(row.seeds) for row in board.rows}
    if len(counts) == 1 and counts != {1}:
        yield f"every row is the mean over {counts.pop()} seeds"
        return
    yield from (f"{row.label}: the mean over {len(row.seeds)} seeds" for row in board.rows if len(row.seeds) > 1)


def board_title(board: Board) -> str:
    """``"Robust accuracy on mnist, L∞"``."""
    return f"Robust accuracy on {board.data}, {norm_name(board.norm)}"


def board_caption(board: Board) -> str:
    """How to read a leaderboard."""
    n = f" of {board.examples:,} test images" if board.examples else ""
    sentences = [
        f"The share{n} classified correctly, with 95 % intervals; ε in pixel units [0, 1]. Worst case: the share "
        "classified correctly under every attack at that ε. Sorted by the worst case at "
        f"{_ranked_by(board)}. A rank is one more than the number of models whose interval lies wholly above that "
        "of the row. Where a cell failed or is void, the worst case is an upper bound (≤) and the row has no rank.",
        *([OVER_SEEDS] if any(len(row.seeds) > 1 for row in board.rows) else []),
        *([TRANSFERRED] if board.transferred else []),
        *(f"{curve.capitalize()}: {how}" for curve, how in CURVES.items() if curve in board.curves),
    ]
    return " ".join(sentences)


def _ranked_by(board: Board) -> str:
    spelled = board.ranked[1]
    return f"the largest ε ({spelled})" if board.ranked == board.eps[-1] else f"ε = {spelled}, the largest all share"
