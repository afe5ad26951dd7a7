"""README and the docs are right: suites, attacks, models, commands, messages, links, folders and files."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from epsbench.harness.errors import InputError
from epsbench.harness.options import Options
from epsbench.harness.plan.axes.recipes import GenerationTraining, RobustnessTraining
from epsbench.harness.plan.plan import plan
from epsbench.harness.plan.suite import load_suite, shipped_suites
from epsbench.harness.records import read_records

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "results" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCS = ROOT / "docs"
ENGINE, SUITES, YOUR_CODE, ARCHITECTURE = (
    DOCS / f"{name}.md" for name in ("engine", "suites", "your-code", "architecture")
)


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language, in order; without a language those that name none."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def code(page: Path) -> str:
    """All that a page shows as code: fenced blocks and spans."""
    text = page.read_text(encoding="utf-8")
    fenced = re.findall(r"^```\w*\n(.*?)^```$", text, flags=re.M | re.S)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S))
    return "\n".join([*fenced, *spans])


def run(path: Path, results: Path, limit: int | None = None) -> None:
    """Run a suite on the CPU and hold that every cell is measured."""
    from epsbench.harness.run.runner import run_suite

    suite = load_suite(str(path), limit)
    code = run_suite(suite, results, Options(quiet=True, device="cpu"))
    records = read_records(results)
    assert code == 0, [(record.cell, record.failure, record.findings) for record in records if record.status != "ok"]
    assert {record.id for record in records} == {cell.id for cell in suite.cells}


@pytest.mark.slow
def test_readmes_suite_and_attack_work(tmp_path):
    from epsbench.harness.report.gates.check import check_suite

    shown, fragment = blocks(README, "toml")
    suite, results = tmp_path / "small.toml", tmp_path / "results"
    suite.write_text(shown, encoding="utf-8")
    assert [cell.task for cell in load_suite(str(suite)).cells] == ["robustness"] * 8 + ["generation"] * 2
    run(suite, results)
    code, text = check_suite(load_suite(str(suite)), results)
    assert code == 0, text

    (attack,) = (block for block in blocks(README, "python") if "class Shrinking" in block)
    assert len(attack.splitlines()) <= 10
    (tmp_path / "shrinking.py").write_text(attack, encoding="utf-8")
    suite.write_text(re.sub(r"^attack = .*\n", fragment, shown, flags=re.M), encoding="utf-8")
    pending = plan(load_suite(str(suite)), results).pending
    assert len(pending) == 4
    assert {cell.attack.name for cell in pending} == {"shrinking.py:Shrinking"}
    run(suite, results)


OWN = """
[robustness]
data = "digits"
[robustness.training]
epochs = 2
[robustness.matrix]
model = ["smallcnn", "own.py:linear"]
defense = ["none", "own.py:OnlyAdversarial"]
attack = ["own.py:HeavyBall", { name = "own.py:BestOfNoise", draws = 3 }, "own.py:Shaken"]
norm = ["linf", "l2"]
eps = 0.2
"""


def test_attacks_models_and_defenses_of_the_docs_work(tmp_path):
    (tmp_path / "own.py").write_text("\n".join(blocks(ENGINE, "python")), encoding="utf-8")
    (tmp_path / "own.toml").write_text(OWN, encoding="utf-8")
    run(tmp_path / "own.toml", tmp_path / "results", limit=100)


RESNET = """
from torch import nn

class ResNet18(nn.Sequential):
    def __init__(self, classes):
        super().__init__(nn.Flatten(), nn.Linear(64, classes))
"""
UTILS = """
from torch import rand

def read_weights(path):
    return {"1.weight": rand(10, 64), "1.bias": rand(10)}
