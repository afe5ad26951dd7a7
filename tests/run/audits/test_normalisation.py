"""A normalisation applied twice or left out is seen by the gain in accuracy, and by what a batch norm has seen."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from zoo import DIGITS, digits

from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.audits.auditor import Auditor
from epsbench.harness.run.audits.normalisation import audit_normalisation, labelled
from epsbench.harness.run.audits.probe import Probe
from epsbench.harness.run.data.examples import Examples

N = 256
MEAN, STD = 0.3, 0.4
SHAPE = replace(DIGITS, mean=(MEAN,), std=(STD,))
CORNER = 0.6


def images() -> tuple[Tensor, Tensor]:
    """Images whose first pixels are a constant, the rank of the image and its label; balanced labels."""
    x = torch.rand(N, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    rank = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    y = torch.arange(N) % 10
    x[:, 0, 0, 0], x[:, 0, 0, 1], x[:, 0, 0, 2] = CORNER, rank / N, y / 10
    return x, y


class Counted(nn.Module):
    """Right on the first so many images by rank: as they are, normalised and un-normalised once; else on none."""

    def __init__(self, plain: int, normalised: int, undone: int, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.counts = {"plain": plain, "normalised": normalised, "undone": undone}
        self.norm = norm or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        ways = {"plain": x, "normalised": x * STD + MEAN, "undone": (x - MEAN) / STD}
        logits = torch.zeros(len(x), 10)
        for way, pixels in ways.items():
            here = (pixels[:, 0, 0, 0] - CORNER).abs() < 1e-4
            label = (pixels[:, 0, 0, 2] * 10).round().long()
            right = (pixels[:, 0, 0, 1] * N).round() < self.counts[way]
            answer = torch.where(right, label, label + 1) % 10
            logits[here] = nn.functional.one_hot(answer, 10).float()[here]
        return logits + 0 * self.norm(x).flatten(1).sum(1, keepdim=True)


def codes_of(network: nn.Module) -> list[str]:
    x, y = images()
    probe = Probe(Judge(network, torch.device("cpu")), x, y, 64)
    return [each.code for each in audit_normalisation(probe, labelled(probe, None, None, None), SHAPE)]


@pytest.mark.parametrize(
    ("before", "after", "reported"),
    [
        (240, 251, True),  # 93.8 to 98.0 %: MNIST
        (48, 78, True),  # 18.8 to 30.5 %: a robust network of CIFAR-10
        (43, 77, True),
        (0, 60, True),
        (240, 246, False),  # less than half of the errors
        (252, 256, False),  # 4 images may be chance
        (109, 148, False),  # 36 % more right: a digits network after one epoch
        (150, 150, False),
        (200, 100, False),
        (256, 256, False),
        (0, 26, False),  # one answer for all images is as good
    ],
)
def test_a_gain_is_reported_from_where_it_is_no_chance(before, after, reported):
    assert codes_of(Counted(before, after, 0)) == (["not-normalised"] if reported else [])
    assert codes_of(Counted(before, 0, after)) == (["normalised-twice"] if reported else [])


def batch_norm(x: Tensor) -> nn.BatchNorm2d:
    """A batch norm that was trained on these images."""
    layer = nn.BatchNorm2d(1)
    layer.running_mean, layer.running_var = x.mean((0, 2, 3)), x.var((0, 2, 3))
    return layer


@pytest.mark.parametrize(
    ("before", "after", "seen", "reported"),
    [
        (200, 204, "normalised", True),
        (200, 204, "plain", False),
        (200, 204, "undone", False),
        (204, 200, "normalised", False),
        (200, 200, "normalised", False),
    ],
)
def test_what_a_batch_norm_has_seen_makes_a_small_gain_count(before, after, seen, reported):
    x, _ = images()
    layer = batch_norm({"plain": x, "normalised": (x - MEAN) / STD, "undone": x * STD + MEAN}[seen])
    assert codes_of(Counted(before, after, 0, layer)) == (["not-normalised"] if reported else [])


def test_a_batch_norm_without_statistics_says_nothing():
    assert codes_of(Counted(200, 204, 0, nn.BatchNorm2d(1, track_running_stats=False))) == []


@pytest.mark.parametrize(("side", "images"), [(8, 512), (224, 167), (400, 64)])
def test_of_large_images_fewer_are_taken(side, images):
    x = torch.zeros(1, 1, 1, 1).expand(600, 1, side, side)
    data = replace(digits(), test=Examples(x, torch.zeros(600, dtype=torch.long), 1))
    probe = Probe(Judge(nn.Identity(), torch.device("cpu")), x[:1], torch.zeros(1), 1)
    assert len(labelled(probe, data, torch.zeros(600, 10), torch.zeros(600)).x) == images


def test_the_auditor_looks_at_more_images_than_it_probes():
    """The 32 probed images are all right."""
    x, y = images()
    order = x[:, 0, 0, 1].argsort()
    data = replace(digits(), description=SHAPE, test=Examples(x[order], y[order], 1))
    judge = Judge(Counted(230, 250, 0), torch.device("cpu"))
    probe = Probe(judge, data.test.pixels(slice(32)), data.test.labels[:32], 64)
    findings = Auditor(probe, SHAPE, data=data).model(probe.logits(data.test.pixels()), data.test.labels)
    assert "not-normalised" in {each.code for each in findings}
