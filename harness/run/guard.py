"""Runs one audit: an audit that raises is a finding and never fails the measurement."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from epsbench.harness.errors import FAILURES, InputError, summary
from epsbench.harness.findings import Finding, finding

LONGEST = 300  # characters of the exception's type and message


def guarded(name: str, audit: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """The findings of ``audit``, or one finding with the exception that it raised.

    ``name`` says in the finding what was being checked. Raises `InputError` alone: then the run itself cannot go on.
    """
    try:
        return list(audit())
    except InputError:
        raise
    # Audits call the user's model, which may raise anything, or even try to exit.
    except FAILURES as error:
        return [finding("audit-failed", f"the audit of {name} raises {summary(error)[:LONGEST]}", audit=name,
                        error=type(error).__name__)]  # fmt: skip
