"""Sentences that compare two models of a leaderboard which differ in one choice, or two attacks on one model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from statistics import mean

from epsbench.harness.records import Record
from epsbench.harness.records.tables import canonical
from epsbench.harness.report.results.cells import EACH, AttackKey, Cell, attack_key, finite, way
from epsbench.harness.report.results.starts import StartLabels
from epsbench.harness.report.results.units import and_list, number, visible
from epsbench.harness.report.robustness.leaderboard import Board, Row, measured_gradients
from epsbench.harness.report.robustness.scores import score_entry
from epsbench.harness.report.robustness.verdicts import clean, difference, records_at, share, under_attack, worst

Pair = tuple[Row, Row]

MOST_PAIRS = 2
FGSM_IN_THE_BATCH = {"steps": 1, "relative_step_size": 1.0, "random_start": False}
"""With these parameters `pgd-batch` adds FGSM images to the batch; `fgsm-loss` with α = 1/2 adds them to the loss."""


def contrast_sentences(board: Board) -> list[str]:
    """One sentence for each comparison that the board allows.

    They compare noise with FGSM of the same size, the clean accuracy with and without defenses, augmentations, first
    weights, FGSM images in the loss and in the batch, and attacks of few and of many gradients. Each difference has its
    95 % interval (see `verdicts.difference`).
    """
    starts = StartLabels(row.records[0].cell for row in board.rows)
    return [
        *_noise_and_fgsm(board),
        *_defenses(board),
        *_choices(board, "augmentation", lambda row: f"augmentation {row.augmentation}"),
        *_choices(board, "start", lambda row: f"starting from weights of {starts(row.records[0].cell)}"),
        *_loss_and_batch(board),
        *_efforts(board),
    ]


def _noise_and_fgsm(board: Board) -> Iterator[str]:
    """The ε with the largest gap between noise and FGSM, for the first undefended model tested with both."""
    for row in board.rows:
        pairs = {eps: [_only(board, eps, name) for name in ("noise", "fgsm")] for eps, _ in board.eps}
        attacks = {eps: (noise, fgsm) for eps, (noise, fgsm) in pairs.items() if noise and fgsm}
        gaps = {eps: [under_attack(row, eps, attack) for attack in pair] for eps, pair in attacks.items()}
        gaps = {eps: pair for eps, pair in gaps.items() if all(pair)}
        if row.defense != "none" or not gaps:
            continue
        widest = max(gaps, key=lambda eps: share(gaps[eps][0]) - share(gaps[eps][1]))
        noise, fgsm = (score_entry(row.attacks[widest, attack]).text for attack in attacks[widest])
        of_several = f", the largest difference among {len(gaps)} ε" if len(gaps) > 1 else ""
        yield (
            f"At ε = {dict(board.eps)[widest]}, {row.label} keeps {noise} under noise and {fgsm} under FGSM: "
            f"{difference(*gaps[widest])}{of_several}."
        )
        return


def _only(board: Board, eps: Fraction, name: str) -> AttackKey | None:
    """The attack of this name that was run for this ε alone; None where several with other parameters have the name."""
    named = [attack for attack in board.attacks[eps] if attack.name == name and attack.curve == EACH]
    return named[0] if len({attack.entry for attack in named}) == 1 else None


def _defenses(board: Board) -> Iterator[str]:
    """How defenses change the clean accuracy of the undefended model."""
    for base, others in _families(board, "defense")[:MOST_PAIRS]:
        before = clean(base)
        changes = [
            (share(clean(row)), row.defense, change) for row in others if (change := difference(before, clean(row)))
        ]
        if not changes:
            continue
        ordered = sorted(changes, reverse=True)
        ends = [ordered[0], ordered[-1]] if len(ordered) > 1 else ordered
        spread = " to ".join(f"{change} ({defense})" for _, defense, change in ends)
        yield (
            f"Without a defense the clean accuracy of {base.label} is {score_entry(base.clean).text}; "
            f"{'defenses change' if len(ordered) > 1 else 'the defense changes'} it by {spread}."
        )


def _choices(board: Board, axis: str, name: Callable[[Row], str]) -> Iterator[str]:
    """How another value of an axis changes a model that has the axis's default."""
    pairs = [(base, other) for base, others in _families(board, axis) for other in others]
    for base, other in pairs[:MOST_PAIRS]:
        if changes := _changes(board, base, other):
            yield f"For {base.label}, {name(other)} changes {changes}."


