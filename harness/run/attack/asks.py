"""What rows ask of the victim: logits, a gradient, or the gradients of all classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from epsbench.attacks.base import Attack
from epsbench.attacks.rows import Answer, Rows
from epsbench.attacks.views import gradient_of_views
from epsbench.harness.run.attack.clean_gradients import CleanGradients
from epsbench.harness.run.attack.victim import Response, Victim

# The work of one answer in forward passes: a backward pass takes about twice as long as a forward one.
GRADIENT, FORWARD = 3, 1


@dataclass(frozen=True)
class Asks:
    """The queries of one attack."""

    attack: Attack

    victim: Victim

    clean: CleanGradients
    """The gradients at the clean images, shared by all attacks that start there."""

    clean_logits: Callable[[], Tensor]
    """The judge's logits (n, classes) at the clean images."""

    @property
    def gradients(self) -> int:
        """How many gradients an answer takes."""
        if self.attack.query == "jacobian":
            return self._candidates * self.victim.passes
        return sum(self.attack.views()) * self.victim.passes if self.attack.query == "gradient" else 0

    @property
    def forwards(self) -> int:
        """How many forward passes an answer takes, with a gradient or without."""
        jacobian = self.attack.query == "jacobian"
        asked = self.victim.jacobian_passes if jacobian else self.gradients or self.victim.passes
        return asked + self._looks

    @property
    def exact(self) -> bool:
        """Whether the logits at the points that were asked are float32 in every precision."""
        alone = self.attack.query == "logits" or (self.attack.query == "jacobian" and not self._looks)
        return alone and not self.victim.random

    @property
    def work(self) -> int:
        """The work of an answer, in forward passes."""
        return (GRADIENT - FORWARD) * self.gradients + FORWARD * self.forwards

    @property
    def _candidates(self) -> int:
        """How many classes a Jacobian has."""
        return self.attack.candidates(self.clean_logits().shape[1])

    @property
    def _looks(self) -> int:
        """How many forward passes without a gradient an answer takes besides."""
        return (self.attack.looks_first() + (not self.attack.views_the_point())) * self.victim.passes

    def at(self, point: Tensor, rows: Rows) -> tuple[Answer, Tensor]:
        """The victim's answer at some points (N, C, H, W), or where the attack asks instead; and the points' logits."""
        if not self._looks:
            answer = self._answer(point, rows)
            return answer, answer.logits
        loss = self.attack.loss
        seen = self.victim.look(point, loss, rows.inputs(loss))
        logits = seen.logits
        if not self.attack.looks_first():
            return replace(self._answer(point, rows), logits=logits, mean_loss=seen.loss), logits
        return self._answer(self.attack.gradient_at(rows, point, logits), rows), logits

    def _answer(self, point: Tensor, rows: Rows) -> Answer:
        loss, inputs = self.attack.loss, rows.inputs(self.attack.loss)
        if self.attack.query == "logits":
            seen = self.victim.respond(point, loss, inputs, gradient=False)
            return Answer(point, rows.y, seen.logits, None, loss, inputs, seen.loss)
        if self.attack.query == "jacobian":
            score = self.attack.score if self.attack.chooses() else None
            gradients, logits, classes = self.victim.jacobian(point, loss, rows.y, self._candidates, score)
            return Answer(point, rows.y, logits, gradients, loss, inputs, classes=classes)
        responses: list[Response] = []

        def ask(view: Tensor) -> tuple[Tensor | None, Tensor]:
            responses.append(self.victim.respond(view, loss, inputs, gradient=True))
            return responses[-1].gradient, responses[-1].logits

        gradient, logits = gradient_of_views(self.attack, rows, point, ask)
        return Answer(point, rows.y, logits, gradient, loss, inputs, responses[-1].loss)

    def at_clean(self, position: Tensor, rows: Rows) -> Answer:
        """The shared answer at the clean images of the targets at these positions (N,)."""
        gradient, logits = self.clean.at(position)
        return Answer(rows.x, rows.y, logits, gradient, self.attack.loss, rows.inputs(self.attack.loss))
