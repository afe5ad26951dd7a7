"""Checks that the author of an attack, a defense or a model runs in tests of her own, as `check_estimator` elsewhere.

Each raises `AssertionError` with one sentence that says what is wrong and what to do.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from epsbench.attacks.base import Attack
from epsbench.attacks.norms import NORMS
from epsbench.harness.errors import FAILURES, InputError
from epsbench.harness.findings import voids
from epsbench.harness.plan.epsilon import any_epsilon
from epsbench.harness.plan.names.attacks import check_attack as check_plans
from epsbench.harness.plan.names.declared import ignored
from epsbench.harness.plan.names.raised import what_was_raised
from epsbench.harness.run.attack.asks import Asks
from epsbench.harness.run.attack.attack_run import AttackRun
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.judge import Judge, frozen_copy
from epsbench.harness.run.attack.ledger import Outcome
from epsbench.harness.run.attack.smallest import NearestTurn
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.turn import Turn
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.given import FunctionNetwork
from epsbench.harness.run.machine.copies import copy_of
from epsbench.harness.run.training.trainee import ClassifierInTraining
from epsbench.models.defenses import Defense

IMAGES, SHAPE, CLASSES = 12, (3, 8, 8), 5
_CLOSE = 1e-4  # batches of other sizes round differently


def check_attack(attack: Attack, *, eps: Any = "8/255", model: Any = None, x: Tensor | None = None) -> None:
    """Check that an attack stays in ball and box, is finite, treats rows on their own, and repeats itself.

    Rows of different steps lie side by side in a run, and so they do here.

    Args:
        attack: The attack, with its norm.
        eps: The radius in pixel units.
        model: A classifier to attack, a module or a function; it stays as it is. Default: a small convolutional
            network with random weights.
        x: Images (n, C, H, W) in [0, 1] that it takes; default: random ones, (12, 3, 8, 8).

    Raises:
        AssertionError: With what is wrong.
    """
    _is_object(attack, Attack, "an attack, such as PGD(steps=3)")
    try:
        radius = any_epsilon(eps)
    except ValueError as error:
        raise AssertionError(f"eps: {error}") from error
    images = x if x is not None else torch.rand(IMAGES, *SHAPE, generator=torch.Generator().manual_seed(0))
    if not isinstance(images, Tensor) or images.ndim != 4 or not len(images) or not images.is_floating_point():
        raise AssertionError(f"x is {_kind(images)}; give images (n, C, H, W) as floats in [0, 1]")
    network = _network(model) if model is not None else _small().eval()
    labels = _labels(network, images)
    name, n = type(attack).__name__, len(images)
    if problem := ignored(type(attack)):
        raise AssertionError(problem)
    try:
        check_plans(attack, name, int(labels.max()) + 1 if model is not None else CLASSES, "these images")
    except InputError as error:
        raise AssertionError("; ".join(error.messages)) from error
    whole = _tried(name, lambda: _attacked(attack, network, images, labels, radius, n))
    if whole.returned.unkeyed:
        raise AssertionError(f"{name} uses a global random generator; draw from `noise`, which is keyed by image")
    if not bool(whole.images.isfinite().all()):
        raise AssertionError(f"{name} makes pixels that are NaN or infinite")
    if whole.returned.beyond_ball or whole.returned.no_pixels:
        count = max(whole.returned.beyond_ball, whole.returned.no_pixels)
        raise AssertionError(
            f"{name} returns {count} of {n} images outside the ball or the box; project with "
            "self.norm.into_ball(x, images, eps)"
        )
    if not bool((whole.images != images).any()):
        raise AssertionError(f"{name} changes no pixel at ε {radius}: it returns the images as they are")
    again = _attacked(attack, network, images, labels, radius, n)
    if not torch.equal(again.images, whole.images):
        raise AssertionError(f"{name} gives other images when it is called again; draw from `noise` only")
    _rows_are_independent(name, attack, network, images, labels, radius, whole)


def _rows_are_independent(
    name: str, attack: Attack, network: nn.Module, x: Tensor, y: Tensor, radius: Fraction, whole: Outcome
) -> None:
    """An image's adversarial image must not depend on the batch that it is in."""
    for size in (1, 5):
        apart = _attacked(attack, network, x, y, radius, size).images
        moved = _moved(apart, whole.images, radius)
        # One sign of a gradient that is nearly 0 may turn with rounding; a dependence moves most rows.
        if moved * 4 > len(x):
            raise AssertionError(
                f"{name} gives {moved} of {len(x)} images another result in batches of {size}: a row "
                "depends on the other rows; use sums and means over each row only, and never over the batch"
            )

    if attack.query in ("gradient", "jacobian", "logits"):
        engine = _engine(network, x, y, len(x))
        asks = Asks(attack, engine.victim, engine.clean, engine.clean_logits)
        of_goal = NearestTurn if attack.goal == "smallest" else Turn
        turn = of_goal(AttackRun(attack, (radius,), 0, early_stop=False), asks, engine.targets, attack.norm)
        here, there = torch.arange(0, len(x), 2), torch.arange(1, len(x), 2)
        for ahead in sorted({1, attack.budget() // 2, attack.budget() - 2} & set(range(1, attack.budget()))):
            apart = torch.cat([_turned(turn, [(here, ahead)]), _turned(turn, [(there, 0)])])
            moved = _moved(apart, _turned(turn, [(here, ahead), (there, 0)]), radius)
            if moved * 4 > len(x):
                raise AssertionError(
                    f"{name} gives {moved} of {len(x)} images another result beside rows of other steps, as they are "
                    "in a run; every row has a step, an ε and a state of its own: choose with torch.where, and not "
                    "with `if`"
                )


def _turned(turn: Turn, groups: list[tuple[Tensor, int]]) -> Tensor:
    """The points (N, C, H, W) after two turns of rows that lie side by side.

    ``groups`` are positions (k,) and how many steps these rows have taken before, apart.
    """
    bundles: list[dict[str, Tensor]] = []
    names: frozenset[str] = frozenset()
    for at, steps in groups:
        zero = torch.zeros_like(at)
        tensors, names, taken = turn.first(zero, zero, at)
        for _ in range(steps - taken):
            tensors |= turn.after(tensors, names)
        bundles.append(tensors)
    beside = {name: torch.cat([each[name] for each in bundles]) for name in bundles[0]}
    for _ in range(2):
        beside |= turn.after(beside, names)
    return beside["point"]


def _moved(one: Tensor, other: Tensor, radius: Fraction) -> int:
    """How many images differ by more than rounding."""
    return int(((one - other).flatten(1).abs().amax(1) > max(_CLOSE, 0.01 * float(radius))).sum())


def _attacked(attack: Attack, network: nn.Module, x: Tensor, y: Tensor, eps: Fraction, batch: int) -> Outcome:
    (outcome,) = _engine(network, x, y, batch).run(attack, [eps], seed=0, early_stop=False)
    return outcome


def _engine(network: nn.Module, x: Tensor, y: Tensor, batch: int) -> Engine:
    victim = Victim(frozen_copy(network, x.device), x.device, "float32", "plain")
    return Engine(victim, Judge(network, x.device), Targets.of(x, y), batch, keep=len(x))


def check_model(
    model: Any, x: Tensor | None = None, y: Tensor | None = None, *, shape: tuple[int, int, int] = (3, 32, 32)
) -> None:
    """Check that a model can be measured: logits, one row an image, the same in every batch, with a gradient.

    Args:
        model: A module or a function from images (N, C, H, W) in [0, 1] to logits (N, classes).
        x: Images that it takes; default: random ones of ``shape``.
        y: Their labels (n,); default: what the model makes of them.
        shape: Channels, height and width.

    Raises:
        AssertionError: With what is wrong.
    """
    from epsbench.harness.api import evaluate

    images = torch.as_tensor(x) if x is not None else torch.rand(64, *shape, generator=torch.Generator().manual_seed(0))
    labels = y if y is not None else _labels(_network(model), images)
    try:
        result = evaluate(model, images, labels, attack="fgsm", eps="8/255", norm=NORMS["linf"].name)
    except InputError as error:
        raise AssertionError("; ".join(error.messages)) from error
    if voids(result.findings):
        raise AssertionError("; ".join(each.message for each in result.findings if each.severity == "void"))


def _is_object(given: Any, kind: type, wanted: str) -> None:
    if isinstance(given, type):
        raise AssertionError(f"{given.__name__} is a class; give an object: {given.__name__}()")
    if not isinstance(given, kind):
        raise AssertionError(f"is {_kind(given)}; give {wanted}")


def _network(model: Any) -> nn.Module:
    """The caller's module or function as a module of its own, in evaluation mode."""
    if isinstance(model, type) or not callable(model):
        raise AssertionError(f"the model is {_kind(model)}; give a torch.nn.Module or a function")
    if not isinstance(model, nn.Module):
        return FunctionNetwork(model).eval()
    copy: nn.Module = _tried("the model", lambda: copy_of(model))
    return copy.eval()


def _labels(network: nn.Module, images: Tensor) -> Tensor:
    """The classes (n,) that a network gives to images (n, C, H, W)."""

    def predict() -> Any:
        with torch.no_grad():
            return network(images)

    logits = _tried("the model", predict)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        outputs = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise AssertionError(f"the model gives {outputs} for {len(images)} images; logits (N, classes) are needed")
    return logits.argmax(1)


def check_defense(defense: Defense, *, shape: tuple[int, int, int] = SHAPE, classes: int = CLASSES) -> None:
    """Check that a defense gives a finite scalar loss that reaches the weights, repeats itself, and leaves the mode.

    Args:
        defense: The defense.
        shape: Channels, height and width of the random images it is tried on.
        classes: The number of classes.

    Raises:
        AssertionError: With what is wrong.
    """
    _is_object(defense, Defense, "a defense, such as TRADES(eps=0.1)")
    name = type(defense).__name__
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(IMAGES, *shape, generator=generator)
    y = torch.randint(classes, (IMAGES,), generator=generator)
    state = torch.get_rng_state()
    losses: list[float] = []
    for _ in range(2):
        network = _small(shape, classes).train()
        trainee = ClassifierInTraining(network, torch.Generator().manual_seed(1), "float32")
        loss = _tried(name, lambda trainee=trainee: defense.loss(trainee, x, y))  # type: ignore[misc]
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            raise AssertionError(f"{name}.loss returns {_kind(loss)}; return a scalar tensor")
        if not bool(loss.isfinite()):
            raise AssertionError(f"{name}.loss is {float(loss.detach())}; it must be a finite number")
        if not loss.requires_grad:
            raise AssertionError(f"{name}.loss has no gradient; get it from trainee.loss or trainee.logits")
        loss.backward()
        if all(weight.grad is None or not bool(weight.grad.any()) for weight in network.parameters()):
            raise AssertionError(f"{name}.loss reaches no weight: every gradient is 0")
        if not network.training:
            raise AssertionError(f"{name} leaves the network in evaluation mode; restore the mode it had")
        losses.append(float(loss.detach()))
    if losses[0] != losses[1]:
        raise AssertionError(f"{name}.loss differs between two calls; draw random numbers from trainee.noise only")
    if not torch.equal(torch.get_rng_state(), state):
        raise AssertionError(f"{name} uses torch's global generator; draw from trainee.noise")


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}" + ("" if value.is_floating_point() else f" of {value.dtype}")
    return f"a {type(value).__name__}"


def _tried(name: str, call: Callable[[], Any]) -> Any:
    """What a user's code returns; what it raises becomes the check's message."""
    try:
        return call()
    except FAILURES as error:
        raise AssertionError(f"{name} raises {what_was_raised(error)}") from error


def _small(shape: tuple[int, int, int] = SHAPE, classes: int = CLASSES) -> nn.Module:
    """A small convolutional network, always with the same random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(shape[0], 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU(), nn.Flatten(),
            nn.Linear(8 * shape[1] * shape[2], classes),
        )  # fmt: skip
