"""What the HTML page shows, section by section."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from typing import Any

from epsbench.harness.report.content import Content
from epsbench.harness.report.drawing.illustration import Illustration, captioned_once
from epsbench.harness.report.drawing.images import data_uri
from epsbench.harness.report.drawing.table import Entry, Table
from epsbench.harness.report.generative.illustrations import latent_figures, likelihood_figures, training_figures
from epsbench.harness.report.generative.pictures import blocks
from epsbench.harness.report.glossary import WORDS
from epsbench.harness.report.known import choices, known
from epsbench.harness.report.overview import findings_table, long_environment
from epsbench.harness.report.results.cells import AttackKey, attack_key
from epsbench.harness.report.results.spent import measuring_total, training_total
from epsbench.harness.report.results.units import duration, norm_name, plural, scalar, visible
from epsbench.harness.report.robustness.attack_board import attack_figures
from epsbench.harness.report.robustness.class_figures import class_figures
from epsbench.harness.report.robustness.distance_figures import distance_figures
from epsbench.harness.report.robustness.headline import answers
from epsbench.harness.report.robustness.illustrations import PRICE_CAPTION, price_figures, robustness_figures
from epsbench.harness.report.robustness.kept import kept
from epsbench.harness.report.robustness.leaderboard import Board, Row, seed_rows
from epsbench.harness.report.robustness.pictures import Gallery, galleries
from epsbench.harness.report.robustness.scores import score_entry
from epsbench.harness.report.robustness.tables import board_caption, board_title

MOST_GALLERIES = 12


def page_parts(content: Content) -> dict[str, Any]:
    """Everything that the page's template names, apart from style and policy."""
    results = content.results
    shown, left_out = _galleries(content)
    pictured, pictured_left_out = blocks(content.settings)
    figures, price = list(robustness_figures(content.boards)), list(price_figures(content.boards))
    generative = _generative(content) if content.settings else []
    of_classes, of_attacks = map(captioned_once, (class_figures(content.seen), attack_figures(content.boards)))
    drawn = [*figures, *price, *of_attacks, *of_classes, *(figure for _, group in generative for figure in group)]
    plotted = [figure for figure in drawn if figure.plot is not None]
    images, sheets, images_left_out = kept(results)
    return {
        "score": score_entry,
        "board_title": board_title,
        "board_caption": board_caption,
        "title": content.title,
        "reading": content.reading,
        "facts": _facts(content),
        "boards": content.boards,
        "answers": answers(content.boards),
        "words": WORDS,
        "cells_at": _cells_at,
        "plot_number": {id(figure): index for index, figure in enumerate(plotted)},
        "data": {
            **known(results),
            "choices": choices(results),
            "norms": {norm: norm_name(norm) for norm in dict.fromkeys(board.norm for board in content.boards)},
            "plots": [figure.plot.as_json() for figure in plotted if figure.plot is not None],
            "seeds": [_by_seed(board, content) for board in content.boards],
            "images": images,
            "sheets": [data_uri(sheet) for sheet in sheets],
            "images_left_out": images_left_out,
        },
        "figures": figures,
        "galleries": shown,
        "left_out": left_out,
        "movements": [*content.corruptions, *content.movements],
        "transfers": captioned_once(content.transfers),
        "distances": content.distances,
        "distance_figures": captioned_once(distance_figures(results)),
        "parts": content.parts,
        "attacks": captioned_once(content.attacks),
        "attack_figures": of_attacks,
        "classes": content.classes,
        "class_figures": of_classes,
        "cost": content.cost,
        "training_cost": content.training_cost,
        "price_figures": price,
        "price_caption": PRICE_CAPTION,
        "generative": generative,
        "blocks": pictured,
        "blocks_left_out": pictured_left_out,
        "findings": findings_table(results),
        "details": content.details,
        "long_environment": long_environment(results),
        "tracebacks": [
            (results.names.cell(record.cell), visible(record.failure.traceback, keep="\n\t"))
            for record in results.current
            if record.failure is not None
        ],
    }


def _galleries(content: Content) -> tuple[list[Gallery], int]:
    """The adversarial images of the first models, and the number of models left out."""
    made = [gallery for board in content.boards for gallery in galleries(board, content.results)]
    return made[:MOST_GALLERIES], max(0, len(made) - MOST_GALLERIES)


def _generative(content: Content) -> list[tuple[list[Table], list[Illustration]]]:
    """The tables and figures of generative models, by subject."""
    tables, models = content.generative, content.settings
    return [
        (captioned_once(tables.likelihood), captioned_once(likelihood_figures(models))),
        (captioned_once(tables.latent), captioned_once(latent_figures(models))),
        (captioned_once(tables.quality), []),
        (captioned_once(tables.estimators), []),
        (captioned_once(tables.training), captioned_once(training_figures(models))),
    ]


def _cells_at(row: Row) -> dict[tuple[Fraction, AttackKey], list[str]]:
    """The ids of a row's cells by ε and attack."""
    ids: dict[tuple[Fraction, AttackKey], list[str]] = defaultdict(list)
    for record in row.records:
        ids[Fraction(record.cell["eps"]), attack_key(record.cell)].append(record.id)
    return ids


def _by_seed(board: Board, content: Content) -> list[dict[str, list[str]]]:
    """For every row of several seeds, the numbers of each seed as texts, in the order of the row's columns."""
    shown = []
    for row in board.rows:
        seeds = seed_rows(board, row, content.results) if len(row.seeds) > 1 else {}
        shown.append({scalar(seed): _texts(board, one) for seed, one in seeds.items()})
    return shown


def _texts(board: Board, row: Row) -> list[str]:
    """The clean accuracy, the worst cases, and the accuracy under each attack, as a leaderboard shows them."""
    attacks = [row.attacks[eps, attack] for attack in board.labels for eps, _ in board.eps_of(attack)]
    return [score_entry(score).plain for score in (row.clean, *(row.worst[eps] for eps, _ in board.eps), *attacks)]


def _facts(content: Content) -> list[tuple[str, Entry]]:
    """The line of key figures below the title."""
    records = content.results.current
    counts = {state: sum(record.status == state for record in records) for state in ("ok", "failed", "void")}
    trained, measured = training_total(records), measuring_total(records)
    devices = sorted({visible(str(record.cost["device"])) for record in records if record.cost.get("device")})
    finished = max((record.finished for record in records), default="")
    facts = [("measured", Entry(plural(counts["ok"], "cell")))]
    facts += [
        (state, Entry(plural(counts[state], "cell"), state=state)) for state in ("failed", "void") if counts[state]
    ]
    facts += [("training took", Entry(duration(trained)))] if trained else []
    facts += [("measuring took", Entry(duration(measured)))] if measured else []
    facts += [("device", Entry(", ".join(devices)))] if devices else []
    return facts + ([("finished", Entry(visible(finished)[:16].replace("T", " ")))] if finished else [])
