"""The report as one HTML page that needs no network: style, script, figures and pictures are inside it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from epsbench.harness.report.drawing.images import data_uri
from epsbench.harness.report.results.units import defense_name, norm_name

HERE = Path(__file__).parent
SCRIPTS = ("state", "tables", "choices", "charts", "cells", "images", "start")
"""The files of the page's script, in their order."""


def html(parts: Mapping[str, Any], hint: Any) -> str:
    """The page with these parts, which the template names. ``hint`` gives the hint on the head of a column.

    Every text is escaped. The page's policy allows its own style and script, by their digests, and forbids the network.
    """
    style = (HERE / "page.css").read_text(encoding="utf-8")
    script = _script()
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "data_uri": data_uri, "norm": norm_name, "breakable": breakable, "defense": defense_name, "hint": hint,
        "ident": id,
    }  # fmt: skip
    return environment.get_template("page.html.jinja").render(
        style=Markup(style),  # not escaped: it is our own file, and must match its digest byte for byte
        script=Markup(script),
        payload=Markup(_json(parts["data"])),
        policy=(
            f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; img-src data:; "
            "base-uri 'none'; form-action 'none'"
        ),
        **parts,
    )


def _script() -> str:
    """The page's script: its files in one function, so that it leaves no global names."""
    files = [(HERE / "script" / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS]
    return '"use strict";\n(() => {\n' + "\n".join(files) + "\n})();\n"


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"


def _json(data: Any) -> str:
    """JSON that ends no element and starts no comment, whatever its texts hold."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def breakable(label: str) -> Markup:
    """A label, escaped, that may break before its parameters."""
    return Markup("<wbr>(").join(label.split("("))
