"""How numbers and names are written, the same in every output format."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

ABSENT = "–"


def percent(value: float) -> str:
    """A share in [0, 1] as ``"93.0 %"``."""
    return f"{100 * value:.1f} %"


def percent_range(low: float | None, high: float | None) -> str:
    """An interval of shares as ``"[92.5, 93.5]"``, in percent; empty where there is none."""
    return "" if low is None or high is None else f"[{100 * low:.1f}, {100 * high:.1f}]"


def points(difference: float) -> str:
    """A difference of two shares in percentage points, signed: ``"-1.2"``."""
    return f"{100 * difference:+z.1f}"


def change_in_points(value: float, low: float, high: float) -> str:
    """A difference of two shares with its interval: ``"-1.2 points [-1.5, -0.9]"``."""
    return f"{points(value)} points [{points(low)}, {points(high)}]"


def bits(value: float) -> str:
    """Bits per dimension, to a thousandth."""
    return f"{value:z.3f}"


def bits_range(low: float | None, high: float | None) -> str:
    """An interval of bits per dimension as ``"[0.515, 0.521]"``; empty where there is none."""
    return "" if low is None or high is None else f"[{low:z.3f}, {high:z.3f}]"


def number(value: float) -> str:
    """Three significant digits below a thousand; above, a whole number with its thousands grouped."""
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 999.5 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def number_range(low: float | None, high: float | None) -> str:
    """An interval of plain numbers as ``"[1.02, 1.05]"``; empty where there is none."""
    return "" if low is None or high is None else f"[{number(low)}, {number(high)}]"


SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def magnitude(value: float) -> str:
    """As `number` between 0.001 and 100,000; outside as ``"1.25 × 10⁹"``, which shows the order of magnitude."""
    if value == 0 or 1e-3 <= abs(value) < 1e5 or not math.isfinite(value):
        return number(value)
    digits, power = f"{value:.2e}".split("e")
    return f"{digits} × 10{str(int(power)).translate(SUPERSCRIPTS)}"


def decimals(places: int) -> Callable[[float], str]:
    """A function that writes a number with this many decimal places; what rounds to zero has no sign."""
    return f"{{:z.{places}f}}".format


def duration(seconds: float) -> str:
    """Seconds in fitting units: ``"9.1 ms"``, ``"0.42 s"``, ``"12 s"``, ``"3 min 20 s"``, ``"1 h 12 min"``."""
    if not math.isfinite(seconds):
        return str(seconds)
    if 0 < seconds < 0.0995:
        return f"{1000 * seconds:.2g} ms"
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def memory(count: float) -> str:
    """Bytes in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def p_value(p: float) -> str:
    """A p-value, to two digits, never as zero."""
    return "< 0.0001" if p < 0.0001 else f"{p:.2g}"


def plural(count: int, noun: str) -> str:
    """``"1 cell"``, ``"2 cells"``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def and_list(items: list[str]) -> str:
    """``"a"``, ``"a and b"``, ``"a, b and c"``."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def some_of(items: list[str], most: int = 8) -> str:
    """As `and_list`; of many items the first few, and how many more there are: ``"a, b and 5 more"``."""
    return and_list(items if len(items) <= most else [*items[: most - 1], f"{len(items) - most + 1:,} more"])


def distinct(names: Sequence[str]) -> list[str]:
    """The names, with a number after those that repeat an earlier one."""
    before = [names[:index].count(name) for index, name in enumerate(names)]
    return [f"{name} ({count + 1})" if count else name for name, count in zip(names, before, strict=True)]


def visible(text: str, keep: str = "") -> str:
    """The text with control, formatting and unassigned characters as escapes.

    A name then cannot move the cursor, hide itself or reverse the direction of a line. Characters in ``keep``, such as
    a line break, stay.
    """
    return "".join(
        c if c in keep or unicodedata.category(c)[0] != "C" else c.encode("unicode_escape").decode("ascii")
        for c in text
    )


def scalar(value: Any) -> str:
    """A value of a suite or an environment as text: strings bare, the rest as in JSON."""
    return visible(value) if isinstance(value, str) else visible(json.dumps(value, ensure_ascii=False, default=str))


def parameter(value: Any) -> str:
    """A parameter's value as text. One that is a name with parameters is written ``mine.py:Encoder(hidden=16)``."""
    if isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        return "+".join(map(parameter, value))
    if not (isinstance(value, Mapping) and isinstance(value.get("name"), str)):
        return scalar(value)
    shown = [f"{visible(str(key))}={parameter(each)}" for key, each in value.items() if key != "name"]
    return visible(value["name"]) + (f"({', '.join(shown)})" if shown else "")


def data_name(data: Any) -> str:
    """A data set by its name; a user's own by its file or folder and the digest of its content."""
    if not isinstance(data, Mapping):
        return scalar(data)
    return f"{scalar(data.get('path') or data.get('name'))} ({scalar(data.get('content', ''))})"


NORM_NAMES = {"linf": "L∞", "l2": "L2", "l1": "L1", "l0": "L0", "l0-pixels": "L0 (pixels)"}


def defense_name(label: str) -> str:
    """``"undefended"`` for ``"none"``; every other label of a defense as it is."""
    return "undefended" if label == "none" else label


def norm_name(norm: str) -> str:
    """``"L∞"`` for ``"linf"``, ``"L2"`` for ``"l2"``; a norm without a symbol keeps its name."""
    return NORM_NAMES.get(norm, visible(norm))
