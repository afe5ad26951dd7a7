"""Training the reference VAE: the plain eager loop in float32 against forms of our step, interleaved in one process.

    python tests/benchmarks/vae.py --steps 20 --rounds 5

The plain loop is what anyone would write: float32, contiguous tensors, nothing compiled, a loss read every step. Images
are random, which costs the same. Prints images a second, and the median ratio to the plain loop with its spread.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import pandas as pd
import torch
from torch.utils.benchmark import timer

from epsbench.harness.plan.data import DATASETS
from epsbench.harness.run.machine.precision import has_units
from epsbench.harness.run.training.seeding import seeded
from epsbench.harness.run.training.step_form import Form
from epsbench.harness.run.training.vae import bound_step
from epsbench.models.generative import VAE
from epsbench.models.vae import bits_per_dimension

BATCH, Z_DIM = 128, 20
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
FORMS = {
    "ours, float32": ("float32", Form(layout="contiguous")),
    "ours, float32, compiled": ("float32", Form(compiled=True)),
    "ours, bf16": ("bf16", Form()),
    "ours, bf16, compiled": ("bf16", Form(compiled=True)),
    "ours, bf16, compiled, contiguous": ("bf16", Form(layout="contiguous", compiled=True)),
}
Step = Callable[[], None]


def plain(images: torch.Tensor) -> Step:
    """One step of the loop anyone would write."""
    vae = seeded(lambda: VAE().build(DATASETS["mnist"], Z_DIM), 0).to(DEVICE).train()
    optimizer = torch.optim.Adam(vae.parameters(), 1e-3)

    def step() -> None:
        distortion, rate = vae.elbo(images.float() / 255, torch.randn(BATCH, Z_DIM, device=DEVICE))
        loss = bits_per_dimension((distortion + rate).mean(), vae.shape)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def ours(images: torch.Tensor, precision: str, form: Form) -> Step:
    """One step of `epsbench.harness.run.training.vae` in this precision and form."""
    vae = seeded(lambda: VAE().build(DATASETS["mnist"], Z_DIM), 0).to(DEVICE).train()
    optimizer = torch.optim.Adam(vae.parameters(), 1e-3, fused=True)
    objective = form.apply(vae, bound_step(vae, precision))

    def step() -> None:
        loss, _ = objective(
            images.float() / 255, torch.randn(BATCH, Z_DIM, device=DEVICE), torch.ones((), device=DEVICE)
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def images_per_second(step: Step, steps: int) -> float:
    """Of so many steps, the device synchronised at both ends."""
    started = timer()
    for _ in range(steps):
        step()
    return steps * BATCH / (timer() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images = torch.randint(256, (BATCH, 1, 28, 28), dtype=torch.uint8, device=DEVICE)
    forms = {name: how for name, how in FORMS.items() if has_units(DEVICE, how[0])}
    steps = {"plain, float32": plain(images)} | {name: ours(images, *how) for name, how in forms.items()}
    for step in steps.values():
        images_per_second(step, 2)  # compiles, and chooses kernels
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.rounds):
        for name, step in steps.items():
            rates[name].append(images_per_second(step, options.steps))
    first = rates["plain, float32"]
    rows = []
    for name, taken in rates.items():
        ratios = [rate / base for rate, base in zip(taken, first, strict=True)]
        rows.append(
            {
                "loop": name,
                "images/s": f"{statistics.median(taken):,.0f}",
                "ratio": f"{statistics.median(ratios):.2f}",
                "from": f"{min(ratios):.2f}",
                "to": f"{max(ratios):.2f}",
            }
        )
    title = f"{DEVICE.type}, {options.threads} threads, {options.rounds} rounds of {options.steps} steps"
    print(f"{title}\n{pd.DataFrame(rows).to_markdown(index=False)}")


if __name__ == "__main__":
    main()
