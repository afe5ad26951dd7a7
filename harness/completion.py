"""What a shell offers when a name is half typed: suites, attacks, models, data sets. No torch."""

from __future__ import annotations

from pathlib import Path


def suites(incomplete: str) -> list[str]:
    """The shipped suites and the suite files that begin so; folders too, to go on in."""
    from epsbench import suites as shipped

    names = sorted(path.stem for path in Path(shipped.__path__[0]).glob("*.toml"))
    return [name for name in names if name.startswith(incomplete)] + _paths(incomplete, (".toml",))


def attacks(incomplete: str) -> list[str]:
    """The attacks that begin so."""
    return _named("attack", incomplete)


def models(incomplete: str) -> list[str]:
    """The models, and the Python files in which the user's own may be, that begin so."""
    return _named("model", incomplete) + _paths(incomplete, (".py",))


def data(incomplete: str) -> list[str]:
    """The data sets, files of arrays and folders that begin so."""
    from epsbench.harness.plan.data import DATASETS

    return [name for name in DATASETS if name.startswith(incomplete)] + _paths(incomplete, (".npz", ".py"))


def norms(incomplete: str) -> list[str]:
    """The norms, and the Python files in which the user's own may be, that begin so."""
    from epsbench.harness.plan.names.norms import NORMS

    return [name for name in NORMS if name.startswith(incomplete)] + _paths(incomplete, (".py",))


def _named(kind: str, incomplete: str) -> list[str]:
    from epsbench.harness.plan.names.kinds import known_names

    return [name for name in known_names(kind) if name.startswith(incomplete)]


def _paths(incomplete: str, endings: tuple[str, ...]) -> list[str]:
    """Folders, with a slash, and files of these endings whose path begins so."""
    head, slash, _ = incomplete.rpartition("/")
    folder = Path(head + slash) if slash else Path()
    try:
        entries = sorted(folder.iterdir())
    except OSError:  # no such folder
        return []
    texts = [f"{head}{slash}{each.name}{'/' if each.is_dir() else ''}" for each in entries]
    return [text for text in texts if text.startswith(incomplete) and text.endswith(("/", *endings))
            and not text.rpartition("/")[2].startswith(".")]  # fmt: skip
