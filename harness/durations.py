"""Durations as they are written on the command line and shown: ``5m``, ``1h30m``, ``90``. No torch."""

from __future__ import annotations

import re

_FORM = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s?)?")


def seconds_of(text: str) -> float:
    """The seconds of a duration: ``"1h30m"`` is 5400, ``"5m"`` 300, ``"90s"`` and ``"90"`` 90.

    Raises `ValueError` for a text that is none, and for nothing at all.
    """
    match = _FORM.fullmatch(text.strip().lower())
    parts = [float(part or 0) for part in match.groups()] if match else []
    seconds = sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=True)) if parts else 0.0
    if seconds <= 0:
        raise ValueError(f"{text!r} is no duration; give one such as 90s, 5m or 1h30m")
    return seconds


def shown(seconds: float) -> str:
    """A duration in the two units that matter: ``"45 s"``, ``"5 min"``, ``"1 h 30 min"``."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = seconds / 60
    if minutes < 10:
        return f"{minutes:.1f} min".replace(".0 ", " ")
    hours, rest = divmod(round(minutes), 60)
    return f"{hours} h {rest} min" if hours else f"{rest} min"
