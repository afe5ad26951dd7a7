"""Entries of RobustBench's ``model_info``: one JSON file for each model that AutoAttack was measured on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from epsbench.harness.errors import InputError
from epsbench.harness.files import write_atomically
from epsbench.harness.report.exports.figures import slug
from epsbench.harness.report.results.cells import AttackKey
from epsbench.harness.report.results.loading import Results
from epsbench.harness.report.results.units import distinct, percent_range, plural
from epsbench.harness.report.robustness.leaderboard import Board, Row, boards

THREATS = {"linf": "Linf", "l2": "L2"}
STANDARD = "standard"


def write(results: Results, out: Path) -> str:
    """Write ``out/<data>/<threat model>/<model>.json``, as the pull requests to RobustBench contain them.

    Raises `InputError` where no model was attacked with the standard AutoAttack.
    """
    entries = [entry for board in boards(results) if board.norm in THREATS for entry in _entries(board)]
    if not entries:
        raise InputError(
            'robustbench: no record of the attack autoattack (version = "standard") under linf or l2 is ok; '
            "RobustBench ranks by it: add it to the suite"
        )
    names = distinct([f"{slug(entry['dataset'])}/{threat}/{stem}" for threat, stem, entry in entries])
    for name, (_, _, entry) in zip(names, entries, strict=True):
        write_atomically(out / f"{name}.json", (json.dumps(entry, indent=2, ensure_ascii=False) + "\n").encode())
    return f"{out}: {plural(len(entries), 'model')}; fill in link, name, authors and venue"


def _entries(board: Board) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Threat model, the file's stem, and the entry, for every model and ε."""
    for eps, spelled in board.eps:
        for attack in board.attacks[eps]:
            if attack.name != "autoattack" or f'"version": "{STANDARD}"' not in attack.entry:
                continue
            for row in board.rows:
                if row.attacks[eps, attack].state == "ok":
                    stem = slug(f"{row.label} {spelled.replace('/', '_')}", 120)
                    yield THREATS[board.norm], stem, _entry(board, row, eps, spelled, attack)


def _entry(board: Board, row: Row, eps: Fraction, spelled: str, attack: AttackKey) -> dict[str, Any]:
    score, worst = row.attacks[eps, attack], row.worst[eps]
    value = score.value or 0.0
    entry: dict[str, Any] = {
        "link": "",
        "name": row.label,
        "authors": "",
        "additional_data": False,
        "number_forward_passes": 1,
        "dataset": board.data,
        "venue": "Unpublished",
        "architecture": row.model,
        "eps": spelled,
        "clean_acc": _percent(row.clean.value or 0.0),
        "reported": _percent(value),
        "autoattack_acc": _percent(value),
        "footnote": _footnote(score.n, score.low, score.high, len(row.seeds)),
        "unreliable": any(record.findings for record in row.measured.get(eps, ())),
    }
    if worst.value is not None and worst.value < value:
        entry["external"] = _percent(worst.value)
    return entry


def _footnote(images: int | None, low: float | None, high: float | None, seeds: int) -> str:
    n = f" of {images:,} test images" if images else ""
    over = f", the mean over {seeds} trainings" if seeds > 1 else ""
    return f"Measured by epsbench{over}; 95 % interval {percent_range(low, high)}{n}."


def _percent(share: float) -> str:
    """As RobustBench writes it: a text with two decimals."""
    return f"{100 * share:.2f}"
