"""What a trained network answers to fixed inputs: kept with its weights, and compared when they are loaded.

A network that holds something outside its state dict, such as a running mean in a plain attribute, is another one when
its weights are loaded into a new object. Its numbers would then be those of a network that nobody trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

import torch
from torch import Tensor, nn

from epsbench.harness.errors import FAILURES
from epsbench.harness.isolation import isolated
from epsbench.harness.run.machine.environment import arithmetic
from epsbench.models.vae import VAENetwork, quantise

ROWS, NUMBERS = 8, 4
_SAME = 5e-3  # of the largest number; float32 kernels of other machines round differently, by about 1e-5 of it

Answers = dict[str, list[list[float]]]
"""By part of the network, for each of `ROWS` inputs: `NUMBERS` random projections of what the part returns."""


def answers_of(network: nn.Module, shape: tuple[int, int, int]) -> Answers:
    """The answers of a network in evaluation mode, where it is left, to inputs that depend on nothing but ``shape``.

    ``shape`` is that of its images (C, H, W). A part that answers twice differently, raises or returns what is not
    finite has none: others say so.
    """
    network.eval()
    answers: Answers = {}
    for part, ask in _parts(network, shape):
        with isolated(0), arithmetic("float32"), torch.no_grad(), suppress(*FAILURES):
            first, again = _projected(ask()), _projected(ask())
            if torch.equal(first, again) and bool(first.isfinite().all()):
                answers[part] = first.tolist()
    return answers


def changed(kept: Mapping[str, list[list[float]]], network: nn.Module, shape: tuple[int, int, int]) -> str | None:
    """Which part answers otherwise than what `answers_of` gave; None where all answer as they did."""
    now = answers_of(network, shape) if kept else {}
    for part, numbers in kept.items():
        expected = torch.tensor(numbers)
        answer = torch.tensor(now[part]) if part in now else expected * torch.nan
        if not float((answer - expected).abs().max()) <= _SAME * float(expected.abs().max()) + 1e-6:
            return part
    return None


def _parts(network: nn.Module, shape: tuple[int, int, int]) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """The parts of a network, each with a call that asks it."""
    device = next((weight.device for weight in network.parameters()), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(ROWS, *shape, generator=generator).to(device)
    if not isinstance(network, VAENetwork):
        yield "the network", lambda: network(x.clone())
        return
    z = torch.randn(ROWS, network.z_dim, generator=generator).to(device)
    yield "its encoder", lambda: torch.cat(network.encode(quantise(x, network.levels)), dim=1)
    yield "its decoder", lambda: network.logits(z.clone())
    yield "its prior", lambda: network.prior.log_prob(z.clone())


def _projected(answer: Tensor) -> Tensor:
    """Random projections of each row, float32 (N, `NUMBERS`) on the CPU, about as large as the numbers in the row."""
    rows = answer.detach().float().cpu().reshape(len(answer), -1)
    directions = torch.randn(rows.shape[1], NUMBERS, generator=torch.Generator().manual_seed(1))
    return rows @ (directions / rows.shape[1] ** 0.5)
