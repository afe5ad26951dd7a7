"""The badge of a gate, and the GitHub Action that makes it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from epsbench.harness.report.gates.badge import COLOURS, badge
from epsbench.harness.report.gates.junit import legal

ROOT = Path(__file__).parents[3]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
SVG = "{http://www.w3.org/2000/svg}"
SUITE = """
[robustness]
data = "digits"
training = { epochs = 0 }
test_images = 30
[robustness.matrix]
model = "smallcnn"
attack = "noise"
eps = [0.1]
[[robustness.expect]]
where = { attack = "noise" }
robust_accuracy = { BOUND }
"""


@given(st.text(max_size=60), st.text(max_size=60), st.sampled_from(sorted(COLOURS)))
def test_a_badge_is_xml_with_the_texts_as_they_are(label, message, code):
    tree = ElementTree.fromstring(badge(label, message, code))
    # A parser makes every line end a line feed.
    shown = legal(f"{label}: {message}").replace("\r\n", "\n").replace("\r", "\n")
    assert tree.find(f"{SVG}title").text == shown
    texts = [element.text or "" for element in tree.iter(f"{SVG}text")]
    assert all(len(text) <= 40 for text in texts)
    assert tree.find(f"{SVG}path").get("fill") == COLOURS[code]


def steps() -> dict[str, dict]:
    return {step["id"]: step for step in ACTION["runs"]["steps"] if "id" in step}


def run_step(name: str, folder: Path, inputs: dict[str, str], program: str) -> int:
    """Run the script of a step as GitHub does, with this shell program as ``epsbench``."""
    command = folder / "bin" / "epsbench"
    command.parent.mkdir(exist_ok=True)
    command.write_text(f"#!/bin/sh\n{program}\n", encoding="utf-8")
    command.chmod(0o755)
    values = {key: str(value.get("default", "")) for key, value in ACTION["inputs"].items()} | inputs
    environment = {
        **os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}", "GITHUB_OUTPUT": str(folder / "outputs"),
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
    }  # fmt: skip
    step = steps()[name]
    for variable, value in step["env"].items():
        key = value.removeprefix("${{ inputs.").removesuffix(" }}")
        environment[variable] = values[key]
    script = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    return subprocess.run(script, cwd=folder, env=environment, check=False).returncode


INPUTS = {"suite": "gate.toml", "out": "results/a gate", "run-arguments": "--limit 40 --device cpu --precision=float32"}


@pytest.mark.parametrize(("code", "verdict"), [(0, "holds"), (1, "broken"), (2, "not measured")])
def test_the_action_calls_the_commands_and_passes_the_verdict_on(tmp_path, code, verdict):
    program = f'for each in "$@"; do echo "$each" >> calls; done; [ $1 != check ] || exit {code}'
    assert run_step("measure", tmp_path, INPUTS, program) == 0
    assert run_step("check", tmp_path, {**INPUTS, "baseline": "old"}, program) == code
    assert (tmp_path / "outputs").read_text(encoding="utf-8") == f"verdict={verdict}\n"
    calls = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
    checked = calls[calls.index("check") :]
    assert calls[:9] == ["run", "gate.toml", "--out", "results/a gate", "--limit", "40", "--device", "cpu",
                         "--precision=float32"]  # fmt: skip
    assert checked[:9] == ["check", "gate.toml", "--out", "results/a gate", "--limit", "40", "--precision=float32",
                           "--baseline", "old"]  # fmt: skip


def test_a_run_that_cannot_start_stops_the_action(tmp_path):
    assert run_step("measure", tmp_path, INPUTS, "exit 2") == 2
    assert run_step("measure", tmp_path, INPUTS, "exit 1") == 0, "a failed cell is for the check"


@pytest.mark.skipif("EPSBENCH_FULL" not in os.environ, reason="measures with real commands: set EPSBENCH_FULL=1")
@pytest.mark.parametrize(("bound", "code", "verdict"), [("max = 1.0", 0, "holds"), ("min = 0.99", 1, "broken")])
def test_the_action_measures_checks_and_writes_its_files(tmp_path, bound, code, verdict):
    (tmp_path / "gate.toml").write_text(SUITE.replace("BOUND", bound), encoding="utf-8")
    real = f'exec "{sys.executable}" -m epsbench "$@"'
    assert run_step("measure", tmp_path, INPUTS, real) == 0
    assert run_step("check", tmp_path, INPUTS, real) == code
    assert (tmp_path / "outputs").read_text(encoding="utf-8") == f"verdict={verdict}\n"
    for name in ("report.html", "badge.svg", "findings.sarif", "check.xml"):
        assert (tmp_path / "results" / "a gate" / name).stat().st_size, name
    drawn = (tmp_path / "results" / "a gate" / "badge.svg").read_text(encoding="utf-8")
    assert f"{1 - code} of 1 bound hold" in drawn


def test_the_workflow_in_the_docs_uses_the_actions_inputs_and_outputs():
    text = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    block = next(part for part in text.split("```yaml\n")[1:] if "/epsbench@" in part).split("```")[0]
    [job] = yaml.safe_load(block)["jobs"].values()
    [used] = [step for step in job["steps"] if "/epsbench@" in step.get("uses", "")]
    assert set(used["with"]) <= set(ACTION["inputs"])
    assert {key for key, value in ACTION["inputs"].items() if value.get("required")} <= set(used["with"])
    for name in ACTION["outputs"]:
        assert f"steps.{used['id']}.outputs.{name}" in block or name == "verdict"
