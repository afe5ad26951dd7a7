"""What an audit has to say: a code, a severity, a sentence and the numbers behind it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from epsbench.harness.finding_codes import CODES


class Finding(BaseModel):
    """What an audit has to say about a cell. Severity "void": the cell's numbers mean nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: str
    """A key of `CODES`."""
    severity: Literal["void", "warning"]
    message: str
    """What was measured, then what to do about it."""
    evidence: dict[str, Any] = Field(default_factory=dict)
    """The numbers behind the message."""


def finding(code: str, fact: str, *, remedy: str = "", **evidence: Any) -> Finding:
    """A finding of this code. Its message is the ``fact``, then what to do about it.

    ``remedy`` is what helps where the cause is known; without one it is the code's.
    """
    kind = CODES[code]
    message = f"{fact}; {remedy or kind.remedy}"
    return Finding(code=code, severity=kind.severity, message=message, evidence=evidence)


def voids(findings: Iterable[Finding]) -> bool:
    """Whether any of these findings voids the cell."""
    return any(each.severity == "void" for each in findings)


def slower(code: str, message: str, error: BaseException | None) -> Finding:
    """A warning that a faster form of the model is not used, and why: the ``error``, where one was raised."""
    reason = f" ({type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''})" if error else ""
    return Finding(code=code, severity="warning", message=f"{message}{reason}; numbers are unaffected, speed is")
