"""The plan: what is shared, what is recorded, what is left."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace

import pytest

from epsbench.harness.errors import InputError
from epsbench.harness.plan import recorded
from epsbench.harness.plan.plan import plan, require_writable
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.records import Record, record_path, write_record


def write(results, cell, status):
    write_record(results, Record(id=cell.id, status=status, cell=cell.canonical(), code=cell.code))


def test_cells_that_share_a_model_are_one_job(load, small, tmp_path):
    made = plan(load(small), tmp_path / "none")
    assert [len(job.cells) for job in made.jobs] == [6, 6]
    assert len(made.pending) == 12
    assert not (tmp_path / "none").exists()


def test_done_and_void_cells_drop_out_and_failed_ones_are_run_again(load, small, tmp_path):
    suite = load(small)
    for cell, status in zip(suite.cells, ["ok"] * 6 + ["failed", "void"], strict=False):
        write(tmp_path, cell, status)
    made = plan(suite, tmp_path)
    assert (len(made.done), len(made.failed), len(made.void)) == (6, 1, 1)
    assert made.pending == (suite.cells[6], *suite.cells[8:])
    assert [len(job.cells) for job in made.pending_jobs] == [5]


def test_every_corrupt_record_is_named(load, small, tmp_path):
    suite = load(small)
    for cell in suite.cells[:2]:
        record_path(tmp_path, cell.id).parent.mkdir(exist_ok=True)
        record_path(tmp_path, cell.id).write_text("{")
    with pytest.raises(InputError) as raised:
        plan(suite, tmp_path)
    assert len(raised.value.messages) == 2
    assert "delete the file" in str(raised.value)


def test_gradients_are_predicted(load, small, tmp_path):
    made = plan(load(small), tmp_path)
    assert {cell.attack.name: str(made.predicted_gradients([cell])) for cell in made.pending} == {
        "noise": "0", "fgsm": "at most 500", "pgd": "at most 2,000",
    }  # fmt: skip


def test_the_count_of_another_seed_is_predicted_where_it_is_measured(load, small, tmp_path):
    suite = load(small + "seed = [0, 1]\n")
    first = next(cell for cell in suite.cells if cell.attack.name == "pgd" and cell.seed == 0)
    cost = {"backwards": 700, "shared_backwards": 50}
    write_record(tmp_path, Record(id=first.id, status="ok", cell=first.canonical(), code=first.code, cost=cost))
    made = plan(suite, tmp_path)
    second = replace(first, seed=1)
    assert second in made.pending
    assert str(made.predicted_gradients([second])) == "about 750"
    others = [cell for cell in made.pending if cell.attack == first.attack and cell != second]
    assert {str(made.predicted_gradients([cell])) for cell in others} == {"at most 2,000"}
    assert str(made.predicted_gradients([second, others[0]])) == "at most 2,000, about 750"
    write_record(tmp_path, Record(id=first.id, status="failed", cell=first.canonical(), code=first.code))
    assert str(plan(suite, tmp_path).predicted_gradients([second])) == "at most 2,000"


LOOP = """
from dataclasses import dataclass
from epsbench.attacks.base import Attack

@dataclass(frozen=True, kw_only=True)
class Loop(Attack):
    def perturb(self, victim, x, y, eps, noise):
        return x + eps * victim.gradient(x, y)[0].sign()
"""


def test_nothing_is_predicted_of_an_attack_with_a_loop_of_its_own(load, small, tmp_path):
    (tmp_path / "loop.py").write_text(LOOP, encoding="utf-8")
    made = plan(load(small.replace('"noise"', '"loop.py:Loop"')), tmp_path / "none")
    loops = [cell for cell in made.pending if cell.attack.name == "loop.py:Loop"]
    assert str(made.predicted_gradients(loops[:1])) == "1 cell not known"
    (job, _) = made.jobs
    assert str(made.predicted_gradients(job.cells)) == "at most 5,000, 2 cells not known"


def test_a_results_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--out DIR"):
        require_writable(tmp_path / "file")
    require_writable(tmp_path / "new" / "folder")


OWN = """
from dataclasses import dataclass
from epsbench.attacks.pgd import PGD

@dataclass(frozen=True, kw_only=True)
class Own(PGD):
    pass
"""


def test_each_stream_has_one_attack_which_its_cells_and_later_jobs_share(load, small, tmp_path):
    suite = load(small)
    write(tmp_path, suite.cells[0], "ok")
    made = plan(suite, tmp_path)
    for job, left in zip(made.jobs, made.pending_jobs, strict=True):
        assert sorted(cell.id for stream in job.streams for cell in stream.cells) == sorted(c.id for c in job.cells)
        attacks = {stream.cells[-1].stream: stream.attack for stream in job.streams}
        assert all(stream.attack is attacks[stream.cells[0].stream] for stream in left.streams)
    assert len(made.pending_jobs[0].cells) == len(made.jobs[0].cells) - 1


def test_a_job_builds_its_attacks_again_in_another_process(load, small, tmp_path):
    """A class from a user's file has no module that another process could import."""
    (tmp_path / "own.py").write_text(OWN, encoding="utf-8")
    path = tmp_path / "own.toml"
    path.write_text(
        '[robustness]\ndata = "digits"\n[robustness.matrix]\nmodel = "smallcnn"\n'
        'attack = { name = "own.py:Own", steps = 3 }\neps = [0.1, 0.2]\n',
        encoding="utf-8",
    )
    (job,) = plan(load_suite(str(path)), tmp_path / "none").jobs
    (tmp_path / "job").write_bytes(pickle.dumps(job))
    script = (
        "import pickle, sys; job = pickle.load(open(sys.argv[1], 'rb'))\n"
        "attack = job.streams[0].attack; print(type(attack).__name__, attack.steps, attack.norm.name, len(job.cells))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "job")], capture_output=True, text=True, check=True, cwd="/"
    )
    assert done.stdout.split() == ["Own", "3", "linf", "2"]


def test_a_plan_made_again_reads_only_what_was_replaced(load, small, tmp_path, monkeypatch):
    suite, read = load(small), []
    for cell in suite.cells:
        write(tmp_path, cell, "ok")
    original = recorded.find_record
    monkeypatch.setattr(recorded, "find_record", lambda place, name: read.append(name) or original(place, name))
    first = plan(suite, tmp_path)
    assert sorted(read) == sorted(cell.id for cell in suite.cells)
    read.clear()
    assert plan(suite, tmp_path, first.records).done == first.done
    assert read == []
    write(tmp_path, suite.cells[2], "failed")
    again = plan(suite, tmp_path, first.records)
    assert (read, again.failed) == ([suite.cells[2].id], {suite.cells[2].id})
    record_path(tmp_path, suite.cells[3].id).unlink()
    assert suite.cells[3].id not in plan(suite, tmp_path, first.records).done


def test_the_smallest_distance_is_not_looked_for_along_another_models_gradients(tmp_path):
    path = tmp_path / "suite.toml"
    path.write_text(
        '[robustness]\ndata = "digits"\n[robustness.matrix]\nmodel = ["smallcnn"]\ndefense = ["none", "fgsm-loss"]\n'
        'source = [{ defense = "none" }]\nattack = "ddn"\nnorm = "l2"\neps = [0.5]\n'
    )
    with pytest.raises(InputError, match=r"ddn: looks for the smallest distance, .* leave out its source"):
        plan(load_suite(str(path)), tmp_path)
