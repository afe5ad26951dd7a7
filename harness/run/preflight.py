"""Finds everything that can be wrong before the first training step, and reports all of it at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from torch import nn

from epsbench.harness.errors import InputError
from epsbench.harness.isolation import isolated
from epsbench.harness.plan.cell import Cell, GenerationCell, RobustnessCell
from epsbench.harness.plan.handed_over import HandedOver, other_labels
from epsbench.harness.plan.names import registry
from epsbench.harness.plan.names.loading import is_users
from epsbench.harness.plan.names.norms import norm_of
from epsbench.harness.plan.plan import Job, examples
from epsbench.harness.run.attack_trial import AttackUse, attack_problem, users_attacks
from epsbench.harness.run.context import Context
from epsbench.harness.run.data.augmentation import AUGMENTATIONS, augmentation_of, augmentation_problem
from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.norm_trial import norm_problem
from epsbench.harness.run.speed.batch_size import UNTRIED
from epsbench.harness.run.training.seeding import seeded
from epsbench.harness.run.training.trained import build
from epsbench.harness.run.training.trial import Use, refusal
from epsbench.models.hub import require_trained_head
from epsbench.models.parts import has_own_parts


def preflight(jobs: Sequence[Job], context: Context) -> None:
    """Read every data set, and try every classifier once for each defense of a user's own, and her attacks.

    The classifiers that a cell starts from, and those whose gradients it follows, are tried too. Raises one
    `InputError` with all that is wrong.
    """
    problems: list[str] = []
    seen: set[object] = set()
    for job in jobs:
        cell = job.cells[0]
        try:
            data = context.data(cell.data, cell.limit)
            missing = [problem for each in _trained(cell) if (problem := _no_images(each, context))]
        except InputError as error:
            problems.extend(message for message in error.messages if message not in problems)
            continue
        if missing:
            problems += [problem for problem in missing if problem not in problems]
            continue
        if not isinstance(cell, RobustnessCell):
            problems += _too_few_images(job, data)
            problems += [problem for problem in _of_priors(job, data, context) if problem not in problems]
            continue
        faults = [*_of_classifiers(job, context, seen), *_of_norms(job, data, context, seen)]
        faults = faults or [*_of_attacks(job, data, context, seen), *_of_given_images(job, data, seen)]
        problems += [problem for problem in faults if problem not in problems]
    if problems:
        raise InputError(problems)


def _of_given_images(job: Job, data: Data, seen: set[object]) -> Iterator[str]:
    """What is wrong with images that somebody else made: labels that are not those of the test images."""
    for stream in job.streams:
        cell, attack = stream.cells[0], stream.attack
        if isinstance(attack, HandedOver) and (attack.images_file, cell.data) not in seen:
            seen.add((attack.images_file, cell.data))
            labels = data.test.labels[: examples(cell)].cpu().numpy()
            yield from filter(None, [other_labels(attack, labels)])


def _trained(cell: Cell) -> Iterator[Cell]:
    """A cell, and those whose trained weights it starts from: as far as they are trained."""
    start = cell.start if isinstance(cell, RobustnessCell) else None
    if dict(cell.training)["epochs"] or start:
        yield cell
    if start:
        yield from _trained(start)


def _no_images(cell: Cell, context: Context) -> str | None:
    """Why there are no images to train or to validate the model of a cell on; None where there are."""
    data = context.data(cell.data, cell.limit)
    named = f"model {cell.model.label()!r} has to be trained, and data {data.description.name!r} has"
    if not len(data.train):
        reason = dict(data.description.missing).get("train", "")
        return (
            f"{named} no training split{f' ({reason})' if reason else ''}; add one, bring trained weights, or say "
            "epochs = 0 to measure it untrained"
        )
    if not len(data.validation):
        return (
            f"{named} too few training images ({len(data.train)}) to set one aside for validation; add some, or a "
            "validation split"
        )
    return None


def _too_few_images(job: Job, data: Data) -> list[str]:
    """Why the data is too small for the measures of a job's generative cells; empty where it suffices."""
    from epsbench.harness.run.generative.quality import images_of  # classifiers need nothing of it

    problems: list[str] = []
    for cell in job.cells:
        try:
            if isinstance(cell, GenerationCell):
                images_of(data, dict(cell.evaluation))
        except InputError as error:
            problems.extend(error.messages)
    return problems


