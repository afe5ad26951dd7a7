"""Names become objects, and what is no name becomes a message."""

from __future__ import annotations

import re
from fractions import Fraction
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from epsbench.attacks.norms import NORMS
from epsbench.attacks.pgd import PGD
from epsbench.harness.errors import InputError
from epsbench.harness.plan.names import kinds, loading, registry
from epsbench.harness.plan.names.hubs import model_names
from epsbench.harness.plan.names.kinds import KINDS, known_names
from epsbench.harness.plan.names.registry import make, name_with_parameters

HERE = Path()
STEP = '''
from dataclasses import dataclass
from epsbench.attacks.base import GradientAttack

@dataclass(frozen=True, kw_only=True)
class Step(GradientAttack):
    """Half a step."""
    share: float = 0.5

    def update(self, x_adv, gradient, eps, step):
        return x_adv + self.share * eps * self.norm.direction(gradient)

class Other:
    pass

def net(width=8, num_classes=10):
    return None
'''


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in KINDS[kind].built_in])
def test_every_built_in_is_made_from_its_defaults(kind, name):
    given = {"parts": ["pgd"]} if name == "ensemble" else {"path": "x"} if kind == "data" else {}  # without a default
    entry = {"name": name, **given}
    assert make(kind, name_with_parameters(kind, entry, HERE), HERE) is not None


def test_parameters_are_filled_in_and_given_to_the_object():
    named = name_with_parameters("attack", {"name": "pgd", "steps": 40, "relative_step_size": 1}, HERE)
    assert named.as_dict() == {
        "name": "pgd", "random_start": False, "relative_step_size": 1.0, "restarts": 1, "steps": 40,
    }  # fmt: skip
    assert named.label() == "pgd(relative_step_size=1.0, steps=40)"
    assert make("attack", named, HERE, norm="l2") == PGD(steps=40, relative_step_size=1.0, norm=NORMS["l2"])


def test_a_parameter_that_is_an_epsilon_is_exact():
    named = name_with_parameters("defense", {"name": "pgd-batch", "eps": "16/510"}, HERE)
    assert dict(named.params)["eps"] == "8/255"
    assert make("defense", named, HERE).eps == Fraction(8, 255)
    assert named == name_with_parameters("defense", "pgd-batch", HERE)


@pytest.mark.parametrize(
    ("kind", "entry", "message"),
    [
        ("attack", "pdg", "unknown attack 'pdg'; did you mean 'pgd'?"),
        ("attack", "pgd:steps=5,loss=dlr,rate=2/9", '{ name = "pgd", steps = 5, loss = "dlr", rate = "2/9" }'),
        ("defense", "fgsm_loss", "did you mean 'fgsm-loss'?"),
        ("model", "resnet-18", "did you mean 'resnet18'?"),
        ("model", "zzz", "known: autoencoder, residual-vae, resnet18, smallcnn, vae, timm:NAME, torchvision:NAME"),
        ("model", "timm:resnet_18", "timm has no model 'resnet_18'; did you mean"),
        ("model", "torchvision:resnet19", "torchvision has no model 'resnet19'; did you mean"),
        ("model", "timm:", "needs a name after the colon"),
        ("attack", {"name": "pgd", "step": 1}, "unknown parameter 'step'; did you mean 'steps'?"),
        ("attack", {"name": "noise", "steps": 1}, "unknown parameter 'steps'; it takes none"),
        ("attack", {"name": "pgd", "norm": "l2"}, "unknown parameter 'norm'"),
        ("attack", {"name": "pgd", "steps": "4"}, "steps: must be an integer, not '4'"),
        ("attack", {"name": "pgd", "steps": 4.0}, "steps: must be an integer, not 4.0"),
        ("attack", {"name": "pgd", "steps": True}, "steps: must be an integer, not True"),
        ("attack", {"name": "pgd", "random_start": 1}, "random_start: must be true or false, not 1"),
        ("attack", {"name": "pgd", "steps": 0}, "steps must be at least 1"),
        ("defense", {"name": "pgd-batch", "eps": "1/0"}, "eps: ε '1/0' divides by zero"),
        ("defense", {"name": "fgsm-loss", "alpha": 2}, "alpha is a weight between 0 and 1"),
        ("attack", {"steps": 4}, "must be a name or a table"),
        ("attack", "os:getcwd", "must be a class derived from epsbench.attacks.base.Attack"),
        ("attack", "os:path", "cannot be called"),
        ("attack", "os:nothing_there", "os has no 'nothing_there'"),
        ("attack", "not_installed_anywhere:X", "cannot import 'not_installed_anywhere'"),
        ("attack", "gone.py:X", "gone.py cannot be read"),
        ("attack", "..:X", "cannot import"),
        ("model", "file:gone.pt", "architecture is missing"),
    ],
)
def test_what_cannot_be_named_is_reported(kind, entry, message):
    with pytest.raises(InputError, match=re.escape(message)):
        name_with_parameters(kind, entry, HERE)