"""
VICTIM = """
[robustness]
data = "digits"
training = { epochs = 0 }
[robustness.matrix]
model = "victim.py:load"
attack = "fgsm"
eps = 0.1
"""


def test_the_repository_of_the_docs_works(tmp_path):
    (tmp_path / "models").mkdir()
    (victim,) = (block for block in blocks(YOUR_CODE, "python") if "ResNet18(num_classes)" in block)
    files = {"victim.py": victim, "utils.py": UTILS, "models/resnet.py": RESNET, "suite.toml": VICTIM}
    for file, text in files.items():
        (tmp_path / file).write_text(text, encoding="utf-8")
    (before,) = load_suite(str(tmp_path / "suite.toml")).cells
    run(tmp_path / "suite.toml", tmp_path / "results", limit=50)
    (tmp_path / "models" / "resnet.py").write_text(f"{RESNET}\nDEPTH = 18\n", encoding="utf-8")
    (after,) = load_suite(str(tmp_path / "suite.toml")).cells
    assert after.id != before.id


def test_the_generative_model_of_the_docs_works(tmp_path):
    (code,) = (block for block in blocks(YOUR_CODE, "python") if "class Dense(VAE)" in block)
    (tmp_path / "mine.py").write_text(code, encoding="utf-8")
    (tmp_path / "suite.toml").write_text(DENSE, encoding="utf-8")
    run(tmp_path / "suite.toml", tmp_path / "results", limit=100)
    (record,) = read_records(tmp_path / "results")
    assert record.cell["model"]["hidden"] == 32
    assert {name for name in record.metrics if name.endswith("_bpd")} >= {"test_bpd", "importance_bpd"}


DENSE = """
[generation]
data = "digits"
training = { epochs = 1 }
evaluation = { importance_samples = 5, prior_samples = 0, generated = 0, gradient_samples = 0 }
[generation.matrix]
model = { name = "mine.py:Dense", hidden = 32 }
z_dim = 4
"""


def test_the_suite_of_the_docs_loads(tmp_path):
    shown, *_ = blocks(SUITES, "toml")
    (tmp_path / "shown.toml").write_text(shown, encoding="utf-8")
    suite = load_suite(str(tmp_path / "shown.toml"))
    assert {cell.norm for cell in suite.cells} == {"linf", "l2"}
    assert not any(cell.seed == 1 and "width" in cell.model.changed for cell in suite.cells)


def test_the_docs_messages_are_the_messages(tmp_path):
    *_, wrong = blocks(SUITES, "toml")
    (tmp_path / "wrong.toml").write_text(wrong, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_suite(str(tmp_path / "wrong.toml"))
    (shown,) = blocks(SUITES, "text")
    assert [message.removeprefix(f"{tmp_path / 'wrong.toml'}: ") for message in caught.value.messages] == (
        shown.splitlines()
    )


def test_the_transfer_of_the_docs_has_the_cells_it_says(tmp_path):
    (transfer,) = (
        block for block in blocks(SUITES, "toml") if block.startswith("[robustness.matrix]") and "source" in block
    )
    (tmp_path / "transfer.toml").write_text('[robustness]\ndata = "digits"\n' + transfer, encoding="utf-8")
    cells = load_suite(str(tmp_path / "transfer.toml")).cells
    assert len(cells) == 4
    assert sum(cell.source is None for cell in cells) == 2


def wants(name: str) -> set[str]:
    """The classifiers of a suite for CIFAR-10, with the parameters that are not their defaults."""
    if "cifar10" not in (ROOT / "suites" / f"{name}.toml").read_text(encoding="utf-8"):
        return set()  # libraries, for one, cannot be read without the libraries
    cells = load_suite(name).cells
    return {cell.model.label() for cell in cells if cell.data == "cifar10"}


def test_the_readme_lists_the_suites_that_are_shipped():
    section = README.read_text(encoding="utf-8").split("## The suites that come along\n", 1)[1].split("\n## ", 1)[0]
    first = re.findall(r"^\| (\[?`.*?) \|", section, flags=re.M)
    named = [name for column in first for name in re.findall(r"`([\w-]+)`", column)]
    assert sorted(named) == sorted(shipped_suites())
    starred = {name for column in first if column.endswith("*") for name in re.findall(r"`([\w-]+)`", column)}
    # The large networks, and 60 epochs of a VAE with 256 levels in three colours.
    assert starred == {name for name in named if "resnet18" in wants(name)} | {"vae-cifar10"}


def test_the_readme_links_every_committed_report():
    linked = re.findall(r"\[`([\w-]+)`\]\(results/reference/([\w-]+)/report\.md\)", README.read_text(encoding="utf-8"))
    assert all(name == folder for name, folder in linked)
    reports = (ROOT / "results" / "reference").glob("*/report.md")
    assert sorted(name for name, _ in linked) == sorted(report.parent.name for report in reports)


def test_every_block_of_toml_is_toml():
    for page in PAGES:
        for block in blocks(page, "toml"):
            tomllib.loads(block)


@pytest.mark.parametrize("recipe", [RobustnessTraining, GenerationTraining])
def test_the_docs_name_the_defaults_of_training(recipe):
    text = SUITES.read_text(encoding="utf-8")
    for name, field in recipe.model_fields.items():
        default = json.dumps(field.default)
        assert f"| `{name}` | `{default}` |" in text


def commands() -> dict[str, set[str]]:
    """The verbs of the command line and the options of each."""
    import typer

    from epsbench.harness.cli import app

    group = typer.main.get_command(app)
    return {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in group.commands.items()
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_are_there(page):
    verbs = commands()
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M))
    for line in code(page).splitlines():
        for verb, rest in re.findall(r"\bepsbench ([a-z]+)\b([^#|]*)", line):
            assert verb in verbs, line
            assert set(re.findall(r"--[a-z-]+", rest)) <= verbs[verb], line
        for target in re.findall(r"\bmake (?:\w+=\S+ )?([a-z-]+)\b", line):
            assert target in targets, line


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


PATH = re.compile(r"(?:attacks|docs|harness|models|results|suites|tests)/[\w./-]+")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_in_the_docs_exist(page):
    made_by_a_run = re.compile(r"results/(?!README|reference)")
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for span in re.findall(r"`([^`\n]+)`", text):
        if PATH.fullmatch(span) and not made_by_a_run.match(span) and page != YOUR_CODE:
            assert (ROOT / span).exists(), span


def folders_shown() -> set[Path]:
    """The folders in the tree of docs/architecture.md, relative to the repository."""
    tree = next(block for block in blocks(ARCHITECTURE, "") if block.startswith("attacks/"))
    shown: list[Path] = []
    for line in tree.splitlines():
        indent, name = re.fullmatch(r"( *)([\w-]+)/ +\S.*", line).groups()
        above = [folder for folder in shown if len(folder.parts) == len(indent) // 2]
        shown.append((above[-1] if indent else Path()) / name)
    return set(shown)


def test_the_architecture_names_every_folder_of_the_package_and_no_other():
    assert {folder for folder in folders_shown() if not (ROOT / folder).is_dir()} == set()
    packages = {
        path.parent.relative_to(ROOT)
        for top in ("attacks", "harness", "models", "suites")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert packages - folders_shown() == set()
