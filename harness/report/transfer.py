"""Images made on one model and shown to another: who is fooled by whose."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from epsbench.harness.records import Record
from epsbench.harness.report.leaderboard import Score, effort, extras, over_seeds, score_of
from epsbench.harness.report.results import ATTACKING, MODEL_AXES, Cell, Names, Results, canonical, curve
from epsbench.harness.report.table import Column, Entry, Table, score_entry
from epsbench.harness.report.units import norm_name, plural, scalar

Place = tuple[Fraction, str, str]
"""An ε, the model that images are made on, and the model that they are shown to."""

MARK = "▪"
CAPTION = (
    "The share of the test images that a victim, in its column, has right both clean and as the attack makes them on a "
    f"source, in its row; ε in pixel units, 95 % intervals. {MARK} marks the white box: the victim is its own source. "
    "Read down a column: a row near the marked one transfers well, one near the clean accuracy hardly at all. Images "
    "made on another model take every step and are judged once, at the end; in the white box an image counts as soon "
    "as it fools. What other models' images do is no part of the worst case."
)


@dataclass(frozen=True)
class Matrix:
    """One attack in one threat model, between models that share their data and recipe.

    ``scores`` has one for every ε, source and victim that was measured; ``eps`` ascend. Models go by their labels.
    """

    data: str
    norm: str
    attack: str
    extra: str
    effort: int
    eps: tuple[tuple[Fraction, str], ...]
    sources: tuple[str, ...]
    victims: tuple[str, ...]
    clean: Mapping[str, Score]
    scores: Mapping[Place, Score]

    def lent(self, eps: Fraction) -> Iterator[tuple[Score, str, str]]:
        """What images made on another model leave at an ε, with source and victim."""
        for (at, source, victim), score in self.scores.items():
            if at == eps and source != victim and score.value is not None:
                yield score, source, victim

    def own(self, eps: Fraction) -> list[Score]:
        """What images made on the victims themselves leave at an ε."""
        scores = [self.scores.get((eps, victim, victim)) for victim in self.victims]
        return [score for score in scores if score is not None and score.value is not None]


def matrices(results: Results) -> list[Matrix]:
    """One matrix for every attack whose images were shown to other models, from the weakest effort to the strongest."""
    lent: dict[str, list[Record]] = defaultdict(list)
    own: dict[str, list[Record]] = defaultdict(list)
    for record in results.transfer:
        lent[_group(record.cell)].append(record)
    for record in results.robustness:
        if (group := _group(record.cell)) in lent:
            own[group].append(record)
    told = extras([records[0] for records in lent.values()], ATTACKING | {"task", "data", "seed", *MODEL_AXES})
    found = [
        _matrix(own[group], records, extra, results.names)
        for (group, records), extra in zip(lent.items(), told, strict=True)
    ]
    return sorted(found, key=lambda matrix: matrix.effort)


def transfer_table(matrix: Matrix) -> Table:
    """Rows are sources, columns victims, the largest ε first; above them the victims' clean accuracies."""
    clean = (Entry(""), Entry("clean images"), *(score_entry(matrix.clean[victim]) for victim in matrix.victims))
    rows, starts = [clean], []
    for eps, spelled in reversed(matrix.eps):
        starts.append(len(rows))
        for source in matrix.sources:
            entries = [_entry(matrix, eps, source, victim) for victim in matrix.victims]
            rows.append((Entry(spelled if source == matrix.sources[0] else ""), Entry(source), *entries))
    columns = (Column("ε", True), Column("made on ↓ shown to →", label=True))
    victims = tuple(Column(victim, True) for victim in matrix.victims)
    extra = f" ({matrix.extra})" if matrix.extra else ""
    title = f"Transfer of {matrix.attack} on {matrix.data}, {norm_name(matrix.norm)}{extra}"
    notes = {score.seeds for score in matrix.scores.values() if score.seeds > 1}
    return Table(
        title,
        (*columns, *victims),
        tuple(rows),
        CAPTION,
        tuple(f"mean and Student-t interval over {plural(seeds, 'seed')}" for seeds in sorted(notes)),
        frozenset(starts),
    )


def transfer_words(found: Sequence[Matrix]) -> list[list[str]]:
    """What the most patient attack on every data set and norm leaves, from another model and from the victim's own."""
    strongest = {(matrix.data, matrix.norm): matrix for matrix in found}
    return [said for matrix in strongest.values() if (said := _words(matrix))]


def _words(matrix: Matrix) -> list[str]:
    eps, spelled = matrix.eps[-1]
    lent = sorted(matrix.lent(eps), key=lambda entry: entry[0].value or 0.0)
    if not lent:
        return []
    ends = lent if len(lent) == 1 else [lent[0], lent[-1]]
    said = (
        f"On {matrix.data}, images that {matrix.attack} makes on one model at {norm_name(matrix.norm)} ε = {spelled} "
        f"leave another {' to '.join(_pair(*entry) for entry in ends)}"
    )
    own = sorted(matrix.own(eps), key=lambda score: score.value or 0.0)
    if own:
        least_and_most = dict.fromkeys(score_entry(score).text for score in (own[0], own[-1]))
        said += f"; made on the model itself they leave {' to '.join(least_and_most)}"
    return [said + "."]


def _pair(score: Score, source: str, victim: str) -> str:
    return f"{score_entry(score).plain} (made on {source}, shown to {victim})"


def _group(cell: Cell) -> str:
    """Cells of one matrix share this: data, recipe, threat model and attack, ε apart."""
    shared = {key: value for key, value in cell.items() if key not in ATTACKING | {"seed", *MODEL_AXES}}
    return canonical([shared, cell["norm"], cell["attack"], *curve(cell)])


def _matrix(own: list[Record], lent: list[Record], extra: str, names: Names) -> Matrix:
    # Where an attack was made with and without early stopping, the white box that took every step stands beside.
    records = [*sorted(own, key=lambda record: not record.cell.get("early_stop", True)), *lent]
    seeds: dict[Place, dict[int, Record]] = defaultdict(dict)
    clean: dict[str, dict[int, Record]] = defaultdict(dict)
    for record in records:
        cell = record.cell
        victim = names.model(cell)
        source = names.source(cell) if "source" in cell else victim
        seeds[Fraction(cell["eps"]), source, victim][cell["seed"]] = record
        if record.status == "ok" or cell["seed"] not in clean[victim]:
            clean[victim][cell["seed"]] = record
    cell = lent[0].cell
    victims = dict.fromkeys(names.model(record.cell) for record in records)
    spelled = {Fraction(record.cell["eps"]): scalar(record.cell["eps"]) for record in lent}
    return Matrix(
        scalar(cell["data"]),
        cell["norm"],
        names.attack({key: value for key, value in cell.items() if key not in ("source", "early_stop")}),
        extra,
        effort(cell["attack"]),
        tuple(sorted(spelled.items())),
        tuple(dict.fromkeys([*victims, *(source for _, source, _ in seeds)])),
        tuple(victims),
        {victim: _over(held, "clean_accuracy") for victim, held in clean.items()},
        {place: _over(held) for place, held in seeds.items() if place[0] in spelled},
    )


def _over(records: Mapping[int, Record], metric: str = "robust_accuracy") -> Score:
    return over_seeds([score_of(record, metric) for record in records.values()])


def _entry(matrix: Matrix, eps: Fraction, source: str, victim: str) -> Entry:
    entry = score_entry(matrix.scores.get((eps, source, victim)))
    return Entry(f"{MARK} {entry.text}", entry.detail, entry.note, entry.state) if source == victim else entry
