"""What an attack is: a frozen value whose fields are its hyper-parameters, and one step that is a pure function.

The engine (`epsbench.harness.run.attack.engine`) does all that depends on the data: the rows of each ε, projection on
the ball and on the box [0, 1], queries, attempts, early stopping, precision and counting. So an attack is a few lines
long and cannot leave its ball by mistake. `epsbench.attacks.plain` is the same in one plain loop, and defines what an
attack means. This module does not import torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from epsbench.attacks.aims import aimed_at, require_aim, require_class, targeted_form
from epsbench.attacks.asking import Asking
from epsbench.attacks.losses import CROSS_ENTROPY, Loss
from epsbench.attacks.norms import NORMS
from epsbench.attacks.norms.base import Norm, RowNoise, per_row
from epsbench.attacks.rows import Answer, Rows

if TYPE_CHECKING:
    from torch import Tensor

State = dict[str, "Tensor"]
"""What an attack remembers of its rows: tensors by name, the first axis of each is the row."""


class Network(Protocol):
    """The victim as an attack with a loop of its own sees it: pixels (N, C, H, W) in [0, 1] to logits (N, classes).

    Every call is counted, and so is every gradient taken through `gradient`.
    """

    def __call__(self, x: Tensor) -> Tensor: ...

    def gradient(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient of the summed cross-entropy at ``x``, (N, C, H, W), and the logits, (N, classes)."""
        ...


POLISH = 20

GOALS = ("fool", "smallest")
"""What `Attack.goal` may be."""

LATER = {"later": True}
"""Metadata of a field added after the first records: at its default it is left out of ids, so old ids stay valid."""


@dataclass(frozen=True, kw_only=True)
class Attack(Asking, ABC):
    """An attack, as a step over rows. Its fields are its hyper-parameters.

    Only `step` is required. An attack that loops itself derives from `BatchAttack`.
    """

    version: ClassVar[int | str] = 1
    """Part of the id of every record made with the attack; another value makes those records stale."""

    goal = "fool"
    """What it looks for: ``fool``, a point within ε that is misclassified, or ``smallest``, the nearest such point.

    One run for the smallest distance answers every ε. There is no ball then, only the box, and ``rows.eps`` is the
    largest change that the box allows. A field where a suite may set it.
    """

    polish = POLISH
    """Of an attack along gradients that looks for the smallest distance: how many steps along the boundary the engine
    takes at most with the nearest point. 0: none. `Polished` makes it a field."""

    creases = 0
    """How many more steps it takes at most along creases of the boundary. `Polished` makes it a field."""

    same_every_step: ClassVar[bool] = False
    """Whether one more step may be taken from any point, without a history of steps: audits try one."""

    norm: Norm = field(default=NORMS["linf"], repr=False)
    """The norm that bounds the perturbation; the suite's ``norm`` axis sets it."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for a hyper-parameter that makes no sense."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Take a class that defines `perturb` for a `BatchAttack`, which it may derive from."""
        super().__init_subclass__(**options)
        if isinstance(vars(cls).get("target"), FunctionType):  # the method's other name; `target` is also a parameter
            cls.aim = vars(cls)["target"]  # type: ignore[method-assign]
        if "perturb" in vars(cls):
            cls.query = "own"
            cls.step = _takes_no_steps  # type: ignore[method-assign]

    @abstractmethod
    def step(self, rows: Rows, answer: Answer, state: State) -> tuple[Tensor, State]:
        """The next points to ask, (N, C, H, W), and the new state. They need not lie in the ball: they are projected.

        After the last step the points are judged without being asked.
        """

    def start(self, rows: Rows) -> tuple[Tensor, State]:
        """The first points to ask, and the state before them."""
        return rows.x, {}

    def aim(self, rows: Rows) -> Tensor:
        """The class (N,) that each row aims at. Default: none, which is the label. It may be called ``target``, too."""
        return rows.y

    def radius(self, rows: Rows, state: State) -> Tensor | None:
        """The radius (N, 1, 1, 1) of the ball that proposals are projected on. Default: None, for ε itself.

        Only points within ε count, whatever the radius.
        """
        return None

    def roams(self) -> bool:
        """Whether it defines a `radius`, so that its points may lie outside the ball."""
        return type(self).radius is not Attack.radius

    def reads_clean_logits(self, classes: int) -> bool:
        """Whether the model's logits at the clean images decide what it does, as far as its fields tell."""
        aims = getattr(self, "target", None) is not None
        return (
            aims or "logits" in self.loss.inputs or any(p.reads_clean_logits(classes) for _, p in self.members(classes))
        )

    def done(self, rows: Rows, answer: Answer, state: State) -> Tensor | None:
        """Which rows (N,) need no further answer; ``state`` is the new one. Default: None, for no row."""
        return None

    def cycles(self) -> bool:
        """Whether the next point depends on nothing but the point, so that a row that comes back to one goes round."""
        return False

    def starts_clean(self) -> bool:
        """Whether every row starts at the clean image, and asks for the gradient that other attacks ask for there."""
        return False

    def requires_norm(self, *known: str) -> None:
        """Raise `ValueError` where the attack has another norm than one of these."""
        if self.norm.name not in known:
            names = f"{', '.join(known[:-1])} and {known[-1]}" if known[1:] else known[0]
            noun, which = ("norms", "one of them") if known[1:] else ("norm", f"{known[0]!r}")
            name = type(self).__name__.lower()
            raise ValueError(f"{name} knows the {noun} {names}, not {self.norm.name}; set norm to {which}")

    def check(self, classes: int) -> None:
        """Raise `ValueError` where the attack cannot be used on data with so many classes."""
        if self.query != "gradient" and type(self).view is not Attack.view:
            raise ValueError(
                f"it defines view(), which changes where a gradient is taken, and its query is {self.query!r}; leave "
                "view out, or ask for gradients"
            )
        if self.query != "own" and classes < self.loss.classes:
            other = "logit-difference" if "target" in self.loss.inputs else "margin"
            raise ValueError(
                f"its loss {type(self.loss).__name__} needs {self.loss.classes} classes, and the data has {classes}; "
                f'choose another loss, such as loss = "{other}"'
            )

    def adapted(self, classes: int) -> dict[str, Any]:
        """What the attack changes because there are few classes, for the record; empty where nothing."""
        return {}

    def members(self, classes: int) -> tuple[tuple[str, Attack], ...]:
        """The attacks that an ensemble consists of, with their names; empty for a single attack."""
        return ()


