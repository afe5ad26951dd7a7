"""The works that `epsbench describe` cites, as BibTeX."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path


@cache
def bibliography() -> Mapping[str, str]:
    """Every entry of ``references.bib`` by its key."""
    text = (Path(__file__).parent / "references.bib").read_text(encoding="utf-8")
    return {
        match.group(1): match.group().strip() for match in re.finditer(r"^@\w+\{([^,]+),.*?^\}$", text, re.M | re.S)
    }


def bibtex(keys: Iterable[str]) -> str:
    """The entries with these keys, each once."""
    return "\n".join(bibliography()[key] for key in dict.fromkeys(keys)) + "\n"
