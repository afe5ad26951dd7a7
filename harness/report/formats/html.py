"""The report as one HTML page that needs no network: style, figures and pictures are inside it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from epsbench.harness.report.results.units import norm_name

HERE = Path(__file__).parent


def html(parts: Mapping[str, Any]) -> str:
    """The page with these parts, which the template names.

    Every text is escaped, and the page's policy forbids scripts and the network.
    """
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
    return environment.get_template("page.html.jinja").render(
        style=Markup(style),  # not escaped: it is our own file, and must match its digest byte for byte
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'",
        **parts,
    )


def data_uri(image: bytes) -> str:
    """PNG or SVG bytes as a URI that needs no network."""
    kind = "image/png" if image.startswith(b"\x89PNG") else "image/svg+xml"
    return f"data:{kind};base64,{base64.b64encode(image).decode('ascii')}"


def breakable(label: str) -> Markup:
    """A label, escaped, that may break before its parameters."""
    return Markup("<wbr>(").join(label.split("("))