def test_every_problem_of_an_entry_is_reported_at_once():
    with pytest.raises(InputError) as raised:
        name_with_parameters("attack", {"name": "pgd", "steps": "4", "stats": 1}, HERE)
    assert len(raised.value.messages) == 2


def test_a_module_that_is_loaded_is_not_imported_again(monkeypatch):
    """A suite of many cells asks for the same few modules hundreds of times, and keeping global settings is slow."""
    first = loading.load_object("epsbench.attacks.pgd:PGD", HERE)
    monkeypatch.setattr(loading, "importing", None)
    assert loading.load_object("epsbench.attacks.pgd:PGD", HERE) is first


def test_an_attack_in_a_file_beside_the_suite(tmp_path):
    (tmp_path / "mine.py").write_text(STEP)
    named = name_with_parameters("attack", {"name": "mine.py:Step", "share": 1}, tmp_path)
    assert make("attack", named, tmp_path, norm="linf").share == 1.0
    with pytest.raises(InputError, match="must be a class derived"):
        name_with_parameters("attack", "mine.py:Other", tmp_path)
    with pytest.raises(InputError, match="has no 'Stop'; did you mean 'Step'"):
        name_with_parameters("attack", "mine.py:Stop", tmp_path)


@pytest.mark.parametrize("source", ["def (", "import not_installed_anywhere", "nothing", "1 / 0"])
def test_a_file_that_does_not_import(tmp_path, source):
    (tmp_path / "mine.py").write_text(source)
    with pytest.raises(InputError, match=r"mine\.py does not import"):
        name_with_parameters("attack", "mine.py:Step", tmp_path)


def test_any_callable_is_a_model(tmp_path):
    (tmp_path / "mine.py").write_text(STEP)
    named = name_with_parameters("model", {"name": "mine.py:net", "width": 4}, tmp_path)
    assert named.as_dict() == {"name": "mine.py:net", "width": 4}
    assert make("model", named, tmp_path).params == (("width", 4),)


def test_an_installed_package_adds_names(monkeypatch):
    point = EntryPoint("their-pgd", "epsbench.attacks.pgd:PGD", "epsbench.attacks")
    for module in (registry, kinds):
        monkeypatch.setattr(module, "entry_points_of", lambda group: {"their-pgd": point} if "attacks" in group else {})
    assert known_names("attack")[-1] == "their-pgd"
    assert isinstance(make("attack", name_with_parameters("attack", "their-pgd", HERE), HERE), PGD)


def test_the_names_read_from_source_are_those_the_libraries_tell():
    import timm
    import torchvision

    assert set(timm.list_models()) <= model_names("timm")
    assert set(torchvision.models.list_models(module=torchvision.models)) == model_names("torchvision")


@pytest.mark.parametrize(("name", "file"), [("nets.tiny:net", "nets/tiny.py"), ("models.tiny:net", "models/tiny.py")])
def test_a_module_that_is_a_file_here_is_named_as_a_file(tmp_path, name, file):
    """Many repositories keep their networks in a folder ``models``, which is not epsbench's."""
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).write_text("net = None")
    with pytest.raises(InputError, match=re.escape(f"give {file}:net")) as raised:
        name_with_parameters("model", name, tmp_path)
    assert "epsbench.models" not in str(raised.value)


def test_the_radius_of_a_defense_goes_by_its_norm():
    """Under L2 a ball may be wider than the range of one pixel."""
    named = name_with_parameters("defense", {"name": "pgd-replace", "norm": "l2", "eps": 2}, Path())
    assert make("defense", named, Path()).eps == 2
    for table in ({"name": "pgd-replace", "eps": 2}, {"name": "n-fgsm", "eps": "8"}):
        with pytest.raises(InputError, match=r"between 0 and 1, not 2|ε must not be above 1"):
            make("defense", name_with_parameters("defense", table, Path()), Path())
