"""Suites that are made on the spot, for one evaluation, instead of being read from a file. No torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from epsbench.harness.plan.one_word import Entry
from epsbench.harness.plan.suite import Suite, made_suite

NAME = "evaluate"
_PREFIX = re.compile(r"^robustness\.(matrix\.)?")


def evaluation_suite(
    model: Entry | Sequence[Entry],
    data: Entry,
    attack: Entry | Sequence[Entry],
    norm: str | Sequence[str],
    eps: Any,
    *,
    base: Path,
    name: str = NAME,
    limit: int | None = None,
    precision: str | None = None,
    **settings: Any,
) -> Suite:
    """The suite that attacks models as they are; names and paths are relative to ``base``.

    ``settings`` are further keys of ``[robustness]``, or axes of its matrix. Raises `InputError` with a message for
    each problem, which begins with the argument that it is about.
    """
    matrix = {"model": model, "attack": attack, "norm": norm, "eps": eps}
    matrix |= {key: settings.pop(key) for key in ("seed", "source") if key in settings}
    matrix = {key: list(value) if isinstance(value, tuple) else value for key, value in matrix.items()}
    part = {"data": data, "training": {"epochs": 0}, "matrix": matrix, **settings}
    document = {"description": "", "robustness": part}
    return made_suite(document, base / f"{name}.toml", limit, precision, lambda text: _PREFIX.sub("", text))
