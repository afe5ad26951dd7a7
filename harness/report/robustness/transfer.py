"""How well adversarial images made on one model fool another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from epsbench.harness.records import Record
from epsbench.harness.records.tables import canonical
from epsbench.harness.report.drawing.table import Column, Entry, Table
from epsbench.harness.report.results.cells import ATTACKING, MODEL_AXES, Cell, curve, model_key
from epsbench.harness.report.results.differences import differences
from epsbench.harness.report.results.loading import Results
from epsbench.harness.report.results.names import Names
from epsbench.harness.report.results.units import data_name, distinct, norm_name, plural, scalar
from epsbench.harness.report.robustness.leaderboard import effort
from epsbench.harness.report.robustness.scores import Score, over_seeds, score_entry, score_of

Place = tuple[Fraction, str, str]
"""An ε, the key of the model that images are made on, and the key of the model that they are tested on."""

MARK = "▪"
CAPTION = (
    "Images are made on a source model (row) and tested on a victim (column). A cell is the share of test images that "
    f"the victim classifies correctly both without and with the attack; ε in pixel units, 95 % intervals. {MARK} "
    "marks the white box, where source and victim are the same model. A row close to the marked one transfers well; a "
    "row close to the clean accuracy hardly transfers. Images made on another model take every step and are judged "
    "once, at the end; in the white box an image counts as fooled at the first step that fools the model. Images made "
    "on other models do not count in the worst case."
)


@dataclass(frozen=True)
class Matrix:
    """One attack in one threat model, between models that share their data and recipe; each has its `model_key`."""

    data: str
    """The data set."""
    norm: str
    """The name of the norm, as in a suite."""
    attack: str
    """The label of the attack."""
    extra: str
    """What else distinguishes its recipe from that of other matrices; empty where nothing does."""
    effort: float
    """The most gradients for an image that the attack took."""
    eps: tuple[tuple[Fraction, str], ...]
    """Every ε with its spelling in the suite, ascending."""
    sources: tuple[str, ...]
    """The models that images are made on."""
    victims: tuple[str, ...]
    """The models that images are tested on."""
    labels: Mapping[str, str]
    """The label of each model, for tables and sentences; no two are equal."""
    clean: Mapping[str, Score]
    """The clean accuracy of each victim."""
    scores: Mapping[Place, Score]
    """The robust accuracy for every ε, source and victim that was measured."""

    def transferred(self, eps: Fraction) -> Iterator[tuple[Score, str, str]]:
        """The scores at an ε for images made on another model, with source and victim."""
        for (at, source, victim), score in self.scores.items():
            if at == eps and source != victim and score.value is not None:
                yield score, source, victim

    def own(self, eps: Fraction) -> list[Score]:
        """The scores at an ε for images made on the victims themselves."""
        scores = [self.scores.get((eps, victim, victim)) for victim in self.victims]
        return [score for score in scores if score is not None and score.value is not None]


def matrices(results: Results) -> list[Matrix]:
    """One matrix for every attack whose images were tested on other models, ordered by effort."""
    transferred: dict[str, list[Record]] = defaultdict(list)
    own: dict[str, list[Record]] = defaultdict(list)
    for record in results.transfer:
        transferred[_group(record.cell)].append(record)
    for record in results.robustness:
        if (group := _group(record.cell)) in transferred:
            own[group].append(record)
    shown = ATTACKING | {"task", "data", "seed", *MODEL_AXES}
    extras = differences([records[0] for records in transferred.values()], shown)
    made = [
        _matrix(own[group], records, extra, results.names)
        for (group, records), extra in zip(transferred.items(), extras, strict=True)
    ]
    return sorted(made, key=lambda matrix: matrix.effort)


def transfer_table(matrix: Matrix) -> Table:
    """Rows are sources, columns victims, the largest ε first; the first row has the clean accuracy of the victims."""
    clean = (Entry(""), Entry("clean images"), *(score_entry(matrix.clean[victim]) for victim in matrix.victims))
    rows, starts = [clean], []
    for eps, spelled in reversed(matrix.eps):
        starts.append(len(rows))
        for source in matrix.sources:
            entries = [_entry(matrix, eps, source, victim) for victim in matrix.victims]
            rows.append((Entry(spelled if source == matrix.sources[0] else ""), Entry(matrix.labels[source]), *entries))
    columns = (Column("ε", True), Column("made on ↓ tested on →", label=True))
    victims = tuple(Column(matrix.labels[victim], True) for victim in matrix.victims)
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


def transfer_sentences(measured: Sequence[Matrix]) -> list[list[str]]:
    """For the attack of most effort on every data set and norm: robust accuracy on images from another model, and on
    the victim's own."""
    strongest = {(matrix.data, matrix.norm): matrix for matrix in measured}
    return [sentences for matrix in strongest.values() if (sentences := _sentences(matrix))]


