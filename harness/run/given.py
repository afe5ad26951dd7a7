"""Objects of this process as a suite can name them: models, data and attacks that a caller has in hand.

Each gets a name, and a version that is part of the ids of its cells: the code of its class, and what it holds.
"""

from __future__ import annotations

import hashlib
import inspect
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from epsbench.harness.errors import FAILURES, InputError, summary
from epsbench.harness.isolation import isolated
from epsbench.harness.plan.data.checks import as_array, checked_images, checked_labels
from epsbench.harness.plan.data.decoded import Decoder
from epsbench.harness.plan.data.own_code import Given, as_label, class_names_of, part_of, size_of
from epsbench.harness.plan.data.source import Part
from epsbench.harness.plan.names.versions import code_version, part_version
from epsbench.harness.plan.one_word import Entry, parsed
from epsbench.harness.run.data.arrays import shared
from epsbench.harness.run.machine.copies import copy_of
from epsbench.models.outputs import remedy

Objects = dict[tuple[str, str], Any]
PROBED = 32  # images at which a plain function is known by its outputs


class FunctionNetwork(nn.Module):
    """A plain function from images to logits, as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Pixels (N, C, H, W) in [0, 1] to logits (N, classes)."""
        logits = self.function(x)
        # Weights inside the function may ask for gradients: without this, every forward pass would keep its graph.
        return logits if not isinstance(logits, Tensor) or x.requires_grad else logits.detach()


def given_data(x: Any, y: Any, classes: int, class_names: tuple[str, ...]) -> tuple[Entry, Objects]:
    """The entry of a suite for images and labels, a dataset, a loader or a name; and the object that it names."""
    x = os.fspath(x) if isinstance(x, os.PathLike) else x
    if isinstance(x, str | Mapping):
        if y is not None:
            raise InputError("y: labels come with data that is named; leave y out")
        if isinstance(x, Mapping) and "name" not in x:
            raise InputError(
                "x: is a table without a name; give images and labels as x and y, or a table such as "
                '{"name": "npz", "path": "test.npz"}'
            )
        return _named(parsed(x) if isinstance(x, str) else dict(x), classes, class_names), {}
    where = "x"
    if y is None and isinstance(x, torch.utils.data.DataLoader):
        part, name, known = _of_loader(x), type(x.dataset).__name__, class_names_of(x.dataset)
    elif y is None:
        if isinstance(x, Tensor) or hasattr(x, "dtype"):
            raise InputError("y: is missing; give one label for each image, or a Dataset that returns both")
        decoder = Decoder(where, size_of(x, where))
        part, name = part_of(x, where, classes, decoder, "test"), type(x).__name__
        known = class_names_of(x)
    elif isinstance(x, torch.utils.data.DataLoader | torch.utils.data.Dataset):
        raise InputError(f"y: labels come with x, which is a {type(x).__name__}; leave y out")
    else:
        part, name, known = _of_arrays(x, y), "arrays", ()
    if len(class_names):
        classes = classes or len(class_names)
    data = Given(part, class_names or known)
    entry: dict[str, Any] = {"name": name} | ({"classes": classes} if classes else {})
    return entry, {("data", name): data}


def _named(data: Entry, classes: int, class_names: tuple[str, ...]) -> Entry:
    """Data by name, with the number of classes where the call says one."""
    if class_names:
        raise InputError("class_names: named data brings the names of its classes; leave class_names out")
    return {**({"name": data} if isinstance(data, str) else data), "classes": classes} if classes else data


def _of_arrays(x: Any, y: Any) -> Part:
    images = as_array(x, "x")
    if images.dtype == "uint8":
        raise InputError("x: is uint8; images are floats in [0, 1] here: give x / 255")
    if images.dtype.kind == "b":
        raise InputError("x: is bool; images are floats in [0, 1]: give x.astype('float32'), or x.float() of a tensor")
    if images.dtype.kind in "iu":
        raise InputError(f"x: is {images.dtype}; images are floats in [0, 1]: give x / 255")
    shape = images.shape
    if len(shape) == 4 and shape[3] in (1, 3) and shape[1] == shape[2] > 3:
        raise InputError(f"x: has the shape {shape}, with channels last; give them first: x.transpose(0, 3, 1, 2), or "
                         "x.permute(0, 3, 1, 2) of a tensor")  # fmt: skip
    labels = as_array(y, "y")
    if images.ndim == 3 and shape[0] == 3 and len(labels) == 1:
        raise InputError(f"x: has the shape {shape}, as one image; add an axis for the number of images: x[None]")
    images = checked_images(images, "x", "nchw")
    return Part(images, checked_labels(labels, len(images), "y"))


