"""The victim: the classifier under attack in its fastest form, which counts its forwards and backwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from epsbench.attacks.losses import CROSS_ENTROPY, Loss, at_class
from epsbench.harness.findings import Finding
from epsbench.harness.run.attack.few_rows import alike, with_alike_products
from epsbench.harness.run.attack.gradient import Score, loss_gradient, loss_jacobian
from epsbench.harness.run.attack.graphs import Ladder
from epsbench.harness.run.attack.line_search import lead_of
from epsbench.harness.run.attack.scale import scale
from epsbench.harness.run.machine.memory import is_out_of_memory
from epsbench.harness.run.machine.precision import autocast

# How far a precision's logits may be off, as a share of their `scale`: four units in the last place.
DOUBT = {"bf16": 2.0**-6, "fp16": 2.0**-9, "float32": 0.0}


class Response(NamedTuple):
    """What the victim says of some points."""

    gradient: Tensor | None
    """The gradient of the loss, (N, C, H, W); None where it was not asked for."""

    logits: Tensor
    """The logits, (N, classes)."""

    loss: Tensor | None
    """The loss, (N,), where it is not that of the logits: the mean over the passes of a model that is random."""


@dataclass
class Victim:
    """A trained classifier prepared for attack. It counts the rows that go forward and backward through it."""

    network: Callable[[Tensor], Tensor]
    """Images (N, C, H, W) to logits (N, classes)."""

    device: torch.device
    """Where it computes."""

    precision: str
    """What the network computes in: "float32", "bf16" or "fp16"."""

    form: str
    """What was done to the model to make it fast, for the record."""

    channels_last: bool = False
    """Whether images lie channels-last in memory."""

    findings: list[Finding] = field(default_factory=list)
    """Faster forms that the model refused."""

    forwards: int = 0
    """Rows that went forward."""

    backwards: int = 0
    """Rows that went backward."""

    compile_seconds: float = 0.0
    """What tracing and compiling took."""

    differentiable: bool = True
    """Whether its gradient can be computed at all."""

    programs: dict[Loss, Callable[..., tuple[Tensor, Tensor]]] = field(default_factory=dict)
    """`query` of a loss as a traced program, for two rows or more (`epsbench.harness.run.speed.program`)."""

    forward_program: Callable[[Tensor], Tensor] | None = None
    """`scores` as a traced program, for two rows or more; float32."""

    look_program: Callable[[Tensor], Tensor] | None = None
    """`look` in low precision as a traced program, for two rows or more."""

    fixed: tuple[int, Callable[[Tensor], Tensor]] | None = None
    """A compiled network, and the only batch size that it is for."""

    graphs: dict[Loss | None, Ladder] = field(default_factory=dict)
    """`query` of a loss, and under None `scores`, as CUDA graphs."""

    together: bool = True
    """Whether the classes of a Jacobian go back together, as far as has been tried."""

    random = False
    """Whether the model answers at random, so that its draws depend on what was asked before."""

    def __post_init__(self) -> None:
        with_alike_products(self.network)

    @property
    def passes(self) -> int:
        """How many passes through the model an answer takes."""
        return 1

    def begin(self, seed: int) -> None:
        """A run of an attack begins: what is drawn from here on depends on ``seed`` and on what is asked."""

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (N, classes) as float32 tensors, computed in the victim's precision."""
        self.forwards += len(x) * self.passes
        return self.bare_logits(x)

    @torch.no_grad()
    def scores(self, x: Tensor) -> Tensor:
        """Logits (N, classes) for an attack that takes no gradient, in float32 whatever the victim's precision.

        Such attacks compare logits that hardly differ. In bf16 Square left 63 % of the images where it leaves 56 % in
        float32 (a small CNN on CIFAR-10, 8/255), and float32 took 17 % longer.
        """
        self.forwards += len(x) * self.passes
        if (graphs := self.graphs.get(None)) and graphs.serves(len(x)):
            return graphs(x)[0]
        return alike(self._scores, x)

    def _scores(self, x: Tensor) -> Tensor:
        if self.forward_program and len(x) > 1:
            return self.forward_program(self.laid_out(x))
        return self.exact_logits(x)

    def query(self, x: Tensor, loss: Loss, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient of the summed loss at ``x`` (N, C, H, W), and the logits; both float32.

        ``inputs`` are what the loss needs besides the logits.
        """
        self.forwards += len(x) * self.passes
        self.backwards += len(x) * self.passes
        if (graphs := self.graphs.get(loss)) and graphs.serves(len(x)):
            gradient, logits = graphs(x, *inputs)
            return gradient, logits
        return alike(partial(self._query, loss), x, *inputs)

    def exact_query(self, x: Tensor, loss: Loss, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """`query` in float32, whatever the victim's precision."""
        if self.precision == "float32":
            return self.query(x, loss, *inputs)
        self.forwards += len(x)
        self.backwards += len(x)
        return alike(lambda rows, *given: loss_gradient(self.exact_logits, rows, loss, given), x, *inputs)

    def in_float32(self) -> Victim:
        """The same network in float32, without what was traced, captured or compiled for half precision."""
        return replace(self, precision="float32", programs={}, graphs={}, look_program=None, fixed=None)

    def exact_logits(self, x: Tensor) -> Tensor:
        """Float32 logits (N, classes), without being counted."""
        return self.network(self.laid_out(x)).float()

    def _query(self, loss: Loss, x: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        program = self.programs.get(loss)
        if program and len(x) > 1:
            return program(self.laid_out(x), *inputs)
        return self.bare_query(x, loss, *inputs)

    def jacobian(
        self, x: Tensor, loss: Loss, y: Tensor, count: int, score: Score | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients (N, M, C, H, W) at ``x`` of a loss towards each of M classes, the logits (N, K), and the classes.

        The classes (N, M) are the ``count`` most likely ones but the label ``y`` (N,), or the one of the least
        ``score`` of them. In half precision the logits are those of one more forward pass, in float32: with rounded
        logits, a step onto the boundary would end beside it.
        """
        self.forwards += len(x) * self.jacobian_passes
        self.backwards += len(x) * self.passes * count
        if self.jacobian_passes == self.passes:
            return alike(partial(self._jacobian, loss, count, score), x, y)
        with torch.no_grad():
            exact = alike(self.exact_logits, x)
        gradients, _, classes = alike(partial(self._jacobian, loss, count, score), x, y, exact)
        return gradients, exact, classes

    def _jacobian(
        self, loss: Loss, count: int, score: Score | None, x: Tensor, y: Tensor, exact: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        ask = partial(loss_jacobian, self.bare_logits, x, loss, y, count, score=score, exact=exact)
        if self.together:
            try:
                return ask()
            except Exception as error:  # what a model's own backward pass raises may be anything
                if is_out_of_memory(error):
                    raise
                self.together = False
        return ask(together=False)

    @property
    def jacobian_passes(self) -> int:
        """How many forward passes a `jacobian` takes."""
        return self.passes + (self.precision != "float32" and not self.random)

    def respond(self, x: Tensor, loss: Loss, inputs: tuple[Tensor, ...], gradient: bool) -> Response:
        """`query`, or `scores` where no ``gradient`` is asked for."""
        return Response(*self.query(x, loss, *inputs), None) if gradient else Response(None, self.scores(x), None)

    @torch.no_grad()
    def look(self, x: Tensor, loss: Loss, inputs: tuple[Tensor, ...]) -> Response:
        """The logits at ``x`` (N, C, H, W) for an attack that takes gradients, too: in the precision of those.

        FAB steps by both, back and forth over the boundary. With float32 logits beside bf16 gradients it left 55 % of
        the images, with bf16 ones 53 %, and 52 % in float32 (a small CNN on CIFAR-10, 8/255).
        """
        if self.precision == "float32":
            return Response(None, self.scores(x), None)
        self.forwards += len(x) * self.passes
        return Response(None, alike(self._look, x), None)

    def _look(self, x: Tensor) -> Tensor:
        if self.look_program and len(x) > 1:
            return self.look_program(self.laid_out(x))
        return self.bare_logits(x)

    def gradient(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """`query` of the cross-entropy with labels ``y`` (N,)."""
        return self.query(x, CROSS_ENTROPY, y)

    def bare_query(self, x: Tensor, loss: Loss, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """`query` as the network computes it, without a program or a graph, and without being counted."""
        return loss_gradient(self.bare_logits, x, loss, inputs)

    def bare_gradient(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """`gradient` as the network computes it, without a program or a graph, and without being counted."""
        return self.bare_query(x, CROSS_ENTROPY, y)

    @property
    def program(self) -> Callable[..., tuple[Tensor, Tensor]] | None:
        """The program of `gradient`."""
        return self.programs.get(CROSS_ENTROPY)

    @program.setter
    def program(self, program: Callable[..., tuple[Tensor, Tensor]] | None) -> None:
        self.programs.pop(CROSS_ENTROPY, None)
        if program is not None:
            self.programs[CROSS_ENTROPY] = program

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        """Gradient of the true class's logit over the mean logit, (N, C, H, W).

        It tells whether two forms compute the same. The loss's own gradient does not: on a confident example
        it is what rounding left of 1 - 1, and points anywhere.
        """
        x = x.detach().requires_grad_(True)
        with torch.enable_grad():
            logits = self.bare_logits(x)
            (slope,) = torch.autograd.grad(rise(logits, y).sum(), x)
        return slope.float()

    def laid_out(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in the memory layout that the victim computes in, so that no step copies them."""
        return x.contiguous(memory_format=torch.channels_last) if self.channels_last else x

    def margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """How far the true class (N,) leads the best other class, less what the precision's logits may be off.

        The judge should see the rows below 0. Without the allowance a bf16 attack would miss images that fool in
        float32, and look weaker than it is.
        """
        return self.allowed(lead_of(logits, y), logits)

    def allowed(self, margin: Tensor, logits: Tensor) -> Tensor:
        """Margins (N,) less the allowance for these logits (N, classes)."""
        return margin - self.doubt(logits) if DOUBT[self.precision] else margin

    def doubt(self, logits: Tensor) -> Tensor:
        """How far margins of these logits (N, classes) may be off in this precision, (N,)."""
        return DOUBT[self.precision] * scale(logits)

    def bare_logits(self, x: Tensor) -> Tensor:
        """The logits (N, classes) as the network computes them, without being counted."""
        x = self.laid_out(x)
        with autocast(self.device, self.precision):
            network = self.fixed[1] if self.fixed and self.fixed[0] == len(x) else self.network
            return network(x).float()


def rise(logits: Tensor, y: Tensor) -> Tensor:
    """How far the true class's logit lies above the mean logit, (N,)."""
    return at_class(logits, y) - logits.mean(1)
