"""Suites too large to be meant: one message at once, in little memory."""

from __future__ import annotations

import pytest

from epsbench.harness.errors import InputError
from epsbench.harness.plan import expand
from epsbench.harness.plan.suite import load_suite

PART = '[robustness]\ndata = "digits"\n[robustness.matrix]\nmodel = "smallcnn"\nattack = "fgsm"\n'
THOUSAND = list(range(1000))
EPS = [i / 1000 for i in THOUSAND]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{PART}eps = 0.1\nseed = {list(range(2000))}", "robustness.matrix.seed: lists 2,000 values; at most 1,000"),
        (f"{PART}eps = {EPS}\nseed = {THOUSAND}", "makes 1,000,000 cells (1,000 seed × 1,000 eps); a part has at most"),
        (f"{PART}eps = 0.1\n[[robustness.include]]\nseed = {THOUSAND[1:]}\neps = {EPS}\n", "include[0]: makes 999,000"),
        (f"{PART}eps = 0.1\n" + "[[robustness.include]]\nseed = 5\n" * 1001, "robustness.include: has more than 1,000"),
        (f"{PART}eps = 0.1\n" + "[[robustness.expect]]\n" * 1001, "robustness.expect: has more than 1,000"),
        (f"{PART}eps = 0.1\nseed = {list(range(1_000_000))}", "is larger than 1024 KiB; split it"),
        (f"{PART}eps = 0.1\n[robustness.training]\nx = {'[' * 5000}{']' * 5000}", "not TOML: maximum recursion depth"),
    ],
)
def test_enormous_is_one_message_at_once(tmp_path, monkeypatch, text, message):
    path = tmp_path / "suite.toml"
    path.write_text(text)
    combined, original = [], expand.settled
    monkeypatch.setattr(expand, "settled", lambda point: combined.append(point) or original(point))
    with pytest.raises(InputError) as refused:
        load_suite(str(path))
    assert len(combined) < 10  # a suite is refused for its size before its axes are combined
    (shown,) = refused.value.messages
    assert shown.startswith(f"{path}: ")
    assert message in shown


def test_a_billion_cells_are_counted_not_made(tmp_path):
    attacks = ", ".join(f'{{ name = "pgd", steps = {i + 1} }}' for i in range(1000))
    path = tmp_path / "suite.toml"
    path.write_text(PART.replace('"fgsm"', f"[{attacks}]") + f"eps = {EPS}\nseed = {THOUSAND}\n")
    with pytest.raises(InputError, match=r"makes 1,000,000,000 cells \(1,000 seed × 1,000 attack × 1,000 eps\)"):
        load_suite(str(path))


def test_a_suite_whose_name_is_another_folder_is_refused(tmp_path):
    path = tmp_path / "...toml"
    path.write_text(f"{PART}eps = 0.1\n")
    with pytest.raises(InputError, match="rename the file"):
        load_suite(str(path))
