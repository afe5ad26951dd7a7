"""What the tests on Ray share: suites, attacks that act on workers, and a reporter that keeps what it is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Self

from epsbench.harness.options import Options
from epsbench.harness.plan.suite import Suite, load_suite
from epsbench.harness.records import Record, read_records
from epsbench.harness.run.progress import Silent, Task
from epsbench.harness.run.runner import run_suite

SUITE = """
[robustness]
data = "digits"
limit = 300
[robustness.training]
epochs = 12
learning_rate = 4e-3
[robustness.matrix]
model = "smallcnn"
attack = ["noise", "fgsm", { name = "pgd", steps = 3, random_start = true }]
eps = [0.05, 0.2]
seed = [0, 1]
"""
DEADLY = """
import os
from dataclasses import dataclass
from epsbench.attacks.base import GradientAttack

@dataclass(frozen=True, kw_only=True)
class Dies(GradientAttack):
    def update(self, x_adv, gradient, eps, step):
        import ray
        if ray.is_initialized():  # the driver tries it before it starts Ray
            os._exit(3)
        return x_adv
"""
OUTSIDE = """
[robustness]
data = "digits"
limit = 60
[robustness.training]
epochs = 0
[robustness.matrix]
model = ["smallcnn", { name = "smallcnn", width = 4 }]
attack = "fgsm"
eps = 0.1
[[robustness.include]]
model = "smallcnn"
attack = "deadly.py:Dies"
"""
ONE = """
[robustness]
data = "digits"
limit = 200
training = { epochs = 1 }
[robustness.matrix]
model = "smallcnn"
eps = 0.1
"""
OWN_ATTACK = 'attack = "own.py:Own"\n'
STORE = {"object_store_memory": 80 << 20}
_ATTACK = """
import os, time
from dataclasses import dataclass
from pathlib import Path
import epsbench
from epsbench.attacks.base import GradientAttack

@dataclass(frozen=True, kw_only=True)
class Own(GradientAttack):
    steps: int = 3
    def update(self, x_adv, gradient, eps, step):
        BODY
        return x_adv + eps * gradient.sign() / 2
"""
# A worker that helps has no lock on a results folder, and its task is called `attack`.
OWN = _ATTACK.replace(
    "BODY",
    """
        import ray
        mark = Path('{mark}')
        if ray.is_initialized() and "attack" in str(ray.get_runtime_context().get_task_name()) and not mark.exists():
            mark.write_text("helping")
            os._exit(7)
        while ray.is_initialized() and not mark.exists() and len(x_adv) > 2:
            time.sleep(0.05)  # the others must have begun
""".strip(),
)
WAITS = _ATTACK.replace(
    "BODY",
    """
        import ray
        while ray.is_initialized() and not Path('{go}').exists():
            time.sleep(0.05)
""".strip(),
)
DIES_WITH = _ATTACK.replace(
    "BODY",
    """
        import ray
        mark, there = Path('{mark}'), ray.is_initialized()
        if there and ray.get_runtime_context().get_node_id() == '{node}':
            mark.touch()
            while True:
                time.sleep(1)
        while there and not mark.exists() and ray.get_runtime_context().get_task_name():
            time.sleep(0.05)
""".strip(),
)
FROM_WHEEL = _ATTACK.replace("BODY", "assert epsbench.__file__.startswith('{place}'), epsbench.__file__")
DATA = """
import os
import numpy
def numbers():
    with numpy.load(os.environ["DATA_OF_THE_DRIVER"]) as file:
        return file["x"].astype("float32"), file["y"]
"""


def suite_of(folder: Path, text: str) -> Suite:
    path = folder / "suite.toml"
    path.write_text(text, encoding="utf-8")
    return load_suite(str(path))


def run(suite: Suite, results: Path, executor: str, **options: object) -> tuple[int, dict[str, Record]]:
    code = run_suite(suite, results, Options(quiet=True, device="cpu", executor=executor, **options))
    return code, {record.id: record for record in read_records(results)}


class Reports(Silent):
    """What a reporter gets: the tasks, how far each came, and whether it ended."""

    def __init__(self, on_task: Callable[[str], object] = lambda description: None) -> None:
        self.tasks: dict[str, Reported] = {}
        self._on_task = on_task

    def task(self, description: str, total: int | None, unit: str = "") -> Task:
        self._on_task(description)
        return self.tasks.setdefault(description, Reported(total, unit))


class Reported:
    def __init__(self, total: int | None, unit: str) -> None:
        self.total, self.unit, self.steps, self.done, self.open = total, unit, 0, 0.0, 0
        self.fields: dict[str, float] = {}

    def advance(self, n: int = 1, **fields: float) -> None:
        self.steps, self.fields = self.steps + n, fields

    def to(self, done: float) -> None:
        self.done = done

    def __enter__(self) -> Self:
        self.open += 1
        return self

    def __exit__(self, *raised: object) -> None:
        self.open -= 1
