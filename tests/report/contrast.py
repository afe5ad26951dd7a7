"""Contrast of two colours as WCAG 2.2 defines it."""

from __future__ import annotations

import re


def luminance(colour: str) -> float:
    """The relative luminance of ``#rgb`` or ``#rrggbb``, in [0, 1]."""
    digits = colour.removeprefix("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    channels = [int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def ratio(one: str, other: str) -> float:
    """The contrast ratio of two colours, from 1 to 21."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def variables(css: str) -> dict[str, dict[str, str]]:
    """The colours that a style sheet sets on ``:root``: of the light theme, and of the dark one."""
    light, dark = (dict(re.findall(r"--([\w-]+):\s*(#[0-9a-f]+)\s*;", block)) for block in re.findall(
        r":root \{(.*?)\}", css, flags=re.S)[:2])  # fmt: skip
    return {"light": light, "dark": light | dark}
