"""What an attack asks of the model, where, how often, and what that costs. Nothing here imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.losses import CROSS_ENTROPY, Loss
from epsbench.attacks.rows import Rows

if TYPE_CHECKING:
    from torch import Tensor


class Asking:
    """The part of an attack that says what it asks."""

    query: ClassVar[str] = "gradient"
    """What a row asks for: ``gradient`` (with logits), ``logits``, or ``nothing``, when the start is all.

    ``jacobian`` asks for the gradients of several classes at once: a forward pass, and a backward pass a class.
    """

    loss = CROSS_ENTROPY
    """The loss whose gradient is asked for. An attack that lets a suite choose it makes it a field."""

    samples = 1
    """Gradients that are averaged at each point, against a model that is random. A field where a suite may set it."""

    def candidates(self, classes: int) -> int:
        """How many wrong classes a ``jacobian`` has gradients of: those with the highest logits at the point.

        ``classes`` is the number of the model's classes. Default: every wrong class.
        """
        return classes - 1

    def score(self, values: Tensor, gradients: Tensor) -> Tensor:
        """Of a ``jacobian``: by which number (N, M) one class is chosen, the least.

        ``values`` (N, M) are the losses towards M classes, and ``gradients`` (N, M, C, H, W) theirs. An attack that
        defines it gets the gradient of that class alone, (N, 1, C, H, W), so that those of a thousand classes need not
        be kept. Default: none is chosen, and there are the gradients of all.
        """
        raise NotImplementedError

    def chooses(self) -> bool:
        """Whether it defines `score`."""
        return type(self).score is not Asking.score

    def budget(self) -> int:
        """How many answers one attempt has at most."""
        return getattr(self, "steps", 1)

    def attempts(self, classes: int) -> int:
        """How many attempts there are on an image that withstands; ``classes`` is the number of the model's classes."""
        return getattr(self, "restarts", 1)

    def gradient_at(self, rows: Rows, point: Tensor, logits: Tensor) -> Tensor:
        """Where the gradient is asked for (N, C, H, W), after a look at the logits (N, K) at the proposed points.

        An attack that defines it pays one more forward pass an answer. Default: at the proposed points.
        """
        return point

    def looks_first(self) -> bool:
        """Whether it defines `gradient_at`."""
        return type(self).gradient_at is not Asking.gradient_at

    def views(self) -> tuple[int, ...]:
        """How many gradients an answer averages. Several numbers: so many in each group, and a mean for each group."""
        return (self.samples,)

    def view(self, rows: Rows, x: Tensor, number: int) -> Tensor:
        """The images (N, C, H, W) whose gradient is asked for in place of ``x``: a differentiable function of it.

        Called for every gradient of an answer, ``number`` counts them from 0. Default: ``x`` itself.
        """
        return x

    def views_the_point(self) -> bool:
        """Whether the last view is the point itself. If not, its logits cost one more forward pass an answer.

        Default: where no `view` is defined. An attack whose last view is the point may say so and save that pass.
        """
        return type(self).view is Asking.view

    def asks_at_the_point(self) -> bool:
        """Whether an answer is one gradient, at the very point that was proposed."""
        return self.views() == (1,) and self.views_the_point()

    def losses(self, classes: int) -> tuple[Loss, ...]:
        """The losses whose gradients it asks for."""
        return (self.loss,) if self.query in ("gradient", "jacobian") else ()

    def gradients(self, classes: int) -> int:
        """How many gradients it takes of one image at most; 0 where that is unknown."""
        price = {"gradient": sum(self.views()), "jacobian": self.candidates(classes)}.get(self.query, 0)
        return price * self.budget() * self.attempts(classes)

    def forwards(self, classes: int) -> int:
        """How many forward passes without a gradient it takes of one image at most; 0 where that is unknown."""
        further = self.query == "logits" or self.looks_first() or not self.views_the_point()
        return self.budget() * self.attempts(classes) if further else 0
