"""A classifier tried before anything is trained or attacked: does it do what a run will ask of it?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from epsbench.harness.errors import FAILURES
from epsbench.harness.isolation import isolated
from epsbench.harness.plan.names.content import why_not_built
from epsbench.harness.plan.names.raised import what_was_raised
from epsbench.harness.run.attack.judge import in_float32
from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.machine.copies import copy_of
from epsbench.harness.run.machine.memory import is_out_of_memory
from epsbench.harness.run.machine.precision import autocast
from epsbench.harness.run.training.defense_trial import no_training
from epsbench.harness.run.training.recipe import OPTIMIZERS, Recipe
from epsbench.harness.run.training.smaller import is_small, smaller
from epsbench.harness.run.training.trial_text import count_of, short
from epsbench.models.defenses import Defense
from epsbench.models.outputs import remedy

Problem = str

AMONG_OTHERS = 16  # images that a model which is not trained is tried on at a time
_TO_COPY = (
    "what a copy does not take along, such as a hook or a function that refers to the model itself, belongs into "
    "forward(), or into a module of its own"
)


@dataclass(frozen=True)
class Use:
    """What is going to be done with a classifier."""

    seed: int = 0
    """The seed under which it is tried."""

    batch: int = 128
    """The number of images that go through it at a time."""

    trains: bool = False
    """Whether it is trained; otherwise it is measured as given."""

    precision: str = "float32"
    """What it is trained in: "float32", "bf16" or "fp16"."""

    recipe: Recipe = field(default_factory=dict)
    """How it is trained. Empty: no step of an optimizer is tried."""

    defense: tuple[str, Defense] | None = None
    """A defense of the user's own that trains it, and what messages call it."""


def refusal(name: str, build: Callable[[], nn.Module], data: Data, use: Use) -> Problem | None:
    """Why a classifier cannot be used on the data, with what to change; None where it can.

    ``name`` is what messages call it, and ``build`` builds one to try, which is not used afterwards.
    """
    try:
        with isolated(use.seed):
            network = build()
    # The model is the user's code: it may raise anything, or even try to exit.
    except FAILURES as error:
        return why_not_built(name, data.description.name, error)
    if problem := problem_of(network, data, use):
        return f"model {name!r} cannot be used on {data.description.name}: {problem}"
    if use.trains and use.defense:
        with isolated(use.seed):
            problem = no_training(use.defense[1], network, _training_batch(data, use), use.seed, use.precision)
    if problem and use.defense:
        return f"defense {use.defense[0]!r} cannot train model {name!r} on {data.description.name}: {problem}"
    return None


def problem_of(network: nn.Module, data: Data, use: Use) -> Problem | None:
    """The first thing that is wrong with a freshly built network, with what to change; None where nothing is.

    The network is used up: batch norms see a batch in train mode.
    """
    images = data.train if use.trains else data.test
    for check in (_modes, _evaluates, _copies, _in_float32, *((_trains, _keeps) if use.trains else ())):
        with isolated(use.seed):
            for problem in check(network, data, replace(use, batch=min(use.batch, len(images)))):
                return problem
    return None


def _modes(network: nn.Module, data: Data, use: Use) -> Iterator[Problem]:
    """`train` and `eval` have to be those of torch.nn.Module, or to extend them."""
    for name in ("train", "eval"):
        method: Callable[[], object] = getattr(network, name)
        try:
            returned = method()
        except FAILURES as error:  # a method of the user's; the error is in the message
            returned = error
        if not isinstance(returned, nn.Module):
            classes = sorted({type(module).__name__ for module in network.modules() if _redefines_modes(module)})
            outcome = (
                f"raises {short(returned)}" if isinstance(returned, BaseException) else f"returns {short(returned)}"
            )
            yield (
                f"{', '.join(classes)} has a {name}() of its own, which {outcome}; that of torch.nn.Module returns the "
                "module: give the method another name, such as fit, or let it call super() and return self"
            )


def _redefines_modes(module: nn.Module) -> bool:
    kind = type(module)
    return kind.train is not nn.Module.train or kind.eval is not nn.Module.eval


def _evaluates(network: nn.Module, data: Data, use: Use) -> Iterator[Problem]:
    """One row of finite logits an image, at every batch size, alone as well as among others."""
    network.eval()
    batch = use.batch if use.trains else min(use.batch, AMONG_OTHERS)
    for size in dict.fromkeys((2, 1, min(batch, len(data.test)))):
        x = _images(data, size)
        try:
            with torch.no_grad():
                logits = network(x.clone())
        except FAILURES as error:
            yield f"it raises for {count_of(size)}: {what_was_raised(error)}"
            return
        yield from _not_logits(logits, size, data.description.classes)


