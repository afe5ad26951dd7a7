"""ε as an exact fraction of the pixel range, with one spelling a value, so that no id contains a rounded float."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from fractions import Fraction

_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,2})?", re.ASCII | re.IGNORECASE)
_RATIO = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)\s*/\s*(\d+\.?\d*|\.\d+)", re.ASCII)
_LONGEST = 40
_ROUNDED_DIGITS = 15
_REMEDY = 'give a fraction such as "8/255" or a decimal such as 0.03, in pixel units'


def any_epsilon(value: object) -> Fraction:
    """`parse_epsilon` without an upper limit: how large an ε may be is for its norm to say (`too_large`)."""
    return parse_epsilon(value, math.inf)


def too_large(eps: Fraction, norm: str, largest: float) -> str:
    """The message for an ε above the largest change that a norm allows within the box."""
    limit = "1, the whole pixel range" if largest == 1 else f"{largest:.6g}, the whole box under {norm}"
    shown = format_epsilon(eps)
    return f"ε must not be above {limit}, not {shown if len(shown) < 12 else f'{float(eps):.8g}'}; {_REMEDY}"


def below_one(eps: Fraction, norm: str) -> str:
    """The message for an ε between 0 and 1 under a norm that counts: nothing may change within it."""
    return f"ε must be at least 1 under {norm}, which counts changes, not {format_epsilon(eps)}; give a whole number"


def parse_epsilon(value: object, largest: float = 1) -> Fraction:
    """The exact ε of ``"8/255"``, ``"0.5/255"``, ``"0.3"``, ``0.3``, ``1`` or a `Fraction`, at most ``largest``.

    It is in pixel units. A float means the decimal that it prints as, so ``0.3`` is 3/10. A float that arithmetic has
    rounded means the number it was rounded from: ``0.15000000000000002`` is 3/20 and ``0.03137254901960784`` is 8/255.
    Raises `ValueError`, with what to write instead, for anything that is not a finite number from 0 to ``largest``.
    """
    fraction = _unrounded(value) if isinstance(value, float) and is_rounded(value) else _exact(value)
    if fraction < 0:
        raise ValueError(f"ε must not be negative, not {_show(value)}; {_REMEDY}")
    if fraction > largest:
        raise ValueError(f"ε must not be above 1, the whole pixel range, not {_show(value)}; {_REMEDY}")
    return fraction


def format_epsilon(eps: Fraction) -> str:
    """The one spelling of an ε: ``"0.3"``, else ``"8/255"``, else a short decimal, else ``"1/7"``."""
    for digits, wanted in ((2, 100), (None, 255), (6, 10**6)):
        scaled = eps * wanted
        if scaled.denominator == 1:
            return f"{scaled}/255" if digits is None else _decimal(scaled.numerator, digits)
    return f"{eps.numerator}/{eps.denominator}"


def is_rounded(value: object) -> bool:
    """Whether a number is a float that nobody types: one that prints with 15 significant digits or more."""
    if not isinstance(value, float) or not math.isfinite(value):
        return False
    digits = repr(value).partition("e")[0].replace(".", "").lstrip("-0")
    return len(digits) >= _ROUNDED_DIGITS


def without_rounded_twins(values: Iterable[object]) -> list[object]:
    """A suite's entries for ε, without the floats that are rounded versions of other entries."""
    values = list(values)
    typed = {any_epsilon(value) for value in values if not is_rounded(value) and _is_number(value)}
    kept: list[object] = []
    for value in values:
        if is_rounded(value) and _is_number(value):
            if any_epsilon(value) in typed:
                continue
            typed.add(any_epsilon(value))
        kept.append(value)
    return kept


def _is_number(value: object) -> bool:
    try:
        any_epsilon(value)
    except ValueError:  # reported by the validation of the entry itself
        return False
    return True


def _unrounded(value: float) -> Fraction:
    """The simplest fraction that is rounded to this float, or to one of its neighbours; else what it prints as."""
    for largest in (255, 1_000, 10_000):
        simple = Fraction(value).limit_denominator(largest)
        if abs(float(simple) - value) <= 2 * math.ulp(value):
            return simple
    return _exact(value)


def _exact(value: object) -> Fraction:
    if isinstance(value, Fraction):
        return value
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"ε must be a number, not {_show(value)}; {_REMEDY}")
    text = value.strip() if isinstance(value, str) else repr(value) if _is_short(value) else ""
    # Limits on the length and the exponent: "1e999999999" would become an integer of a gigabyte.
    if len(text) <= _LONGEST:
        if _DECIMAL.fullmatch(text):
            return Fraction(text)
        if _RATIO.fullmatch(text):
            numerator, denominator = map(Fraction, text.split("/"))
            if denominator == 0:
                raise ValueError(f"ε {_show(value)} divides by zero; {_REMEDY}")
            return numerator / denominator
    raise ValueError(f"ε {_show(value)} is not a number; {_REMEDY}")


def _is_short(value: int | float) -> bool:
    return isinstance(value, float) or value.bit_length() <= 64


def _decimal(scaled: int, digits: int) -> str:
    whole, part = divmod(scaled, 10**digits)
    return f"{whole}.{part:0{digits}d}".rstrip("0").rstrip(".")


def _show(value: object) -> str:
    shown = repr(value) if not isinstance(value, int) or _is_short(value) else "a huge integer"
    return shown if len(shown) <= _LONGEST else shown[:_LONGEST] + "…"
