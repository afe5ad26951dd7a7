"""Codes about the audits and other outputs beside the number, and about speed."""

from __future__ import annotations

from epsbench.harness.finding_codes.code import Code

OUTPUTS: dict[str, Code] = {
    "audit-failed": Code(
        "warning",
        "An audit raised an exception, so what it checks is not known. The number does not depend on it.",
        "call the model as the audit does, and correct what raises",
    ),
    "output-failed": Code(
        "warning",
        "Pictures or a profile could not be written. The number does not depend on them.",
        "correct the reason, and run the cell again if the output is needed",
    ),
}

SPEED: dict[str, Code] = {
    "not-folded": Code("warning", "Batch norm could not be folded.", "numbers are unaffected, speed is"),
    "not-prepared": Code(
        "warning",
        "A faster form of the model was rejected.",
        "numbers are unaffected, speed is",
    ),
    "not-mixed": Code(
        "warning",
        "The model cannot run in low precision or is slower in it, or the machine has no such units; float32 is used.",
        "numbers are unaffected",
    ),
    "not-traced": Code(
        "warning", "No faster program could be traced from the model.", "numbers are unaffected, speed is"
    ),
    "not-compiled": Code("warning", "The model could not be compiled.", "numbers are unaffected, speed is"),
    "not-graphed": Code("warning", "A query could not be captured as a CUDA graph.", "numbers are unaffected"),
    "attacked-alone": Code(
        "warning", "Another process could not help with the attack.", "numbers are unaffected, speed is"
    ),
}