def _sentences(matrix: Matrix) -> list[str]:
    eps, spelled = matrix.eps[-1]
    transferred = sorted(matrix.transferred(eps), key=lambda entry: entry[0].value or 0.0)
    if not transferred:
        return []
    ends = transferred if len(transferred) == 1 else [transferred[0], transferred[-1]]
    sentence = (
        f"On {matrix.data}, the accuracy of a model on images that {matrix.attack} makes on another model at "
        f"{norm_name(matrix.norm)} ε = {spelled} is {' to '.join(_pair(matrix, *entry) for entry in ends)}"
    )
    own = sorted(matrix.own(eps), key=lambda score: score.value or 0.0)
    if own:
        least_and_most = dict.fromkeys(score_entry(score).text for score in (own[0], own[-1]))
        sentence += f"; on images made on the model itself it is {' to '.join(least_and_most)}"
    return [sentence + "."]


def _pair(matrix: Matrix, score: Score, source: str, victim: str) -> str:
    return f"{score_entry(score).plain} (made on {matrix.labels[source]}, tested on {matrix.labels[victim]})"


def _group(cell: Cell) -> str:
    """A key that the cells of one matrix share: data, recipe, threat model and attack, without ε."""
    shared = {key: value for key, value in cell.items() if key not in ATTACKING | {"seed", *MODEL_AXES}}
    return canonical([shared, cell["norm"], cell["attack"], *curve(cell)])


def _matrix(own: list[Record], transferred: list[Record], extra: str, names: Names) -> Matrix:
    # Where the white box was attacked with and without early stopping, the cell without it comes last and is shown.
    records = [*sorted(own, key=lambda record: not record.cell.get("early_stop", True)), *transferred]
    seeds: dict[Place, dict[int, Record]] = defaultdict(dict)
    clean: dict[str, dict[int, Record]] = defaultdict(dict)
    labels: dict[str, str] = {}
    for record in records:
        cell = record.cell
        victim = source = model_key(cell)
        labels[victim] = names.model(cell)
        if "source" in cell:
            source = _source_key(cell)
            labels[source] = names.source(cell)
        seeds[Fraction(cell["eps"]), source, victim][cell["seed"]] = record
        if record.status == "ok" or cell["seed"] not in clean[victim]:
            clean[victim][cell["seed"]] = record
    cell = transferred[0].cell
    victims = dict.fromkeys(model_key(record.cell) for record in records)
    spelled = {Fraction(record.cell["eps"]): scalar(record.cell["eps"]) for record in transferred}
    return Matrix(
        data_name(cell["data"]),
        cell["norm"],
        names.attack({key: value for key, value in cell.items() if key not in ("source", "early_stop")}),
        extra,
        effort(transferred),
        tuple(sorted(spelled.items())),
        tuple(dict.fromkeys([*victims, *(source for _, source, _ in seeds)])),
        tuple(victims),
        dict(zip(labels, distinct(list(labels.values())), strict=True)),
        {victim: _over(records, "clean_accuracy") for victim, records in clean.items()},
        {place: _over(records) for place, records in seeds.items() if place[0] in spelled},
    )


def _source_key(cell: Cell) -> str:
    """The model that images are made on: of the victim's own seed, or of another, which is then part of the key."""
    source = cell["source"]
    models = [source, *source.get("with", [])]
    return " and ".join(
        model_key(model, *([model["seed"]] if model["seed"] != cell["seed"] else [])) for model in models
    )


def _over(records: Mapping[int, Record], metric: str = "robust_accuracy") -> Score:
    return over_seeds([score_of(record, metric) for record in records.values()])


def _entry(matrix: Matrix, eps: Fraction, source: str, victim: str) -> Entry:
    entry = score_entry(matrix.scores.get((eps, source, victim)))
    return Entry(f"{MARK} {entry.text}", entry.detail, entry.note, entry.state) if source == victim else entry
