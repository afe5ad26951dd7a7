"""Iterated FGSM with momentum, and the ways to make its images transfer to other models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.base import LATER, State
from epsbench.attacks.norms.base import per_row
from epsbench.attacks.pgd import PGD
from epsbench.attacks.rows import Answer, Rows
from epsbench.attacks.transforms import resized_and_padded, smoothed

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST = 0.9  # of the resized image's side: the published code resizes between this share and the whole side


@dataclass(frozen=True, kw_only=True)
class MIFGSM(PGD):
    """Steps along an accumulated gradient (Dong et al., 2018, algorithm 1; eq. 6): m ← μ·m + ∇/‖∇‖₁.

    The other options make images that fool other models than the one they are made on; they can be combined.
    """

    version: ClassVar[str] = "8ab56f5f37b61afd"

    relative_step_size: float = 0.1
    decay: float = 1.0

    di: float = field(default=0.0, metadata=LATER, repr=False)
    """Diverse inputs (Xie et al., 2019): the probability that an image is resized and padded at random; often 0.5."""

    ti: int = field(default=0, metadata=LATER, repr=False)
    """Translation invariance (Dong et al., 2019): the side of the Gaussian that smooths the gradient; often 15."""

    ni: bool = field(default=False, metadata=LATER, repr=False)
    """Nesterov's momentum (Lin et al., 2020, eq. 6): the gradient is taken where the momentum leads, at x + α·μ·m.

    That point is projected on the ball as well, which the paper does not do.
    """

    si: int = field(default=1, metadata=LATER, repr=False)
    """Scale invariance (Lin et al., 2020, section 3.3): gradients at x, x/2, x/4, … are averaged; often 5 of them."""

    vmi: int = field(default=0, metadata=LATER, repr=False)
    """Variance tuning (Wang and He, 2021, algorithm 1): how many neighbours of each point are asked; often 20."""

    vmi_radius: float = field(default=1.5, metadata=LATER, repr=False)
    """β of variance tuning: neighbours are uniform within β·ε of the point in every pixel."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.di <= 1:
            raise ValueError(f"di is the probability of a resized image, from 0 to 1, not {self.di}")
        if self.ti < 0 or (self.ti and self.ti % 2 == 0):
            raise ValueError(f"ti is the side of a kernel, an odd number, or 0 for none, not {self.ti}")
        if self.si < 1:
            raise ValueError(f"si is how many scales are averaged, at least 1, not {self.si}")
        if self.vmi < 0 or not self.vmi_radius > 0:
            raise ValueError("vmi is a number of neighbours, at least 0, and vmi_radius must be above 0")

    def views(self) -> tuple[int, ...]:
        own = self.samples * self.si
        return (own * self.vmi, own) if self.vmi else (own,)

    def views_the_point(self) -> bool:
        return not self.di

    def view(self, rows: Rows, x: Tensor, number: int) -> Tensor:
        if number < self.views()[0] and self.vmi:
            x = x + (2 * rows.noise.uniform(*x.shape[1:]) - 1) * self.vmi_radius * rows.eps
        if scale := self.si - 1 - number % self.si:  # the image itself comes last
            x = x / 2**scale
        return resized_and_padded(x, rows.noise, self.di, SMALLEST) if self.di else x

    def state(self, x: Tensor) -> State:
        zero = x.new_zeros(x.shape)
        return {"momentum": zero} | ({"here": x} if self.ni else {}) | ({"variance": zero} if self.vmi else {})

    def start(self, rows: Rows) -> tuple[Tensor, State]:
        x, state = super().start(rows)
        return x, state | ({"here": rows.project(x)} if self.ni else {})

    def step(self, rows: Rows, answer: Answer, state: State) -> tuple[Tensor, State]:
        assert answer.gradient is not None
        around, gradient = answer.gradient.unbind(1) if self.vmi else (None, answer.gradient)
        here = state["here"] if self.ni else answer.x
        new: State = {}
        tuned = gradient + state["variance"] if self.vmi else gradient
        if around is not None:
            new["variance"] = around - gradient  # eq. 4
        tuned = smoothed(tuned, self.ti) if self.ti else tuned
        length = per_row(tuned.flatten(1).abs().sum(1))
        new["momentum"] = momentum = self.decay * state["momentum"] + tuned / length.clamp_min(1e-38)

        step = per_row(rows.step)
        proposal = self.update(here, momentum, rows.eps, step)
        if self.ni:
            new["here"] = proposal = rows.project(proposal)
            # In the published code the mean of |∇| is 1, not its sum.
            ahead = self.size(rows.eps, step) * self.decay * momentum * momentum[0].numel()
            proposal = proposal + ahead * (step + 1 < self.steps)  # the last point is judged and not asked
        return proposal, new
