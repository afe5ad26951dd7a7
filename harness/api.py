"""The functions of the package: evaluate a model of this process, attack with it, read what a folder holds."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epsbench.harness.errors import InputError
from epsbench.harness.evaluation import Evaluation, evaluation_of
from epsbench.harness.files import temporary_folder
from epsbench.harness.options import ALL, INTERRUPTED, Options
from epsbench.harness.plan.data import describe
from epsbench.harness.plan.names.registry import registered
from epsbench.harness.plan.on_the_spot import evaluation_suite
from epsbench.harness.records import Record, read_record, record_path

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor, nn

_SHOWN: dict[str, Any] = {"max_rows": 20, "na_rep": "", "show_dimensions": True}
"""How a table of records is shown."""


def evaluate(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    attack: Any = "autoattack",
    norm: str | float | Sequence[str | float] | None = None,
    eps: Any = "8/255",
    out: str | Path | None = None,
    name: str = "",
    classes: int = 0,
    class_names: Sequence[str] = (),
    seed: int = 0,
    limit: int | None = None,
    early_stop: bool = True,
    curve: str = "each",
    randomness: Mapping[str, int] | None = None,
    precision: str | None = None,
    device: Any = None,
    batch_size: int | None = None,
    compile: str = "auto",
    progress: bool = False,
) -> Evaluation:
    """The clean and the robust accuracy of a model, by the same engine, judge and audits as a suite's.

    Args:
        model: A ``torch.nn.Module``, or any function, from images (N, C, H, W) in [0, 1] to logits (N, K). It
            normalises its input itself. It is copied, and comes back as it was. Or a name, as in a suite:
            ``"victim.py:load"``.
        x: Images (n, C, H, W) in [0, 1] as a tensor or an array; or a ``Dataset`` or ``DataLoader`` of images and
            labels; or the name of data, as in a suite: ``"cifar10"``, ``"test.npz"``.
        y: Labels (n,), integers from 0. Only with images.
        attack: A name, with parameters as in ``"pgd:steps=40,random_start=true"``; a table such as
            ``{"name": "pgd", "steps": 40}``; an `epsbench.attacks.Attack`; or a list of these.
        norm: The name of a norm, or its p (1, 2 or ∞), or a list; default: that of the attacks that are objects, else
            ``"linf"``.
        eps: The radius in pixel units, such as ``"8/255"`` or 0.03, or a list.
        out: A results folder. It keeps records and images; the same call goes on from there, and computes only what is
            missing. Default: nothing is kept.
        name: What records and reports call the model; default: its class or function. Models that share a folder need
            names of their own: a report has the last model of each name.
        classes: The number of classes; default: the model's outputs.
        class_names: What the classes are called.
        seed: Of the attack's noise.
        limit: Only the first so many images.
        early_stop: Whether an image leaves the attack once it fools.
        curve: How verdicts at several ε depend on each other: ``"each"``, ``"nested"`` or ``"bisect"``.
        randomness: ``{"samples": k, "votes": m}`` for a model that answers at random: the attack averages k passes,
            and the majority of m decides.
        precision: ``"float32"``, ``"bf16"`` or ``"fp16"`` of the attacked copy; default: bf16 on CUDA, else float32.
        device: Default: that of the model's weights, else CUDA where there is one.
        batch_size: Rows attacked at a time; default: by timing.
        compile: Whether networks are compiled or traced: ``"auto"``, ``"on"`` or ``"off"``.
        progress: Whether to show progress on the terminal.

    Returns:
        The accuracies with intervals, findings, and what happened to each image (`epsbench.harness.evaluation`).

    Raises:
        InputError: For an argument that cannot be used, and where the attack or the model raises.
    """
    results = None if out is None else _path("out", out, "a results folder, or None to keep nothing")
    options = Options(
        batch_size=_plain(batch_size),
        quiet=not progress,
        compile=compile,
        keep_images=ALL,
        remember=True,
        temporary=results is None,
    )
    from epsbench.harness.run.given import device_of, given_data, given_model
    from epsbench.harness.run.given_attacks import attack_entries
    from epsbench.harness.run.runner import run_suite

    if randomness is not None and not isinstance(randomness, Mapping):
        raise InputError(f"randomness: is {randomness!r}; give a table, such as {{'samples': 20, 'votes': 11}}")
    with ExitStack() as stack:
        data, objects = given_data(x, y, _plain(classes), _names(class_names))
        named, of_model = given_model(model, data, objects, name)
        entries, of_attack, norms = attack_entries(attack)
        if norm is None and len(norms) > 1:
            raise InputError(
                f"attack: the objects have different norms, {' and '.join(norms)}; evaluate those of each norm alone, "
                "at its own eps, or give norm= for all of them"
            )
        stack.enter_context(registered({**objects, **of_model, **of_attack}))
        results = results or Path(stack.enter_context(temporary_folder("epsbench-", "evaluate", "give out=, or ")))
        random: dict[str, Any] = {} if randomness is None else {"randomness": dict(randomness)}
        suite = evaluation_suite(
            named, data, entries, _norm_names(norm) or norms or "linf", _plain_numbers(eps), base=Path.cwd(),
            limit=_plain(limit), precision=precision, seed=_plain(seed), early_stop=_plain(early_stop), curve=curve,
            **random,
        )  # fmt: skip
        on = str(device) if device is not None else device_of(model, x)
        if run_suite(suite, results, replace(options, device=on)) == INTERRUPTED:
            raise KeyboardInterrupt
        known = describe(suite.cells[0].data)
        measured = [read_record(record_path(results, cell.id)) for cell in suite.cells]
        return evaluation_of(results, measured, known.class_names)


def attack(model: Any, x: Any, y: Any = None, *, attack: Any = "pgd", norm: Any = None, eps: Any = "8/255",
           **options: Any) -> Tensor:  # fmt: skip
    """Adversarial images (n, C, H, W) in [0, 1] for one attack at one ε, on the device of ``x`` where that is a tensor.

    An image that the model gets wrong comes back as it is. So does one whose nearest adversarial image is beyond ε,
    where the attack looks for the smallest distance. Arguments as `evaluate`'s.
    """
    import torch

    numbers = (len(each) for each in (attack, norm, _plain_numbers(eps)) if isinstance(each, list | tuple))
    if (several := math.prod(numbers)) > 1:  # said before anything is attacked
        raise InputError(f"attack: one attack at one ε is needed, not {several}; evaluate(...) takes several")
    result = evaluate(model, x, y, attack=attack, norm=norm, eps=eps, **options)
    images = torch.from_numpy(result.images)
    return images.to(x.device) if isinstance(x, torch.Tensor) else images


class Records(list[Record]):
    """The records of a results folder, oldest first. They show themselves as a table, twenty rows at most."""

    def __repr__(self) -> str:
        from epsbench.harness.frames import overview

        return overview(self).to_string(**_SHOWN) if self else "no records"

    def _repr_html_(self) -> str:
        from epsbench.harness.frames import overview

        return str(overview(self).to_html(**_SHOWN)) if self else "no records"

    def frame(self) -> pd.DataFrame:
        """One row a cell: every parameter as a column, ε as text and as a number, metrics with intervals, costs."""
        from epsbench.harness.frames import frame

        return frame(self)


def records(*results: str | Path | Sequence[str | Path]) -> Records:
    """The records of a results folder; of several each cell once, with its newest record.

    Raises `InputError`, naming each file, for records that cannot be read.
    """
    from epsbench.harness.records import read_records
    from epsbench.harness.report.results.joining import join

    located = []
    for folder in _folders("records", results):
        if not (folder / "cells").is_dir():
            raise InputError(f"{folder}: holds no records; give the results folder of a run")
        located += [(folder, record) for record in read_records(folder)]
    return Records(sorted((record for _, record in join(located)[0]), key=lambda record: (record.started, record.id)))


def report(*results: str | Path | Sequence[str | Path], format: str = "markdown", output: str | Path | None = None
           ) -> str:  # fmt: skip
    """The report on one results folder or several, in a format: ``text``, ``markdown``, ``csv``, ``json``, ``html``
    or ``latex``.

    With ``output`` it is also written to that file; nothing else is. Raises `InputError` as ``epsbench report``.
    """
    from epsbench.harness.report.build import report as build

    file = None if output is None else _path("output", output, "a file")
    return build(_folders("report", results), format, file, beside=False)


def load_model(results: str | Path, **where: Any) -> nn.Module:
    """The trained model of a results folder: a classifier or a VAE (`epsbench.harness.run.stored.load_model`)."""
    from epsbench.harness.run.stored import load_model as load

    return load(_path("load_model", results, "a results folder"), **where)


def _folders(what: str, results: Sequence[Any]) -> list[Path]:
    """The results folders that a caller names, one by one or in a list. Raises `InputError` for what names none."""
    named = list(results[0]) if len(results) == 1 and isinstance(results[0], list | tuple) else results
    if not named:
        raise InputError(f"{what}: give the results folder of a run, or several")
    return [_path(what, each, "a results folder") for each in named]


def _path(what: str, value: Any, kind: str) -> Path:
    """The path that a caller gives. Raises `InputError`, naming the argument, for what is none."""
    if not isinstance(value, str | os.PathLike) or not str(value):
        raise InputError(f"{what}: is {value!r}; give the path of {kind}")
    return Path(value)


def _names(class_names: Any) -> tuple[str, ...]:
    """What classes are called. Raises `InputError` for one text, of which every letter would be a name."""
    if isinstance(class_names, str | Mapping):
        raise InputError(
            f"class_names: is a {type(class_names).__name__}; give a list of names, in the order of the model's outputs"
        )
    return tuple(map(str, class_names))


def _norm_names(norm: Any) -> Any:
    """Norms as they are named here, for those who write the p of a norm, as `torch.linalg.norm` does: 1, 2 or ∞."""
    if isinstance(norm, list | tuple):
        return [_norm_names(each) for each in norm]
    if isinstance(norm, bool) or not isinstance(norm, float | int):
        return norm
    return {1: "l1", 2: "l2", math.inf: "linf"}.get(norm, norm)


def _plain(value: Any) -> Any:
    """A number of NumPy or torch, or a list of them, as Python's; all else as it is."""
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value.tolist() if hasattr(value, "tolist") else value


def _plain_numbers(eps: Any) -> Any:
    """One ε or several, with arrays and numbers of NumPy and torch as Python's."""
    if isinstance(eps, list | tuple):
        return [_plain_numbers(each) for each in eps]
    if not hasattr(eps, "tolist"):
        return eps
    plain = eps.tolist()
    name = str(eps.dtype).removeprefix("torch.")
    if name not in ("float32", "float16", "bfloat16"):
        return plain
    if isinstance(plain, list):
        return [_plain_numbers(each) for each in eps]
    rounded = eps.new_tensor if hasattr(eps, "new_tensor") else eps.dtype.type
    return _meant(plain, lambda number: float(rounded(number)))


def _meant(number: float, rounded: Callable[[float], float]) -> float | Fraction:
    """What a number of a type with few digits was rounded from: 0.1, not 0.10000000149, and 8/255, not 0.03137255."""
    if not math.isfinite(number):
        return number
    digits, short = 0, math.nan
    while digits < 7 and rounded(short) != number:
        digits += 1
        short = float(f"{number:.{digits}g}")
    simple = Fraction(number).limit_denominator(255)
    return simple if digits > 5 and rounded(float(simple)) == number else short
