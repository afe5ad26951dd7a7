"""Plans of many cells: the work grows with the number of cells, not with its square. Calls are counted, not timed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from epsbench.harness.digest import cell_id
from epsbench.harness.listing import plan_summary, plan_table
from epsbench.harness.plan import expand
from epsbench.harness.plan.plan import plan
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.records import Record, read_records, write_record
from tests.counting import calls

FEW, TIMES = 60, 4
MOST = 1.25 * TIMES
SUITE = """
[robustness]
data = "digits"
[robustness.matrix]
model = "smallcnn"
attack = [{attacks}]
eps = [{eps}]
seed = [{seeds}]
[[robustness.expect]]
where = {{ attack = "fgsm" }}
gradients_per_image = {{ max = 2, relative_to = {{ eps = 0.001 }} }}
"""


def suite_of(folder: Path, *, eps: int = 1, seeds: int = 1, attacks: int = 0) -> Path:
    path = folder / "many.toml"
    pgd = [f'{{ name = "pgd", steps = {n + 2} }}' for n in range(attacks)]
    path.write_text(
        SUITE.format(
            attacks=", ".join(['"fgsm"', *pgd]),
            eps=", ".join(str((n + 1) / 1000) for n in range(eps)),
            seeds=", ".join(map(str, range(seeds))),
        ),
        encoding="utf-8",
    )
    return path


@pytest.mark.parametrize("axis", ["eps", "seeds", "attacks"])
@pytest.mark.parametrize("recorded", [False, True])
def test_four_times_the_cells_take_four_times_the_work(tmp_path, axis, recorded):
    def planned(number: int) -> Callable[[], None]:
        path, results = suite_of(tmp_path, **{axis: number}), tmp_path / str(number)
        for cell in load_suite(str(path)).cells if recorded else ():
            cost = {"backwards": 10, "shared_backwards": 0}
            write_record(results, Record(id=cell.id, status="ok", cell=cell.canonical(), code=cell.code, cost=cost))

        def work() -> None:
            made = plan(load_suite(str(path)), results)
            assert plan_table(made).row_count
            assert str(len(made.suite.cells)) in plan_summary(made)

        return work

    planned(2)()  # what is imported and cached once
    few, many = (calls(planned(number)) for number in (FEW, TIMES * FEW))
    assert many < MOST * few


def test_a_model_is_tried_once_however_many_cells_it_has(tmp_path, monkeypatch):
    made = []
    original = expand.make
    monkeypatch.setattr(expand, "make", lambda kind, *rest, **more: made.append(kind) or original(kind, *rest, **more))
    load_suite(str(suite_of(tmp_path, eps=50, seeds=4)))
    assert made == ["model"]


def test_records_of_a_folder_share_the_parts_in_which_they_agree(tmp_path):
    environment = {"packages": {"torch": "2"}, "device": {"type": "cpu"}}
    for number, device in enumerate(["cpu", "cpu", "cuda"]):
        cell = {"seed": number}
        record = {"id": cell_id(cell, {}), "status": "ok", "cell": cell, "started": str(number)}
        write_record(tmp_path, Record(**record, environment=environment | {"device": {"type": device}}))
    first, second, other = read_records(tmp_path)
    assert first.environment is second.environment
    assert other.environment["device"] == {"type": "cuda"}


OWN = """
from torch import nn

def tiny(classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))
"""


def test_the_plan_of_a_users_model_does_not_load_torchs_compiler(tmp_path):
    (tmp_path / "net.py").write_text(OWN, encoding="utf-8")
    path = suite_of(tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace('"smallcnn"', '"net.py:tiny"'), encoding="utf-8")
    script = (
        "import sys\nfrom epsbench.harness.plan.plan import plan\nfrom epsbench.harness.plan.suite import load_suite\n"
        "from pathlib import Path\nplan(load_suite(sys.argv[1]), Path('none'))\n"
        "print('torch' in sys.modules, 'torch._inductor' in sys.modules, 'sympy' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "False"]
