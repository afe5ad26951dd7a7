"""Classes whose parameters are not what they seem, or whose code raises while a suite is read: one clear message."""

from __future__ import annotations

import re
import textwrap

import pytest

from epsbench.harness.errors import InputError
from epsbench.harness.plan.plan import plan
from epsbench.harness.plan.suite import load_suite

HEAD = """
from dataclasses import dataclass, field
from typing import ClassVar
import numpy as np
from epsbench.attacks import GradientAttack
from epsbench.attacks.losses import Margin
value = dataclass(frozen=True, kw_only=True)
class Base(GradientAttack):
    def update(self, x_adv, gradient, eps, step):
        return x_adv + eps * gradient.sign()
"""
SUITE = """
[robustness]
data = "digits"
training = { epochs = 0 }
[robustness.matrix]
model = "smallcnn"
attack = %s
eps = 0.1
"""


def planned(tmp_path, code: str, attack: str = '"mine.py:Mine"'):
    (tmp_path / "mine.py").write_text(HEAD + textwrap.dedent(code))
    (tmp_path / "suite.toml").write_text(SUITE % attack)
    return plan(load_suite(str(tmp_path / "suite.toml")), tmp_path / "results")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("class Mine(Base):\n    steps: int = 5\n    size: float = 0.1",
         "Mine has fields (steps, size) and is no dataclass, so they are ignored: put @dataclass(frozen=True"),
        ("@value\nclass Mine(Base):\n    steps = 20",
         "Mine says steps = 20 without a type, which a dataclass ignores: write steps: int = 20"),
        ("@value\nclass Mine(Base):\n    loss = Margin()", "write loss: Loss = Margin()"),
        ("class Mine(Base):\n    def __init__(self, size=0.5, **rest):\n        super().__init__(**rest)",
         "Mine defines __init__, and records know fields alone"),
        ("@value\nclass Mine(GradientAttack):\n    steps: int = 3",
         "does not define update(), which every attack of its kind needs"),
        ("@value\nclass Mine(Base):\n    sizes: list = [1]", "mutable default"),
        ("@value\nclass Mine(Base):\n    sizes: object = field(default_factory=lambda: np.ones(3))",
         "it cannot be compared with another attack (unhashable type: 'numpy.ndarray')"),
        ("@value\nclass Mine(Base):\n    size: float = field(default_factory=lambda: 1 / 0)",
         "Mine: making the default of size raises ZeroDivisionError: division by zero (mine.py, line 13)"),
        ("@value\nclass Mine(Base):\n    def __post_init__(self):\n        {}['size']",
         "mine.py:Mine: making it raises KeyError: 'size' (mine.py, line 14); correct the file"),
        ("@value\nclass Mine(Base):\n    def __post_init__(self):\n        raise SystemExit(1)",
         "mine.py:Mine: making it raises SystemExit: 1 (mine.py, line 14)"),
        ("@value\nclass Mine(Base):\n    query = 'logit'",
         'its query must be "gradient", "logits" or "jacobian", not \'logit\''),
        ("@value\nclass Mine(Base):\n    goal = 'small'", 'goal must be "fool" or "smallest", not \'small\''),
        ("@value\nclass Mine(Base):\n    steps: float = 10.0", "budget() (its steps) gives 10.0; a whole number"),
        ("@value\nclass Mine(Base):\n    def views(self):\n        return 4", "views() gives 4; give a tuple"),
        ("@value\nclass Mine(Base):\n    def check(self, classes):\n        self.nothing",
         "it raises AttributeError: 'Mine' object has no attribute 'nothing' (mine.py, line 14)"),
        ("Mine = unknown", "does not import (NameError: name 'unknown' is not defined (mine.py, line 11))"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("nested", [False, True])
def test_one_message_that_says_what_to_do(tmp_path, code, message, nested):
    attack = '{ name = "ensemble", parts = ["fgsm", "mine.py:Mine"] }' if nested else '"mine.py:Mine"'
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        planned(tmp_path, code, attack)
    assert len(raised.value.messages) == 1
    assert "mine.py" in str(raised.value) or "part Mine" in str(raised.value)


@pytest.mark.parametrize(
    ("code", "attack"),
    [
        ("@value\nclass Mine(Base):\n    steps: int = 3\n    named: ClassVar[int] = 4\n    plain = 5",
         '"mine.py:Mine"'),
        ("class Mine(Base):\n    plain = 5\n    named: ClassVar[int] = 4", '"mine.py:Mine"'),
        ("@value\nclass Mine(Base):\n    table: dict = field(default_factory=lambda: {'a': [1]})",
         '["mine.py:Mine", { name = "mine.py:Mine", table = { b = 2.0 } }]'),
        ("@value\nclass Mine(Base):\n    sizes: list = field(default_factory=lambda: [1.0])",
         '["mine.py:Mine", { name = "mine.py:Mine", sizes = [2.0, 3.0] }]'),
    ],
)  # fmt: skip
def test_what_is_no_mistake_is_planned_and_can_be_looked_up(tmp_path, code, attack):
    (job,) = planned(tmp_path, code, attack).jobs
    assert len({stream.attack for stream in job.streams}) == len(job.streams) == len(job.cells)
