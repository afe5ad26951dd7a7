"""``epsbench evaluate``: one evaluation, as a suite made on the spot. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from epsbench.harness.errors import InputError
from epsbench.harness.evaluation import evaluation_of
from epsbench.harness.plan.cell import RobustnessCell
from epsbench.harness.plan.data import describe
from epsbench.harness.plan.data.own import PATHS, OwnData
from epsbench.harness.plan.handed_over import HandedOver, fits_to
from epsbench.harness.plan.names.registry import make
from epsbench.harness.plan.on_the_spot import evaluation_suite
from epsbench.harness.plan.one_word import Entry, parsed
from epsbench.harness.plan.plan import examples
from epsbench.harness.plan.suite import Suite
from epsbench.harness.records import find_record
from epsbench.harness.saved_images import files_of_images, save_images

DEFAULT_ATTACK = "autoattack"


def suite_of(
    models: Sequence[str],
    data: str,
    attacks: Sequence[str],
    norms: Sequence[str],
    eps: Sequence[str],
    *,
    weights: Path | None = None,
    key: str = "",
    mean: str = "",
    std: str = "",
    score: Path | None = None,
    limit: int | None = None,
    precision: str | None = None,
    seed: int = 0,
) -> Suite:
    """The suite of a command's arguments; names and paths are relative to the current folder.

    Raises `InputError` for arguments that cannot be used.
    """
    entries = [with_weights(model, weights, key, mean, std) for model in models]
    if score is not None and attacks:
        raise InputError("--score: judges the images of a file, so no attack is made; leave out --attack")
    wanted: list[Entry] = [f"images:{score}"] if score else [parsed(each) for each in attacks or [DEFAULT_ATTACK]]
    suite = evaluation_suite(
        entries, parsed(data), wanted, list(norms or ["linf"]), list(eps or ["8/255"]), base=Path.cwd(), limit=limit,
        precision=precision, seed=seed,
    )  # fmt: skip
    if score is not None:
        _check_score(suite)
    return suite


def with_weights(model: str, weights: Path | None, key: str, mean: str, std: str) -> Entry:
    """A model in one word, with the weights of a file where one is given.

    Raises `InputError` for options that belong to such a file where there is none, and for numbers that are none.
    """
    more: dict[str, Any] = {name: _numbers(name, text) for name, text in (("mean", mean), ("std", std)) if text}
    if weights is None:
        given = {"--key": key, "--mean": mean, "--std": std}
        if used := [option for option, value in given.items() if value]:
            raise InputError(f"{used[0]}: belongs to a file of weights; name it with --weights FILE")
        return parsed(model)
    return {"name": f"file:{weights}", "architecture": parsed(model), **more} | ({"key": key} if key else {})


def _numbers(name: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"--{name}: {text!r} are no numbers; give one a channel, such as 0.49,0.48,0.45") from error


def _check_score(suite: Suite) -> None:
    for cell in suite.cells:
        assert isinstance(cell, RobustnessCell)
        attack = make("attack", cell.attack, suite.base, norm=cell.norm)
        assert isinstance(attack, HandedOver)
        fits_to(attack, examples(cell), describe(cell.data).shape)


def require_free(suite: Suite, path: Path) -> None:
    """Raise `InputError` where images saved at ``path`` would replace what the suite reads, or a file of another kind.

    How many files there will be is not known before a run: a cell that fails has no images.
    """
    cells = [cell for cell in suite.cells if isinstance(cell, RobustnessCell)]
    files = {file for points in {1, len(cells)} for file in files_of_images(path, points)}
    read = {place.resolve() for cell in cells for place in _read_by(cell, suite.base)}
    for file in files:
        if file.resolve() in read:
            raise InputError(f"{file}: is what the images are made from; save them under another name")


def _read_by(cell: RobustnessCell, base: Path) -> Iterator[Path]:
    """The files that a cell names: of its data, and of images that are judged."""
    if isinstance(cell.data, OwnData):
        yield from (base / value for key, value in cell.data.named.params if key in PATHS and isinstance(value, str))
    attack = make("attack", cell.attack, base, norm=cell.norm)
    if isinstance(attack, HandedOver):
        yield Path(attack.images_file)


def saved_images(suite: Suite, results: Path, path: Path) -> str:
    """Write the kept adversarial images of a suite's measured cells; returns a line that says where.

    Raises `InputError` where none is measured, or the file cannot be written.
    """
    cells = [cell for cell in suite.cells if isinstance(cell, RobustnessCell)]
    known = ((cell.label(), find_record(results, cell.id)) for cell in cells)
    measured = [(label, record) for label, record in known if record and record.failure is None]
    if not measured:
        raise InputError(f"--save-images: no attack of {suite.name} was measured, so there are no images")
    written = save_images(evaluation_of(results, [record for _, record in measured]).points, path)
    if len(written) == 1:
        return f"wrote {written[0]}"
    return f"wrote {', '.join(f'{file} ({label})' for file, (label, _) in zip(written, measured, strict=True))}"
