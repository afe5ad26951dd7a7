"""What the pages of a site show, before they are HTML."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from epsbench.harness.report.content import Content
from epsbench.harness.report.drawing.illustration import Illustration, captioned_once
from epsbench.harness.report.drawing.table import Table
from epsbench.harness.report.generative.tables import generative_tables
from epsbench.harness.report.overview import findings_table
from epsbench.harness.report.results.cells import AttackKey, numbers
from epsbench.harness.report.results.units import and_list, data_name, duration, norm_name, number, plural, visible
from epsbench.harness.report.robustness.attack_board import attack_figures, attack_table
from epsbench.harness.report.robustness.headline import Answer, answers
from epsbench.harness.report.robustness.leaderboard import Board, Row
from epsbench.harness.report.robustness.scores import Score, score_entry
from epsbench.harness.report.robustness.tables import board_caption, board_title

ATTACKS = "attacks.html"
MOST_SUITES = 3
"""Suites that a title names; of more it says how many there are."""


@dataclass(frozen=True)
class Cell:
    """One cell of a table: a text, and the page that it links to, relative to the site's root."""

    text: str
    """What is shown."""
    detail: str = ""
    """An interval, smaller."""
    link: str = ""
    """The page, such as ``"models/smallcnn-1a2b3c.html"``; empty for none."""
    state: str = ""
    """``failed``, ``void``, ``missing``, ``warning`` or empty."""


@dataclass(frozen=True)
class Section:
    """A table of a page; the first column names the rows."""

    title: str
    """What stands above it."""
    heads: tuple[str, ...]
    """The heads of its columns."""
    rows: tuple[tuple[Cell, ...], ...]
    """Its rows."""
    caption: str = ""
    """How to read it."""
    figures: tuple[Illustration, ...] = ()
    """Figures above the table."""


@dataclass(frozen=True)
class Best:
    """The best model of one results folder at one ε."""

    answer: Answer
    """Which it is, by how much, and whether that is certain."""
    folder: str
    """The folder, as the site names it."""
    link: str
    """The full report on the folder, relative to the site's root."""


@dataclass(frozen=True)
class Page:
    """One page of the site."""

    path: str
    """Where it lies, relative to the site's root."""
    title: str
    """The headline."""
    lead: tuple[str, ...] = ()
    """Opening paragraphs."""
    best: tuple[Best, ...] = ()
    """The best models, before everything else."""
    folded: Section | None = None
    """A table below them that is closed at first."""
    sections: tuple[Section, ...] = ()
    """Its tables."""
    words: tuple[str, ...] = ()
    """Paragraphs below the tables."""

    @property
    def root(self) -> str:
        """The way from this page to the site's root: ``""`` or ``"../"``."""
        return "../" * self.path.count("/")


def page_path(folder: str, name: str, *what: str) -> str:
    """``"models/smallcnn-trades-1a2b3c4d.html"``: readable, and different for different things of one name."""
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower())[:40].strip("-") or "x"
    digest = hashlib.sha256("\0".join([name, *what]).encode("utf-8", "backslashreplace")).hexdigest()[:8]
    return f"{folder}/{readable}-{digest}.html"


def model_path(board: Board, row: Row) -> str:
    """The page of a model of a leaderboard."""
    return page_path("models", row.label, board.data, board.norm)


def attack_path(board: Board, attack: AttackKey) -> str:
    """The page of an attack on a leaderboard."""
    return page_path("attacks", board.labels[attack], board.data, board.norm, attack.entry, attack.curve, attack.source)


def content_pages(content: Content, folders: Mapping[str, tuple[str, Content]]) -> list[Page]:
    """The start page, the leaderboard of attacks, and a page for every model and attack of the leaderboards.

    ``folders`` has the content of each results folder alone, with its name, by the path of its report.
    """
    pages = [_index(content, folders), _attack_boards(content)]
    for board in content.boards:
        pages += [_model(board, row, content) for row in board.rows]
        pages += [_attack(board, attack) for attack in board.labels]
    return pages


