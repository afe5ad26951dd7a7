"""A classifier, tried before anything is trained or attacked: does it do what a run will ask of it?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from epsbench.harness.errors import summary
from epsbench.harness.isolation import isolated
from epsbench.harness.plan.cell import RobustnessCell
from epsbench.harness.run.attack.judge import in_float32
from epsbench.harness.run.data.examples import Data
from epsbench.models.outputs import remedy

Problem = str


def problem_of(network: nn.Module, cell: RobustnessCell, data: Data) -> Problem | None:
    """The first thing that is wrong with a cell's freshly built network, with what to change; None where nothing is.

    The network is used up: batch norms see a batch in train mode.
    """
    recipe = dict(cell.training)
    images = data.train if recipe["epochs"] else data.test
    for check in (_modes, _evaluates, _copies, _in_float32, *((_trains, _keeps) if recipe["epochs"] else ())):
        with isolated(cell.seed):
            for problem in check(network, data, min(recipe["batch_size"], len(images))):
                return problem
    return None


def _modes(network: nn.Module, data: Data, batch: int) -> Iterator[Problem]:
    """`train` and `eval` have to be those of torch.nn.Module, or to extend them."""
    for name in ("train", "eval"):
        method: Callable[[], object] = getattr(network, name)
        try:
            returned = method()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a method of the user's; the error is in the message
            returned = error
        if not isinstance(returned, nn.Module):
            classes = sorted({type(module).__name__ for module in network.modules() if _redefines_modes(module)})
            outcome = (
                f"raises {_short(returned)}" if isinstance(returned, BaseException) else f"returns {_short(returned)}"
            )
            yield (
                f"{', '.join(classes)} has a {name}() of its own, which {outcome}; that of torch.nn.Module returns the "
                "module: give the method another name, such as fit, or let it call super() and return self"
            )


def _redefines_modes(module: nn.Module) -> bool:
    kind = type(module)
    return kind.train is not nn.Module.train or kind.eval is not nn.Module.eval


def _evaluates(network: nn.Module, data: Data, batch: int) -> Iterator[Problem]:
    """One row of finite logits an image, at every batch size, alone as well as among others."""
    network.eval()
    for size in dict.fromkeys((2, 1, min(batch, len(data.test)))):
        x = _images(data, size)
        try:
            with torch.no_grad():
                logits = network(x.clone())
        except (Exception, SystemExit) as error:  # noqa: BLE001 - see above
            yield f"it raises for {_count(size)}: {_short(error)}"
            return
        yield from _not_logits(logits, size, data.description.classes)


def _not_logits(logits: object, size: int, classes: int) -> Iterator[Problem]:
    """What is wrong with a model's outputs for ``size`` images."""
    expected = f"it must return one logit for each of the {classes} classes, shape ({size}, {classes})"
    if not isinstance(logits, Tensor):
        kind = type(logits).__name__
        yield f"for {_count(size)} it gives a {kind}, not a tensor: {expected}{remedy(logits, size, classes)}"
    elif tuple(logits.shape) != (size, classes):
        squeezed = (
            "; a squeeze() without an axis drops the batch of one" if size == 1 else remedy(logits, size, classes)
        )
        yield f"for {_count(size)} it gives outputs of shape {tuple(logits.shape)}: {expected}{squeezed}"
    elif not logits.is_floating_point():
        yield f"for {_count(size)} it gives {logits.dtype} outputs: logits are floating-point numbers"


def _copies(network: nn.Module, data: Data, batch: int) -> Iterator[Problem]:
    """A copy has to compute what the model computes: victim and judge are copies."""
    x, other = _images(data, 8).split(4)
    remedy = (
        "what a copy does not take along, such as a hook or a function that refers to the model itself, belongs into "
        "forward(), or into a module of its own"
    )
    with torch.no_grad():
        first, again = network(x.clone()), network(x.clone())
        network(other)  # so that what the model remembers of its last images belongs to others
        try:
            copied = copy.deepcopy(network)(x.clone())
        except (Exception, SystemExit) as error:  # noqa: BLE001 - see above
            yield f"a copy of it does not work ({_short(error)}); {remedy}"
            return
    if torch.equal(first, again) and not torch.allclose(copied, first, rtol=1e-3, atol=1e-5, equal_nan=True):
        yield f"a copy of it computes something else than the model; {remedy}"


def _in_float32(network: nn.Module, data: Data, batch: int) -> Iterator[Problem]:
    """The judge is a copy with float32 weights where the model's are half precision."""
    try:
        with torch.no_grad():
            in_float32(copy.deepcopy(network))(_images(data, 2).clone())
    except (Exception, SystemExit) as error:  # noqa: BLE001 - see above
        yield (
            f"its float32 copy, which decides every verdict, raises ({_short(error)}); let forward() take the type of "
            "the weights, and not call .half() or .bfloat16() itself"
        )


def _trains(network: nn.Module, data: Data, batch: int) -> Iterator[Problem]:
    """There has to be something to train, and a batch has to go forward and backward in train mode."""
    if not any(weight.requires_grad for weight in network.parameters()):
        yield "there is nothing to train: no parameter asks for a gradient; give epochs = 0"
        return
    network.train()
    index = torch.arange(batch, device=data.train.device)
    try:
        logits = network(data.train.pixels(index))
        problems = list(_not_logits(logits, batch, data.description.classes))
        if not problems:
            F.cross_entropy(logits.float(), data.train.labels[index]).backward()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - see above
        if "more than 1 value per channel" in str(error):
            yield f"batch norm needs more than one image a batch in training, not {batch}; raise batch_size"
        else:
            yield f"in train mode it raises for {_count(batch)}: {_short(error)}"
        return
    finally:
        network.eval()
    yield from (f"in train mode, {problem}" for problem in problems)


def _keeps(network: nn.Module, data: Data, batch: int) -> Iterator[Problem]:
    """Trained weights are kept as tensors: a state dict of anything else would be lost."""
    odd = [name for name, value in network.state_dict().items() if not isinstance(value, Tensor)]
    if odd:
        yield (
            f"its state dict holds what is no tensor ({', '.join(odd[:3])}), so trained weights cannot be kept; "
            "keep such state in a buffer, or train elsewhere and give epochs = 0"
        )


def _images(data: Data, size: int) -> Tensor:
    return data.test.pixels(torch.arange(size, device=data.test.device) % len(data.test))


def _count(size: int) -> str:
    return "one image" if size == 1 else f"{size} images"


def _short(value: object) -> str:
    if isinstance(value, BaseException):
        return summary(value)[:300]
    return "nothing" if value is None else f"a {type(value).__name__}"