def at_least_one(**counts: int) -> None:
    """Raise `ValueError` for the first of these parameters that is below 1."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, not {count}")


def require_goal(goal: str) -> None:
    """Raise `ValueError` for anything but one of `GOALS`."""
    if goal not in GOALS:
        raise ValueError(f'goal must be "fool" or "smallest", not {goal!r}')


def _takes_no_steps(self: Attack, rows: Rows, answer: Answer, state: State) -> tuple[Tensor, State]:
    raise TypeError(f"{type(self).__name__} loops itself (perturb), so it has no step")


@dataclass(frozen=True, kw_only=True)
class BatchAttack(Attack):
    """An attack with a loop of its own, such as one of another library."""

    @abstractmethod
    def perturb(self, victim: Network, x: Tensor, y: Tensor, eps: Tensor, noise: RowNoise) -> Tensor:
        """Adversarial images (N, C, H, W) for images ``x`` in [0, 1], labels ``y`` (N,), ε (N, 1, 1, 1).

        ``noise`` draws random numbers keyed by example, so that verdicts do not depend on the batch size. The engine
        projects what is returned on the ball and the box, and the judge decides.
        """


@dataclass(frozen=True, kw_only=True)
class Polished(Attack, ABC):
    """The part of an attack for the smallest distance that lets a suite choose how its nearest point is polished."""

    polish: int = field(default=POLISH, metadata=LATER, repr=False)
    """How many steps along the boundary are taken at the end at most, each a gradient and about four verdicts; 0: none,
    for the attack as its paper has it. Under L0 changes are exchanged for others instead."""

    creases: int = field(default=0, metadata=LATER, repr=False)
    """How many steps along creases of the boundary follow the polish at most, each a gradient; 0: none. A ReLU
    network's boundary is made of flat pieces, and often nearest where some of them meet."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, count in (("polish", self.polish), ("creases", self.creases)):
            if count < 0:
                raise ValueError(f"{name} must be at least 0, not {count}")


