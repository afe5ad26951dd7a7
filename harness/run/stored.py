"""Trained models out of a results folder: built from their records, with the weights beside them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from epsbench.harness.digest import digest
from epsbench.harness.errors import InputError, did_you_mean
from epsbench.harness.plan.axes.starts import SCRATCH
from epsbench.harness.plan.cell import decides_weights, weights_key
from epsbench.harness.plan.data import DATASETS, DataDescription, describe
from epsbench.harness.plan.later import GENERATION_RECIPE, ROBUSTNESS_RECIPE
from epsbench.harness.plan.names import registry
from epsbench.harness.plan.names.data import read_data
from epsbench.harness.plan.names.kinds import known_names
from epsbench.harness.plan.names.nested import of_record
from epsbench.harness.records import Record, read_records
from epsbench.harness.records.tables import varying, varying_by_name
from epsbench.harness.run.training.seeding import seeded
from epsbench.harness.run.training.trained import require_same
from epsbench.harness.run.training.weights import load_weights, weights_path
from epsbench.models.generative import VAE

SHOWN = ("data", "model", "defense", "augmentation", "subset", "z_dim", "beta", "seed")


def load_model(
    results: str | Path, *, base: str | Path = ".", weights: str | Path | None = None, device: str = "cpu", **where: Any
) -> nn.Module:
    """The trained model of a results folder, in evaluation mode.

    Args:
        results: The results folder.
        base: The folder of the suite, where the model is code of your own.
        weights: The folder of weights; default: the one inside the results folder.
        device: Where the model goes.
        where: Values of the cell that choose one model of several: ``model="smallcnn"``, ``defense="trades"``,
            ``z_dim=20``, ``seed=0``, ``training={"epochs": 20}``, ``start="scratch"`` or
            ``start={"training": {"epochs": 18}}``. Of a model that was measured again with other code, the last one is
            loaded.

    Returns:
        A classifier from pixels (N, C, H, W) in [0, 1] to logits, or a VAE (`epsbench.models.vae.VAENetwork`).

    Raises:
        InputError: Where no model or several match, and where its weights are not there or do not fit.
    """
    folder = Path(results)
    record = _chosen(folder, where)
    key = weights_key(record.cell, record.code)
    try:
        description = _description(record, Path(base))
        network = _built(record, description, Path(base))
    except InputError as error:
        failed = f"{folder}: so the model of record {record.id} cannot be built again; {_remedy(record, Path(base))}"
        raise InputError([*error.messages, failed]) from error
    place = Path(weights) if weights is not None else folder / "weights"
    if record.cell["training"]["epochs"]:
        path, info = weights_path(place, key), load_weights(place, key, network)
        if info is None:
            raise InputError(
                f"{path}: the weights are not there; name their folder with weights=, or run the suite again"
            )
        require_same(info.get("answers", {}), network, description.shape, path)
    return network.to(device).eval()


def _remedy(record: Record, base: Path) -> str:
    """What to do where the model of a record cannot be built again."""
    for kind in ("data", "model"):
        entry = record.cell[kind]
        name = entry if isinstance(entry, str) else entry["name"]
        if ":" not in name and name not in {*DATASETS, *known_names(kind)}:
            return f"{name!r} was an object of a program, as in evaluate(model, x, y), and is in that program alone"
    return f"its paths begin at {base.absolute()}; give base=, the folder of the suite or that the run began in"


def _chosen(folder: Path, where: Mapping[str, Any]) -> Record:
    records = [record for record in read_records(folder) if record.status != "failed"]
    if not records:
        raise InputError(f"{folder}: holds no measured cell; give the results folder of a run")
    known = {key for record in records for key in record.cell}
    for key in where:
        if key not in known:
            raise InputError(f"load_model: {key!r} is no key of a cell{did_you_mean(key, known)}")
    scratch = {"start": SCRATCH} if "start" in known else {}
    cells = {record.id: scratch | record.cell | {"training": _whole_recipe(record.cell)} for record in records}
    # By what a suite says of the model: of its versions the last, since no value of `where` tells them apart.
    matching = {
        digest(decides_weights(record.cell)): record
        for record in sorted(records, key=lambda record: (record.finished, record.id))
        if all(_is(cells[record.id].get(key), value) for key, value in where.items())
    }
    if len(matching) == 1:
        return next(iter(matching.values()))
    named = [cells[record.id] for record in (matching.values() or records)]
    recipe = sorted(varying(cell["training"] for cell in named))
    parameters = {
        key: varying_by_name(cell[key] for cell in named if isinstance(cell.get(key), Mapping)) for key in SHOWN
    }
    starts = [cell["start"] for cell in named if isinstance(cell.get("start"), Mapping)]
    lines = sorted({_shown(cell, recipe, parameters, starts) for cell in named})
    what = "several models match" if matching else "no model matches"
    listed = "; ".join(lines[:6]) + ("; …" if len(lines) > 6 else "")
    raise InputError(f"{folder}: {what}; choose one by its values: {listed}")


def _whole_recipe(cell: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe of a cell with the keys that records leave out at their defaults."""
    later = ROBUSTNESS_RECIPE if cell["task"] == "robustness" else GENERATION_RECIPE
    return {**later, **cell["training"]}


def _is(value: Any, wanted: Any) -> bool:
    if isinstance(value, Mapping):
        if isinstance(wanted, Mapping):
            return all(key in value and _is(value[key], item) for key, item in wanted.items())
        return bool(value.get("name") == wanted)
    return bool(value == wanted)


def _apart(table: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The keys of a table, and of tables in it, whose values some of the others do not have."""
    apart: dict[str, Any] = {}
    for key in varying(others):
        if key in table and key != "seed":
            value, inner = table[key], [other[key] for other in others if isinstance(other.get(key), Mapping)]
            apart[key] = (_apart(value, inner) or value) if isinstance(value, Mapping) else value
    return apart


def _shown(
    cell: Mapping[str, Any],
    recipe: Collection[str],
    parameters: Mapping[str, Mapping[str, Collection[str]]],
    starts: Sequence[Mapping[str, Any]],
) -> str:
    """What tells a cell's model from others.

    ``recipe`` are the keys of the training that do, ``parameters`` those of a model or a defense, by its key and name.
    ``starts`` are what the models begin with.
    """
    plain: dict[str, Any] = {}
    for key in SHOWN:
        value = cell.get(key)
        if isinstance(value, Mapping):
            differing = parameters[key][str(value.get("name"))]
            shown = {each: value[each] for each in value if each == "name" or each in differing}
            plain[key] = shown if len(shown) > 1 else value.get("name")
        elif key in cell:
            plain[key] = value
    if starts:
        start = cell["start"]
        apart = _apart(start, starts) if isinstance(start, Mapping) else start
        plain["start"] = apart or {"defense": start["defense"]["name"]}  # where all that have one have the same
    plain |= {"training": {key: cell["training"].get(key) for key in recipe}} if recipe else {}
    return ", ".join(f"{key}={value!r}" for key, value in plain.items())


def _description(record: Record, base: Path) -> DataDescription:
    """What is known of a record's data."""
    data = record.cell["data"]
    entry = data if isinstance(data, str) else {key: value for key, value in data.items() if key != "content"}
    return describe(read_data(entry, base))


def _built(record: Record, description: DataDescription, base: Path) -> nn.Module:
    cell = record.cell
    architecture = registry.make("model", of_record(cell["model"]), base)
    more = (cell["z_dim"],) if isinstance(architecture, VAE) else ()
    network: nn.Module = seeded(lambda: architecture.build(description, *more), cell["seed"])
    return network
