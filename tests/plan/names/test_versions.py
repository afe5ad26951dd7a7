"""A version follows the code and not its comments."""

from __future__ import annotations

from epsbench.harness.plan.names.versions import bare_source, code_version

PLAIN = '''x = 1


def f(a):
    text = f"{a!r:>{a}} # no comment"
    return """kept
string""" + text
'''

DRESSED = '''"""A docstring of the module."""
# A comment.
x = 1  # and one behind code


def f(a):
    """A docstring,
    on two lines."""

    # ü before the cut, in characters and not bytes
    text = f"{a!r:>{a}} # no comment"   # ü
    return """kept
string""" + text
'''


def test_comments_docstrings_and_blank_lines_are_cut():
    assert bare_source(DRESSED) == bare_source(PLAIN)


def test_nothing_else_is_cut():
    assert bare_source(PLAIN) == "\n".join(line for line in PLAIN.splitlines() if line)
    assert bare_source(PLAIN.replace("kept", "else")) != bare_source(PLAIN)


def test_a_declared_version_stands_for_the_code():
    class Declared:
        version = 3

    class Derived(Declared):
        pass

    assert code_version(Declared) == "v3"
    assert code_version(Derived) != "v3"


def test_a_declared_version_may_be_any_text():
    class Pinned:
        version = "0d737f011bff9511"

    assert code_version(Pinned) == "0d737f011bff9511"
