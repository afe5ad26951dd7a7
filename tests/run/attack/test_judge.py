"""How the judge's images lie in memory, and how many it sees at a time: as is fastest, its word staying the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.speed import accelerate as tuning
from epsbench.harness.run.speed.judging import lay_out

CPU = torch.device("cpu")


class Layouts(nn.Module):
    """A model that takes long, raises, says something else or finds no room, for images that lie one way."""

    def __init__(self, network: nn.Module, clock: list[float], seconds: float, does: str = "") -> None:
        super().__init__()
        self.network, self.clock, self.seconds, self.does = network, clock, seconds, does
        self.sizes: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(x))
        last = x.is_contiguous(memory_format=torch.channels_last)
        self.clock[0] += (self.seconds if last else 1.0) * len(x)
        if last and self.does == "raises":
            raise RuntimeError("view size is not compatible")
        if len(x) > 16 and self.does == "has no room":
            raise torch.OutOfMemoryError
        return self.network(x).flip(1) if last and self.does == "lies" else self.network(x)


def laid_out(monkeypatch, seconds: float, does: str, verdicts: int) -> tuple[Judge, nn.Module, torch.Tensor]:
    clock = [0.0]
    for name in ("perf_counter", "thread_time"):  # the second where one thread computes
        monkeypatch.setattr(tuning.time, name, lambda: clock[0])
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    judge = Judge(network, CPU)
    judge.network = Layouts(judge.network, clock, seconds, does)
    x = torch.rand(80, 3, 8, 8)
    lay_out(judge, Targets(lambda at: x[at], torch.zeros(80, dtype=torch.int64), torch.arange(80)), 16, verdicts)
    return judge, network, x


@pytest.mark.parametrize(
    ("seconds", "does", "chosen"),
    [(0.5, "", True), (2.0, "", False), (0.5, "raises", False), (0.5, "lies", False)],
)
def test_the_judges_images_lie_as_is_fastest_and_its_verdict_stays(monkeypatch, seconds, does, chosen):
    judge, network, x = laid_out(monkeypatch, seconds, does, 10**5)
    last = judge.network.network[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert (judge.layout == torch.channels_last, judge.batch == 64, last) == (chosen,) * 3
    judge.network.sizes.clear()
    with torch.no_grad():
        torch.testing.assert_close(judge.logits(x, 16), network(x))
    assert judge.network.sizes == ([64, 16] if chosen else [16] * 5)


def test_a_judge_without_room_for_more_images_sees_no_more(monkeypatch):
    # In chunks that are halved it has its answer, but at no gain.
    judge, _, _ = laid_out(monkeypatch, 0.5, "has no room", 10**5)
    assert judge.batch == 0


def test_few_verdicts_are_not_worth_a_trial(monkeypatch):
    judge, _, _ = laid_out(monkeypatch, 0.5, "", 199 * 16)
    assert (judge.layout, judge.network.sizes) == (torch.contiguous_format, [])
