"""``test_images``: a part of the test images is attacked, on the model that the whole would have been attacked on."""

from __future__ import annotations

from pathlib import Path

from epsbench.harness.options import Options
from epsbench.harness.plan.plan import examples
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.records import find_record
from epsbench.harness.run.runner import run_suite

SUITE = """
[robustness]
data = "digits"
{option}
training = {{ epochs = 1 }}
matrix = {{ model = "smallcnn", attack = ["fgsm", {{ name = "pgd", steps = 3 }}], eps = 0.1 }}
"""


def _measured(folder: Path, option: str):
    """The cells of the suite with this option, and the unpacked verdicts of each."""
    (folder / "suite.toml").write_text(SUITE.format(option=option))
    suite = load_suite(str(folder / "suite.toml"))
    options = Options(quiet=True, device="cpu", weights=folder / "weights")
    assert run_suite(suite, folder / "out", options) == 0
    return suite.cells, [find_record(folder / "out", cell.id).verdicts.unpack() for cell in suite.cells]


def test_verdicts_are_those_of_the_first_images_and_the_model_is_the_same(tmp_path):
    every, whole = _measured(tmp_path, "")
    few, part = _measured(tmp_path, "test_images = 40")
    assert [cell.weights_key for cell in few] == [cell.weights_key for cell in every]
    assert {examples(cell) for cell in few} == {40}
    assert not {cell.id for cell in few} & {cell.id for cell in every}
    assert len(list((tmp_path / "weights").glob("*.safetensors"))) == 1
    for (clean, robust), (few_clean, few_robust) in zip(whole, part, strict=True):
        assert few_clean.tolist() == clean[:40].tolist()
        assert few_robust.tolist() == robust[:40].tolist()
