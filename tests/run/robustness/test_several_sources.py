"""Images made on the mean of several models' logits."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from epsbench.attacks.norms import NORMS
from epsbench.harness.options import Options
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.records import read_records
from epsbench.harness.report.build import report
from epsbench.harness.run.attack.gradient import input_gradient
from epsbench.harness.run.data.load import load_data
from epsbench.harness.run.robustness.mean_of_logits import MeanOfLogits
from epsbench.harness.run.runner import run_suite
from epsbench.harness.run.training.trained import build
from epsbench.harness.run.training.weights import load_weights

SUITE = """
[robustness]
data = "digits"
limit = 200
training = { epochs = 4, batch_size = 32, learning_rate = 1e-2 }
[robustness.matrix]
model = { name = "smallcnn", width = 8, hidden = 16 }
seed = [0, 1, 2]
source = ["self", [{ seed = 1 }, { seed = 2 }]]
attack = "fgsm"
eps = 0.15
[[robustness.exclude]]
seed = [1, 2]
source = [[{ seed = 1 }, { seed = 2 }]]
"""


def test_the_mean_is_of_logits():
    networks = [nn.Sequential(nn.Flatten(), nn.Linear(4, 3)) for _ in range(3)]
    x = torch.rand(5, 1, 2, 2)
    torch.testing.assert_close(MeanOfLogits(networks)(x), sum(each(x) for each in networks) / 3)


def test_images_are_made_on_all_sources_and_judged_by_the_victim(tmp_path: Path):
    path = tmp_path / "several.toml"
    path.write_text(SUITE, encoding="utf-8")
    suite = load_suite(str(path))
    assert run_suite(suite, tmp_path / "out", Options(quiet=True, device="cpu")) == 0
    records = {record.id: record for record in read_records(tmp_path / "out")}
    (cell,) = [cell for cell in suite.cells if len(cell.sources) == 2]
    record = records[cell.id]

    data = load_data("digits", None, torch.device("cpu"), 200)

    def network_of(cell):
        context = SimpleNamespace(base=tmp_path, device=torch.device("cpu"))
        network = build(cell, data, context)
        assert load_weights(tmp_path / "out" / "weights", cell.weights_key, network) is not None
        return network.eval()

    victim, sources = network_of(cell), [network_of(source) for source in cell.sources]
    x, y = data.test.pixels(), data.test.labels
    with torch.no_grad():
        right = victim(x).argmax(1) == y
    gradient, _ = input_gradient(MeanOfLogits(sources), x, y)
    eps = torch.full((len(x), 1, 1, 1), float(Fraction("0.15")))
    moved = NORMS["linf"].into_ball(x, x + eps * gradient.sign(), eps)
    with torch.no_grad():
        robust = right & (victim(moved).argmax(1) == y)
    recorded = record.verdicts.unpack()[1]
    assert np.mean(recorded == robust.numpy()) >= 0.99  # a folded batch norm may round a gradient's sign
    assert " and " in report(tmp_path / "out", fmt="markdown")
    assert record.evaluation["source_weights_sha256"].count("+") == 1