def _of_loader(loader: Any) -> Part:
    """The examples of a loader, batch by batch: into a file where they are too many for the memory."""
    labels: list[int] = []
    images = Decoder("x", 0).grow("test", _batches(loader, labels), "x", "nchw")
    return Part(images, checked_labels(labels, len(images), "x"))


def _batches(loader: Any, labels: list[int]) -> Iterator[np.ndarray]:
    """The images (k, C, H, W) of each batch; their labels are appended to ``labels``."""
    iterator = iter(loader)
    for number in itertools.count():
        place = f"x, batch {number}"
        try:
            batch = next(iterator)
        except StopIteration:
            if not number:
                raise InputError("x: the loader is empty") from None
            return
        # The loader runs the user's dataset, which may raise anything.
        except Exception as error:
            raise InputError(f"{place}: the loader raises {_cause(error)}") from error
        if not isinstance(batch, tuple | list) or len(batch) < 2:
            raise InputError(f"{place}: is a {type(batch).__name__}; a loader must give images and labels")
        images, several = as_array(torch.as_tensor(batch[0]), place), batch[1]
        if images.ndim < 3 or not hasattr(several, "__len__") or not np.ndim(several):
            raise InputError(
                f"{place}: is one example, and batches are needed; make the loader with batch_size=N, or give its "
                "dataset"
            )
        labels += [as_label(label, place) for label in several]
        yield images


def _cause(error: Exception) -> str:
    """Type and message of an exception; of one in a worker of a loader the last line, after the worker's traceback."""
    text = str(error).strip()
    return text.splitlines()[-1] if "Original Traceback" in text else summary(error)


def given_model(model: Any, data: Entry, objects: Objects, called: str = "") -> tuple[Any, Objects]:
    """The entry of a suite for a module, a function or a name; and the object that it names.

    ``data`` and ``objects`` are what `given_data` returned. Where they do not say how many classes there are, the
    model's outputs do: the number is put into ``data``. ``called`` is the name of a module or a function in records;
    empty: that of its class, or its own.
    """
    _check_name(called, model)
    if isinstance(model, str):
        return parsed(model), {}
    if isinstance(model, Mapping):
        if any(isinstance(value, Tensor) for value in model.values()):
            raise InputError(
                "model: is a dict of weights; build the network, load them, and give it: model.load_state_dict(weights)"
            )
        return dict(model), {}
    if isinstance(model, type) and issubclass(model, nn.Module):
        raise InputError(f"model: {model.__name__} is a class; give an object: {model.__name__}()")
    if not callable(model):
        raise InputError(f"model: is a {type(model).__name__}; give a torch.nn.Module, a function, or a name")
    is_module = isinstance(model, nn.Module)
    if is_module:
        _usable(model)
    given = objects.get(("data", data["name"])) if isinstance(data, dict) else None
    outputs = None if given is None else _probed(model, given.part)
    if is_module and given is not None and outputs is None:
        _require_single_precision(model)
    logits = outputs if given is not None and _are_logits(outputs, given.part) else None
    if isinstance(data, dict) and given is not None and logits is not None and "classes" not in data:
        data["classes"] = _classes(logits, given.part, not is_module)
        if len(given.classes) != data["classes"]:  # a dataset's names of other classes than the model's
            objects["data", data["name"]] = Given(given.part)
    elif isinstance(data, dict) and given is not None and outputs is not None and not is_module:
        _require_logits(outputs, given.part, data.get("classes", max(2, int(given.part.labels.max()) + 1)))
    if is_module:
        name = type(model).__name__
        structure = [
            repr(model),
            *sorted({part_version(kind) for kind in {type(module) for module in model.modules()}}),
        ]
    else:
        name = getattr(model, "__name__", type(model).__name__).strip("<>")
        kind = model if inspect.isfunction(model) or inspect.isclass(model) else type(model)
        # What a function computes with is hidden in it: its outputs stand for that.
        structure = [code_version(kind), repr([] if logits is None else (logits * 1e3).round().int().tolist())]
    version = hashlib.sha256(repr(structure).encode()).hexdigest()[:16]
    network = model if is_module else FunctionNetwork(model)
    name = called or name
    return name, {("model", name): _Copies(network, name, version)}


