"""What a code of findings says of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Code:
    """One kind of finding. "void": the cell's numbers mean nothing. "warning": they stand, and the report warns."""

    severity: Literal["void", "warning"]
    meaning: str
    remedy: str
