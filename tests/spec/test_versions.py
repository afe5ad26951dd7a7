"""A version follows the code and not its comments."""

from __future__ import annotations

from harness.spec.versions import bare_source, code_version

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


def test_an_architecture_is_as_old_as_the_network_it_builds(monkeypatch):
    from harness.spec import versions
    from models.catalogue import ResNet18, SmallCNN

    before = code_version(SmallCNN), code_version(ResNet18)
    digest = versions._module_digest
    monkeypatch.setattr(versions, "_module_digest", lambda name: digest(name) + "x" * (name == "models.resnet"))
    assert code_version(SmallCNN) == before[0]
    assert code_version(ResNet18) != before[1]


def test_a_defense_stands_on_the_attacks_it_trains_with_and_no_defense_on_none():
    from harness.spec.versions import _attacks_used
    from models.defenses import FGSMLoss, NoDefense, PGDBatch

    assert _attacks_used(PGDBatch) == {"attacks.pgd", "attacks.base", "attacks.norms"}
    assert _attacks_used(FGSMLoss) == {"attacks.fgsm", "attacks.base", "attacks.norms"}
    assert _attacks_used(NoDefense) == frozenset()