def _not_logits(logits: object, size: int, classes: int) -> Iterator[Problem]:
    """What is wrong with a model's outputs for ``size`` images."""
    expected = f"it must return one logit for each of the {classes} classes, shape ({size}, {classes})"
    if not isinstance(logits, Tensor):
        kind = type(logits).__name__
        yield f"for {count_of(size)} it gives a {kind}, not a tensor: {expected}{remedy(logits, size, classes)}"
    elif tuple(logits.shape) != (size, classes):
        squeezed = (
            "; a squeeze() without an axis drops the batch of one" if size == 1 else remedy(logits, size, classes)
        )
        yield f"for {count_of(size)} it gives outputs of shape {tuple(logits.shape)}: {expected}{squeezed}"
    elif not logits.is_floating_point():
        yield f"for {count_of(size)} it gives {logits.dtype} outputs: logits are floating-point numbers"


def _copies(network: nn.Module, data: Data, use: Use) -> Iterator[Problem]:
    """A copy has to compute what the model computes: victim and judge are copies."""
    x, other = _images(data, 8).split(4)
    with torch.no_grad():
        first, again = network(x.clone()), network(x.clone())
        with suppress(RuntimeError), torch.enable_grad():  # as under attack
            network(other)
        network(other)  # so that what the model remembers of its last images belongs to others
        try:
            copied = copy_of(network)(x.clone())
        except FAILURES as error:
            yield f"a copy of it does not work ({short(error)}); {_TO_COPY}"
            return
    if torch.equal(first, again) and not torch.allclose(copied, first, rtol=1e-3, atol=1e-5, equal_nan=True):
        yield f"a copy of it computes something else than the model; {_TO_COPY}"


def _in_float32(network: nn.Module, data: Data, use: Use) -> Iterator[Problem]:
    """The judge is a copy with float32 weights where the model's are half precision."""
    try:
        with torch.no_grad():
            in_float32(copy_of(network))(_images(data, 2).clone())
    except FAILURES as error:
        yield (
            f"its float32 copy, which decides every verdict, raises ({short(error)}); let forward() take the type of "
            "the weights, and not call .half() or .bfloat16() itself"
        )


def _trains(network: nn.Module, data: Data, use: Use) -> Iterator[Problem]:
    """There has to be something to train, and a batch has to go forward and backward in train mode."""
    if not any(weight.requires_grad for weight in network.parameters()):
        yield "there is nothing to train: no parameter asks for a gradient; give epochs = 0"
        return
    network.train()
    x, y = _training_batch(data, use)
    batch = len(x)
    try:
        with autocast(x.device, use.precision):
            logits = network(x)
        problems = list(_not_logits(logits, batch, data.description.classes))
        if not problems and not logits.requires_grad:
            problems = ["its outputs have no gradient: leave out no_grad(), detach() and NumPy in forward()"]
        if not problems:
            F.cross_entropy(logits.float(), y).backward()
            problems += _uncopied(network)
        if not problems and is_small(0, use.recipe):
            problems += _not_smaller(network, x, use)
        if not problems and use.recipe:
            OPTIMIZERS[use.recipe.get("optimizer", "adam")](list(network.parameters()), use.recipe).step()
    except FAILURES as error:
        if "more than 1 value per channel" in str(error):
            yield f"batch norm needs more than one image a batch in training, not {batch}; raise batch_size"
        else:
            inside = "" if use.precision == "float32" else f" in {use.precision}"
            yield f"in train mode it raises for {count_of(batch)}{inside}: {what_was_raised(error)}"
        return
    finally:
        network.eval()
    yield from (f"in train mode, {problem}" for problem in problems)


def _not_smaller(network: nn.Module, x: Tensor, use: Use) -> list[Problem]:
    """Why a network cannot be trained on smaller images; empty where it can."""
    small = smaller(x, use.recipe)
    try:
        with autocast(x.device, use.precision):
            network(small)
    except FAILURES as error:
        if is_out_of_memory(error):
            raise
        sides = "×".join(map(str, small.shape[2:]))
        return [f"it raises for the images of {sides} pixels of small_epochs ({short(error)}); give small_epochs = 0"]
    return []


def _training_batch(data: Data, use: Use) -> tuple[Tensor, Tensor]:
    index = torch.arange(min(use.batch, len(data.train)), device=data.train.device)
    return data.train.pixels(index), data.train.labels[index]


def _uncopied(network: nn.Module) -> list[Problem]:
    """Whether it can no longer be copied after a step of training."""
    try:
        copy_of(network)
    except FAILURES as error:
        return [f"a copy of it cannot be made any more ({short(error)}); {_TO_COPY}"]
    return []


def _keeps(network: nn.Module, data: Data, use: Use) -> Iterator[Problem]:
    """Trained weights are kept as tensors: a state dict of anything else would be lost."""
    odd = [name for name, value in network.state_dict().items() if not isinstance(value, Tensor)]
    if odd:
        yield (
            f"its state dict holds what is no tensor ({', '.join(odd[:3])}), so trained weights cannot be kept; "
            "keep such state in a buffer, or train elsewhere and give epochs = 0"
        )


def _images(data: Data, size: int) -> Tensor:
    return data.test.pixels(torch.arange(size, device=data.test.device) % len(data.test))
