"""The verdict of a gate as a badge: an SVG for a README or a project page."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from epsbench.harness.errors import InputError
from epsbench.harness.files import write_atomically
from epsbench.harness.report.gates.junit import legal

COLOURS = {0: "#1a7f37", 1: "#c2302e", 2: "#6b7280"}
"""By the exit code of a gate: green, red, grey; white text on each has a contrast of at least 4.5."""
LETTER, PADDING, HEIGHT = 6.8, 8.0, 20
LONGEST = 40


def badge(label: str, message: str, code: int) -> bytes:
    """A label on grey and a message on the colour of this exit code. Long texts are cut; the title has all of them."""
    full = legal(f"{label}: {message}")
    texts = [_short(legal(text)) for text in (label, message)]
    left, right = (2 * PADDING + LETTER * max(1, len(text)) for text in texts)
    width = left + right
    middles = (left / 2, left + right / 2)
    drawn = "".join(
        f'<text x="{middle:.1f}" y="14" direction="ltr" unicode-bidi="isolate">{escape(text)}</text>'
        for middle, text in zip(middles, texts, strict=True)
    )
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{HEIGHT}" role="img" '
        f"aria-label={quoteattr(full)}><title>{escape(full)}</title>"
        f'<rect rx="3" width="{width:.1f}" height="{HEIGHT}" fill="#444c56"/>'
        f'<path d="M{left:.1f} 0h{right - 3:.1f}a3 3 0 0 1 3 3v14a3 3 0 0 1-3 3h-{right - 3:.1f}z" '
        f'fill="{COLOURS[code]}"/>'
        f'<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">{drawn}</g>'
        "</svg>\n"
    )
    return svg.encode()


def write_badge(path: Path, label: str, message: str, code: int) -> None:
    """Write the badge. Raises `InputError` when it cannot be written."""
    try:
        write_atomically(path, badge(label, message, code))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); choose another --badge") from error


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
