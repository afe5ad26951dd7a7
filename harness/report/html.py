"""The report as one HTML page that needs no network: style, figures and pictures are inside it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from epsbench.harness.report.content import Content
from epsbench.harness.report.generative.illustrations import latent_figures, likelihood_figures, training_figures
from epsbench.harness.report.generative.pictures import blocks
from epsbench.harness.report.illustrations import PRICE_CAPTION, Illustration, price_figures, robustness_figures
from epsbench.harness.report.pictures import Gallery, galleries
from epsbench.harness.report.table import Entry, Table, score_entry
from epsbench.harness.report.tables import board_caption, board_title, findings_table, long_environment
from epsbench.harness.report.units import duration, norm_name, plural, visible

HERE = Path(__file__).parent
MOST_GALLERIES = 12


def html(content: Content) -> str:
    """The page. Everything that comes from records is escaped; the page's policy forbids scripts and the network."""
    style = (HERE / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"data_uri": data_uri, "norm": norm_name, "breakable": breakable}
    environment.globals |= {"score": score_entry, "board_title": board_title, "board_caption": board_caption}
    results = content.results
    shown, left_out = _galleries(content)
    pictured, pictured_left_out = blocks(content.settings)
    return environment.get_template("page.html.jinja").render(
        style=Markup(style),  # ours, and it must match its digest byte for byte
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'",
        title=content.title,
        reading=content.reading,
        facts=_facts(content),
        boards=content.boards,
        figures=list(robustness_figures(content)),
        galleries=shown,
        left_out=left_out,
        movements=content.movements,
        transfers=_said_once(content.transfers),
        cost=content.cost,
        training_cost=content.training_cost,
        price_figures=list(price_figures(content)),
        price_caption=PRICE_CAPTION,
        generative=_generative(content) if content.settings else [],
        blocks=pictured,
        blocks_left_out=pictured_left_out,
        findings=findings_table(results),
        details=content.details,
        long_environment=long_environment(results),
        tracebacks={
            results.names.cell(record.cell): visible(record.failure.traceback, keep="\n\t")
            for record in results.current
            if record.failure is not None
        },
    )


def data_uri(image: bytes) -> str:
    """PNG or SVG bytes as a URI that needs no network."""
    kind = "image/png" if image.startswith(b"\x89PNG") else "image/svg+xml"
    return f"data:{kind};base64,{base64.b64encode(image).decode('ascii')}"


def breakable(label: str) -> Markup:
    """A label, escaped, that may break before its parameters."""
    return Markup("<wbr>(").join(label.split("("))


def _galleries(content: Content) -> tuple[list[Gallery], int]:
    made = [gallery for board in content.boards for gallery in galleries(board, content.results)]
    return made[:MOST_GALLERIES], max(0, len(made) - MOST_GALLERIES)


def _generative(content: Content) -> list[tuple[list[Table], list[Illustration]]]:
    """What there is to say of generative models, by subject: its tables, then its figures."""
    tables, models = content.generative, content.settings
    return [
        (_said_once(tables.likelihood), _said_once(likelihood_figures(models))),
        (_said_once(tables.latent), _said_once(latent_figures(models))),
        (_said_once(tables.quality), []),
        (_said_once(tables.estimators), []),
        (_said_once(tables.training), _said_once(training_figures(models))),
    ]


Captioned = TypeVar("Captioned", Table, Illustration)


def _said_once(shown: Iterable[Captioned]) -> list[Captioned]:
    """Tables or figures of which only the first with a caption has it."""
    said: set[str] = set()
    told = []
    for one in shown:
        told.append(replace(one, caption="") if one.caption in said else one)
        said.add(one.caption)
    return told


def _facts(content: Content) -> list[tuple[str, Entry]]:
    """The line of key figures below the title."""
    records = content.results.current
    counts = {state: sum(record.status == state for record in records) for state in ("ok", "failed", "void")}
    seconds = [record.cost.get("seconds") for record in records]
    spent = sum(value for value in seconds if isinstance(value, int | float))
    devices = sorted({visible(str(record.cost["device"])) for record in records if record.cost.get("device")})
    finished = max((record.finished for record in records), default="")
    facts = [("measured", Entry(plural(counts["ok"], "cell")))]
    facts += [
        (state, Entry(plural(counts[state], "cell"), state=state)) for state in ("failed", "void") if counts[state]
    ]
    facts += [("measuring took", Entry(duration(spent)))] if spent else []
    facts += [("device", Entry(", ".join(devices)))] if devices else []
    return facts + ([("finished", Entry(visible(finished)[:16].replace("T", " ")))] if finished else [])
