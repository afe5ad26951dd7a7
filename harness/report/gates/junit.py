"""Verdicts as JUnit XML, which continuous integration shows as test results."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from epsbench.harness.errors import InputError
from epsbench.harness.files import write_atomically

Outcome = Literal["passed", "failure", "error"]
NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Case:
    """One verdict."""

    group: str
    """The class name of the test case."""
    name: str
    """The name of the test case."""
    outcome: Outcome
    """``"failure"`` for a bound that is broken, ``"error"`` for one that could not be judged."""
    message: str
    """The verdict as text."""


def junit(suite: str, cases: Sequence[Case]) -> bytes:
    """The cases as one test suite. Characters that XML forbids become U+FFFD."""
    failures = sum(case.outcome == "failure" for case in cases)
    errors = sum(case.outcome == "error" for case in cases)
    counts = {"tests": str(len(cases)), "failures": str(failures), "errors": str(errors)}
    root = ElementTree.Element("testsuites", {"name": "epsbench", **counts})
    tree = ElementTree.SubElement(root, "testsuite", {"name": legal(suite), **counts, "skipped": "0", "time": "0"})
    for case in cases:
        attributes = {"classname": legal(f"{suite}.{case.group}"), "name": legal(case.name), "time": "0"}
        element = ElementTree.SubElement(tree, "testcase", attributes)
        if case.outcome == "passed":
            ElementTree.SubElement(element, "system-out").text = legal(case.message)
        else:
            problem = ElementTree.SubElement(element, case.outcome, {"message": legal(case.message)})
            problem.text = legal(case.message)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def write_junit(path: Path, suite: str, cases: Sequence[Case]) -> None:
    """Write the file atomically. Raises `InputError` when it cannot be written."""
    try:
        write_atomically(path, junit(suite, cases))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); choose another --junit") from error


def legal(text: str) -> str:
    """The text with U+FFFD in place of characters that XML forbids."""
    return NOT_XML.sub("\ufffd", text)