def _loss_and_batch(board: Board) -> Iterator[str]:
    pairs: list[Pair] = []
    for rows in _alike(board, "defense"):
        losses = [row for row in rows if _defended(row, "fgsm-loss", {"alpha": 0.5})]
        batches = [row for row in rows if _defended(row, "pgd-batch", FGSM_IN_THE_BATCH)]
        pairs += [
            (loss, batch) for loss in losses for batch in batches if _defense(loss)["eps"] == _defense(batch)["eps"]
        ]
    for loss, batch in pairs[:MOST_PAIRS]:
        if changes := _changes(board, loss, batch):
            yield f"For {loss.model}, FGSM images in the batch instead of in the loss change {changes}."


def _efforts(board: Board) -> Iterator[str]:
    """Time and robust accuracy of the attack with the most gradients against the one with the fewest.

    Only attacks without early stopping are compared: with it, the time also depends on how robust the model is.
    """
    eps, spelled = board.ranked
    for row in board.rows[:MOST_PAIRS]:
        attacks: dict[AttackKey, list[Record]] = defaultdict(list)
        for record in records_at(row, eps):
            if not record.cell.get("early_stop", True) and finite(record.cost, "images_per_second") > 0:
                attacks[attack_key(record.cell)].append(record)
        efforts = {attack: count for attack, group in attacks.items() if (count := measured_gradients(group))}
        if len(set(efforts.values())) < 2:
            continue
        least, most = (choose(efforts, key=efforts.__getitem__) for choose in (min, max))
        times = _speed(attacks[least]) / _speed(attacks[most])
        change = difference(*(under_attack(row, eps, attack) for attack in (least, most)))
        few, many = (number(efforts[attack]) for attack in (least, most))
        yield (
            f"On {row.label}, {visible(most.name)} with {many} gradients an image takes {number(times)} × the time of "
            f"{visible(least.name)} with {few}, and changes the robust accuracy at ε = {spelled} by {change}."
        )


def _speed(records: Sequence[Record]) -> float:
    return mean(record.cost["images_per_second"] for record in records)


def _changes(board: Board, before: Row, after: Row) -> str:
    """The change of the clean accuracy, and of the worst case where both rows have one; empty where there is none."""
    eps, spelled = board.ranked
    clean_change = difference(clean(before), clean(after))
    worst_change = difference(worst(before, eps), worst(after, eps))
    changes = [f"the clean accuracy by {clean_change}"] if clean_change else []
    return and_list([*changes, *([f"the worst case at ε = {spelled} by {worst_change}"] if worst_change else [])])


def _families(board: Board, axis: str) -> list[tuple[Row, list[Row]]]:
    """Each row with an axis's default, with the rows that differ from it in this axis alone."""
    families = []
    for rows in _alike(board, axis):
        base = [row for row in rows if _is_default(row, axis)]
        others = [row for row in rows if not _is_default(row, axis)]
        families += [(row, others) for row in base if others]
    return families


def _alike(board: Board, axis: str) -> list[list[Row]]:
    """The rows of a board in groups that agree in all axes of their training but one."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in board.rows:
        rest = {key: value for key, value in way(row.records[0].cell).items() if key != axis}
        groups[canonical(rest)].append(row)
    return list(groups.values())


def _is_default(row: Row, axis: str) -> bool:
    value = row.records[0].cell.get(axis)
    return value is None or value == "none" or (isinstance(value, Mapping) and value.get("name") == "none")


def _defense(row: Row) -> Cell:
    defense: Cell = row.records[0].cell["defense"]
    return defense


def _defended(row: Row, name: str, parameters: Cell) -> bool:
    """Whether the row's defense has this name and these parameters."""
    defense = _defense(row)
    same = all(defense.get(key) == value for key, value in parameters.items())
    return defense["name"] == name and "eps" in defense and same