def _of_priors(job: Job, data: Data, context: Context) -> Iterator[str]:
    """What is wrong with the user's own prior of a job's generative model, which draws samples after the training."""
    from epsbench.harness.run.generative_trial import prior_problem  # classifiers need nothing of it

    cell = job.cells[0]  # all cells of a job share one model
    model = registry.make("model", cell.model, context.base)
    if isinstance(cell, GenerationCell) and (is_users(model) or has_own_parts(model)):
        vae = seeded(partial(model.build, data.description, cell.z_dim), cell.seed).to(context.device)
        problem = prior_problem(vae, cell.seed)
        if problem:
            yield f"the prior of model {cell.model.label()!r} cannot be used: {problem}"


def _of_classifiers(job: Job, context: Context, seen: set[object]) -> Iterator[str]:
    """What is wrong with the classifiers that a job needs, and with the user's own defenses that train them."""
    first = job.cells[0]
    sources = (source for each in job.cells if isinstance(each, RobustnessCell) for source in each.sources)
    needed: list[RobustnessCell | None] = [first if isinstance(first, RobustnessCell) else None, *sources]
    while needed:
        cell = needed.pop(0)
        if cell is None:
            continue
        needed.append(cell.start)
        recipe = dict(cell.training)
        defense = registry.make("defense", cell.defense, context.base)
        own = (cell.defense.label(), defense) if is_users(defense) and recipe["epochs"] else None
        precision = context.precision(cell.precision)
        key = cell.model, cell.data, cell.defense if own else None, cell.training, precision
        if key not in seen:
            seen.add(key)
            data = context.data(cell.data, cell.limit)
            use = Use(cell.seed, recipe["batch_size"], recipe["epochs"] > 0, precision, recipe, own)
            problem = refusal(cell.model.label(), partial(_built, cell, data, context), data, use)
            yield from [problem] if problem else []
        name = cell.augmentation
        if recipe["epochs"] and name not in AUGMENTATIONS and (name, cell.data) not in seen:
            seen.add((name, cell.data))
            data = context.data(cell.data, cell.limit)
            batch = data.train.pixels(slice(0, recipe["batch_size"]))
            with isolated(cell.seed):
                problem = augmentation_problem(augmentation_of(name, context.base), batch, cell.seed)
            yield from [f"augmentation {name!r} cannot be used on {cell.data}: {problem}"] if problem else []


def _built(cell: RobustnessCell, data: Data, context: Context) -> nn.Module:
    """The network of a cell. Raises `ValueError` where it is measured as given, and its last layer is not."""
    network = build(cell, data, context)
    as_given = not dict(cell.training)["epochs"] and cell.start is None
    if as_given and getattr(registry.make("model", cell.model, context.base), "pretrained", False):
        require_trained_head(network, data.description.classes)
    return network


def _of_norms(job: Job, data: Data, context: Context, seen: set[object]) -> Iterator[str]:
    """What is wrong with the user's own norms of a job, at its largest ε."""
    for stream in job.streams:
        cell = stream.ascending[-1]
        if (cell.norm, cell.data) in seen or not is_users(norm_of(cell.norm, context.base)):
            continue
        seen.add((cell.norm, cell.data))
        x = data.test.pixels(slice(0, 1))
        problem = norm_problem(norm_of(cell.norm, context.base), x, float(cell.eps) or 1.0)
        if problem:
            yield f"norm {cell.norm!r} cannot be used on {cell.data}: {problem}"


def _of_attacks(job: Job, data: Data, context: Context, seen: set[object]) -> Iterator[str]:
    """What is wrong with the user's own attacks of a job. Of one attack with several parameters, one batch is tried."""
    for stream in job.streams:
        cell = stream.ascending[-1]
        for attack in users_attacks(stream.attack, data.description.classes):
            name, kind = cell.attack.name, (type(attack), cell.norm, cell.data)
            if (kind, attack) in seen:
                continue
            batch = 2 if kind in seen else context.batch_size or UNTRIED[context.device.type]
            seen |= {kind, (kind, attack)}
            network = build(cell, data, context).eval()
            problem = attack_problem(attack, AttackUse(network, data, cell.eps, batch, cell.seed))
            if problem:
                yield f"attack {name!r} cannot be used on {cell.data}: {problem}"