def _index(content: Content, folders: Mapping[str, tuple[str, Content]]) -> Page:
    sections: list[Section] = []
    for board in content.boards:
        sections += [_leaderboard(board), _attacks(board)]
    sections += [_plain(table.title, table) for table in generative_tables(content.settings).all]
    if (findings := findings_table(content.results)) is not None:
        sections.append(_plain("Findings and failures", findings))
    records = content.results.current
    finished = max((record.finished for record in records), default="")[:16].replace("T", " ")
    lead = (f"{plural(len(records), 'cell')} measured; the newest finished {visible(finished)} UTC.",)
    all_best = [Best(answer, name, path) for path, (name, alone) in folders.items() for answer in answers(alone.boards)]
    ranked = tuple(best for best in all_best if best.answer.ranked)
    others = [best for best in all_best if not best.answer.ranked]
    folded = _other_eps(others) if others else None
    return Page("index.html", _title(content), lead, ranked, folded, tuple(sections), tuple(content.reading))


def _title(content: Content) -> str:
    suites = content.results.suites
    if len(suites) <= MOST_SUITES:
        return content.title
    data = list(dict.fromkeys(data_name(record.cell["data"]) for record in content.results.current))
    return f"{len(suites)} suites on {and_list(data)}"


def _other_eps(best: list[Best]) -> Section:
    """The best models at the ε by which leaderboards are not sorted."""
    heads = ("data, norm and ε", "results", "best model", "worst case", "ahead by", "is it certain?")
    rows = tuple(
        (
            Cell(one.answer.title), Cell(one.folder, link=one.link), Cell(one.answer.best), Cell(one.answer.accuracy),
            Cell(one.answer.lead or "–"),
            Cell(one.answer.verdict.partition(":")[0], state="" if one.answer.certain else "warning"),
        ) for one in best
    )  # fmt: skip
    return Section("The best models at other ε", heads, rows)


def _attack_boards(content: Content) -> Page:
    """The attacks of every leaderboard against the best of all, with figures."""
    sections = []
    for board in content.boards:
        if (table := attack_table(board)) is not None:
            links = {label: attack_path(board, attack) for attack, label in board.labels.items()}
            plain = _plain(table.title, table)
            rows = tuple((replace(first, link=links.get(first.text, "")), *rest) for first, *rest in plain.rows)
            sections.append(replace(plain, rows=rows, figures=tuple(captioned_once(attack_figures([board])))))
    lead = () if sections else ("No model was attacked by two attacks under one norm, so none can be compared.",)
    return Page(ATTACKS, "Attacks", lead, sections=tuple(sections))


def _plain(title: str, table: Table) -> Section:
    rows = tuple(tuple(Cell(entry.text, entry.detail, state=entry.state) for entry in row) for row in table.rows)
    caption = " ".join([*(f"{note[:1].upper()}{note[1:]}." for note in table.notes), table.caption])
    return Section(title, tuple(column.title for column in table.columns), rows, caption)


def _score(score: Score | None) -> Cell:
    entry = score_entry(score)
    return Cell(entry.text, entry.detail, state=entry.state)


def _leaderboard(board: Board) -> Section:
    heads = ("model", "rank", "clean", *(f"worst case, ε = {spelled}" for _, spelled in board.eps))
    rows = tuple(
        (
            Cell(row.label, link=model_path(board, row)), Cell(str(row.rank or "–")), _score(row.clean),
            *(_score(row.worst[eps]) for eps, _ in board.eps),
        ) for row in board.rows
    )  # fmt: skip
    return Section(board_title(board), heads, rows, board_caption(board))