@dataclass(frozen=True, kw_only=True)
class Aimed(Attack, ABC):
    """The part of an attack that may aim at a class. A success is any misclassification, as without a target."""

    target: str | int | None = field(default=None, metadata=LATER, repr=False)
    """The class to aim at: ``"least-likely"``, ``"random"`` or a class; None: at any wrong class.

    The loss is then taken in its targeted form: the cross-entropy with the target, falling, for ``cross-entropy``,
    ``logit-difference`` for ``margin``, ``dlr-targeted`` for ``dlr``.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target is not None:
            require_aim(self.target)
            object.__setattr__(self, "loss", targeted_form(self.loss))

    def aim(self, rows: Rows) -> Tensor:
        return rows.y if self.target is None else aimed_at(self.target, rows)

    def check(self, classes: int) -> None:
        super().check(classes)
        require_class(self.target, classes, self.loss)


@dataclass(frozen=True, kw_only=True)
class GradientAttack(Aimed):
    """An attack that starts somewhere in the ball and moves along gradients of a loss."""

    same_every_step: ClassVar[bool] = True

    steps: int = 1
    """How many gradients are taken at most."""

    restarts: int = 1
    """How often the attack starts over on an image that withstood."""

    random_start: bool = False
    """Whether it starts at a random point of the ball instead of the image."""

    loss: Loss = field(default=CROSS_ENTROPY, metadata=LATER, repr=False)
    """The loss whose gradient is followed."""

    sphere_start: bool = field(default=False, metadata=LATER, repr=False)
    """Whether the random start lies on the surface of the ball."""

    samples: int = field(default=1, metadata=LATER, repr=False)
    """Gradients that are averaged at each point (Athalye et al., 2018), against a model that is random."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one(steps=self.steps, restarts=self.restarts, samples=self.samples)
        if self.restarts > 1 and not self.random_start and self.target != "random":
            raise ValueError("restarts above 1 repeat the same path unless random_start = true")
        if self.sphere_start and not self.random_start:
            raise ValueError("sphere_start says where a random start lies; set random_start = true with it")
        if "target" in self.loss.inputs and self.target is None and type(self).aim is Aimed.aim:
            raise ValueError(
                f'its loss {type(self.loss).__name__} needs a target class; set target, use apgd-t, or loss = "margin"'
            )
        if not {"y", "target"} & set(self.loss.inputs) and not self.random_start:
            raise ValueError(
                f"its loss {type(self.loss).__name__} has no gradient at the clean image; set random_start = true"
            )

    @abstractmethod
    def update(self, x_adv: Tensor, gradient: Tensor, eps: Tensor, step: Tensor) -> Tensor:
        """One step: images (N, C, H, W), gradient of the same shape, ε and step (N, 1, 1, 1); step counts from 0.

        The result need not lie in the ball or the box: the engine projects it.
        """

    def state(self, x: Tensor) -> State:
        """What the attack remembers of images (N, C, H, W) before the first step; nothing by default."""
        return {}

    def move(self, x_adv: Tensor, gradient: Tensor, eps: Tensor, step: Tensor, state: State) -> tuple[Tensor, State]:
        """`update` for an attack with state, which it returns beside the images."""
        return self.update(x_adv, gradient, eps, step), state

    def start(self, rows: Rows) -> tuple[Tensor, State]:
        x, draw = rows.x, self.norm.surface if self.sphere_start else self.norm.start
        return (x + draw(rows.noise, x, rows.eps) if self.random_start else x), self.state(x)

    def step(self, rows: Rows, answer: Answer, state: State) -> tuple[Tensor, State]:
        assert answer.gradient is not None
        return self.move(answer.x, answer.gradient, rows.eps, per_row(rows.step), state)

    def starts_clean(self) -> bool:
        return self.asks_at_the_point() and not self.random_start and self.loss == CROSS_ENTROPY