def _check_name(called: str, model: Any) -> None:
    """Raise `InputError` for what cannot be the name of this model in a record."""
    if not isinstance(called, str):
        raise InputError(f"name: is a {type(called).__name__}; give a text, such as 'resnet18, PGD-trained'")
    if called and isinstance(model, str | Mapping):
        raise InputError("name: a model that is named keeps its name; leave name out")
    if called and (not called.isprintable() or called != called.strip() or any(mark in called for mark in ":/\\")):
        raise InputError(
            f"name: {called!r} cannot be a model's name; use letters, digits, spaces and commas, and no path"
        )


def device_of(model: Any, x: Any) -> str | None:
    """The device of a model's weights, else of images that are a tensor; None where neither says one."""
    first = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    place = first if first is not None else x if isinstance(x, Tensor) else None
    return str(place.device) if place is not None and place.device.type in ("cpu", "cuda") else None


class _Copies:
    """Makes copies of the caller's model, which stays untouched."""

    def __init__(self, network: nn.Module, name: str, version: str) -> None:
        self._network = network
        self.__qualname__ = name
        self.version = version

    def __call__(self) -> nn.Module:
        return copied(self._network)


def _probed(model: Any, part: Part) -> Any:
    """What the model returns for the first images; None where it raises: then the run says what is wrong with it."""
    device = torch.device(device_of(model, None) or "cpu")
    x = shared(part.images[:PROBED]).to(device)
    x = x.float() / (255 if part.images.dtype == "uint8" else 1)
    try:
        with isolated(0), torch.no_grad():
            network = copied(model).eval() if isinstance(model, nn.Module) else model
            outputs = network(x)
    except FAILURES:  # the preflight tries it again and says what it raises
        return None
    return outputs.float().cpu() if _are_logits(outputs, part) else outputs


def _are_logits(outputs: Any, part: Part) -> bool:
    """Whether outputs for the first images have the shape of logits, of any number of classes.

    The preflight looks at their type: it then names the type, and not a number of classes that is guessed from labels.
    """
    n = min(PROBED, len(part.labels))
    return isinstance(outputs, Tensor) and outputs.ndim == 2 and len(outputs) == n and not outputs.is_complex()


def _require_logits(outputs: Any, part: Part, classes: int) -> None:
    """Raise `InputError` where a plain function returns something else than logits, and a line mends it."""
    n = min(PROBED, len(part.labels))
    if not _are_logits(outputs, part) and (advice := remedy(outputs, n, classes, function=True)):
        kind = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise InputError(f"model: gives {kind} for {n} images; logits of shape ({n}, {classes}) are needed{advice}")


def _classes(logits: Tensor, part: Part, function: bool) -> int:
    classes, largest = logits.shape[1], int(part.labels.max())
    if classes == 1:
        raise InputError(
            "model: gives one logit an image, and a logit for each class is needed"
            f"{remedy(logits, len(logits), 2, function)}"
        )
    if largest >= classes:
        raise InputError(
            f"y: has a label {largest}, and the model gives {classes} logits; labels go from 0 to {classes - 1}"
        )
    return classes


def copied(network: nn.Module) -> nn.Module:
    """A copy of the caller's model, which stays untouched. Raises `ValueError` where it cannot be copied."""
    try:
        return copy_of(network)
    # Copying runs the user's code.
    except Exception as error:
        raise ValueError(f"a copy of it cannot be made ({summary(error)}); give a function instead") from error


def _usable(model: nn.Module) -> None:
    devices = {str(tensor.device) for tensor in _numbers(model)}
    if len(devices) > 1:
        raise InputError(f"model: its weights are on {' and '.join(sorted(devices))}; move them to one device")


def _require_single_precision(model: nn.Module) -> None:
    """Raise `InputError` for weights in float64, of a model that raises for images, which are float32."""
    if any(tensor.dtype == torch.float64 for tensor in _numbers(model)):
        raise InputError(
            "model: its weights are float64, and images are float32; call model.float(), or let forward() convert the "
            "images"
        )


def _numbers(model: nn.Module) -> list[Tensor]:
    """Its parameters and its floating-point buffers."""
    return [*model.parameters(), *(buffer for buffer in model.buffers() if buffer.is_floating_point())]