def _attacks(board: Board) -> Section:
    """Attacks by what they leave of all models together at the ε of the ranks, the strongest first."""
    eps, spelled = board.ranked
    lines: list[tuple[float, tuple[Cell, ...]]] = []
    for attack in board.attacks[eps]:
        left = [score.value for row in board.rows if (score := row.attacks[eps, attack]).value is not None]
        excess = [
            score.value - worst.value for row in board.rows
            if (score := row.attacks[eps, attack]).value is not None and (worst := row.worst[eps]).value is not None
        ]  # fmt: skip
        if not left:
            continue
        mean = sum(left) / len(left)
        gap = f"{100 * sum(excess) / len(excess):.1f}" if excess else "–"
        cells = (
            Cell(board.labels[attack], link=attack_path(board, attack)), Cell(f"{100 * mean:.1f} %"), Cell(gap),
            Cell(number(board.efforts[attack])), Cell(str(len(left))),
        )  # fmt: skip
        lines.append((mean, cells))
    caption = (
        f"At ε = {spelled}: the robust accuracy that an attack leaves, the mean over models, and how many points that "
        "is above the worst case over all attacks. An attack with 0.0 is the strongest on every model."
    )
    rows = tuple(cells for _, cells in sorted(lines, key=lambda line: line[0]))
    heads = ("attack", "leaves", "above the worst case", "gradients/image", "models")
    return Section(f"Attacks on {board.data}, {norm_name(board.norm)}", heads, rows, caption)


def _model(board: Board, row: Row, content: Content) -> Page:
    heads = ("attack", *(f"ε = {spelled}" for _, spelled in board.eps))
    lines = [
        (
            Cell(board.labels[attack], link=attack_path(board, attack)),
            *(_score(row.attacks.get((eps, attack))) for eps, _ in board.eps),
        )
        for attack in board.labels
    ]
    lines.append((Cell("worst case"), *(_score(row.worst[eps]) for eps, _ in board.eps)))
    under = Section("Robust accuracy", heads, tuple(lines), board_caption(board))
    clean = score_entry(row.clean)
    rank = f"Rank {row.rank} of {len(board.rows)}" if row.rank else "Without a rank"
    where = f"{rank} on {board.data} under {norm_name(board.norm)}, at ε = {board.ranked[1]}."
    lead = (where, f"Clean accuracy: {clean.plain}.")
    sections = (under, _training(row), *_findings(row), _cells(row, content))
    return Page(model_path(board, row), row.label, lead, sections=sections)


def _training(row: Row) -> Section:
    """What decided the weights, and what training took; one line a seed."""
    by_seed = {str(record.cell["seed"]): record for record in row.records}
    heads = ("seed", "training", "parameters", "weights (SHA-256)")
    rows = []
    for seed, record in by_seed.items():
        seconds = numbers([record.training], "seconds")
        count = record.training.get("parameters")
        digest = str(record.training.get("weights_sha256", "–"))
        rows.append((
            Cell(seed), Cell(duration(seconds[0]) if seconds else "–"),
            Cell(f"{count:,}" if isinstance(count, int) else "–"), Cell(digest[:16]),
        ))  # fmt: skip
    return Section("Training", heads, tuple(rows))


def _findings(row: Row) -> Iterator[Section]:
    seen = {(f.severity, f.code, f.message) for record in row.records for f in record.findings}
    if seen:
        rows = tuple(
            (Cell(visible(code)), Cell(severity, state=severity), Cell(visible(message)))
            for severity, code, message in sorted(seen)
        )
        yield Section("Findings of the audits", ("code", "severity", "what"), rows)


def _cells(row: Row, content: Content) -> Section:
    rows = tuple(
        (Cell(record.id), Cell(record.status, state="" if record.status == "ok" else record.status),
         Cell(content.results.names.cell(record.cell)), Cell(record.finished[:16].replace("T", " ")))
        for record in row.records
    )  # fmt: skip
    return Section("Cells", ("id", "status", "cell", "finished"), rows)


def _attack(board: Board, attack: AttackKey) -> Page:
    label = board.labels[attack]
    eps = board.eps_of(attack)
    heads = ("model", *(f"ε = {spelled}" for _, spelled in eps))
    rows = tuple(
        (Cell(row.label, link=model_path(board, row)), *(_score(row.attacks.get((each, attack))) for each, _ in eps))
        for row in board.rows
    )
    lead = (
        f"On {board.data} under {norm_name(board.norm)}, against {plural(len(board.rows), 'model')}; up to "
        f"{number(board.efforts[attack])} gradients an image.",
    )
    sections = (Section("Robust accuracy", heads, rows, board_caption(board)),)
    return Page(attack_path(board, attack), label, lead, sections=sections)
