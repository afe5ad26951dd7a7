"""Training of classifiers in a compiled form: the same numbers, or the usual form."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from small import RECIPE, flat
from torch import nn

from epsbench.attacks.pgd import PGD
from epsbench.harness.options import Options
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.records import read_records
from epsbench.harness.run.runner import run_suite
from epsbench.harness.run.speed.compiling import compiled
from epsbench.harness.run.training import step_form as forms
from epsbench.harness.run.training.checkpoint import Checkpoint
from epsbench.harness.run.training.classifier import train_classifier
from epsbench.harness.run.training.seeding import seeded
from epsbench.harness.run.training.settings import Hooks, Method, Settings
from epsbench.harness.run.training.trainee import ClassifierInTraining, mirror
from epsbench.models.defenses import NFGSM, TRADES, NoDefense, PGDReplace

LIMIT = 100
SGD = RECIPE | {
    "batch_size": 32, "optimizer": "sgd", "learning_rate": 5e-2, "schedule": "constant"
}  # fmt: skip


class Small(nn.Sequential):
    """With batch statistics: what only looks for images must not move them."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 10)
        )  # fmt: skip


@pytest.fixture
def batch(data):
    return data.train.pixels(slice(0, 32)), data.train.labels[:32]


@pytest.fixture
def uncompiled(monkeypatch):
    """What torch.compile was asked for; it gives back what it got."""
    asked = []
    monkeypatch.setattr(torch, "compile", lambda one, **options: asked.append(one) or one)
    return asked


def refuse(*args, **options):
    raise RuntimeError("no graph of this")


def small():
    return seeded(Small, 0)


def train(data, network, compile, defense=PGDReplace(Fraction(1, 10), steps=2), hooks=Hooks(), **options):  # noqa: B008
    settings = Settings(seed=0, precision="float32", compile=compile, **options)
    return train_classifier(network, data, Method(defense, "none", SGD), settings, hooks)


def test_a_mirror_shows_the_network_as_it_stands(batch):
    x, _ = batch
    network = small().train()
    shown = mirror(network)
    network(x)  # moves the batch statistics
    with torch.no_grad():
        network[4].weight.mul_(2)
    torch.testing.assert_close(shown(x), network.eval()(x), rtol=0, atol=0)
    assert not any(weight.requires_grad for weight in shown.parameters())
    assert all(weight.requires_grad for weight in network.parameters())


def test_a_mirror_follows_a_buffer_that_is_replaced(batch, uncompiled):
    x, _ = batch
    network = small()
    trainee = ClassifierInTraining(network, torch.Generator(), "float32")
    trainee.compile()
    network[1].running_mean = torch.full((4,), 0.5)
    torch.testing.assert_close(trainee.predict(x), network.eval()(x), rtol=0, atol=0)


def test_both_compiled_passes_say_what_the_network_says(batch):
    x, y = batch
    usual, quick = (ClassifierInTraining(small(), torch.Generator().manual_seed(0), "float32") for _ in range(2))
    quick.compile()
    attack = PGD(steps=3, random_start=True)
    for _ in range(2):  # the second time on moved batch statistics
        losses = [trainee.loss(trainee.attack(attack, x, y, 0.1), y) for trainee in (usual, quick)]
        torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-5)
        for loss in losses:
            loss.backward()
    gradients = [trainee.network[0].weight.grad for trainee in (usual, quick)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(quick.predict(x), usual.predict(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        *(trainee.gradient(x, lambda logits: logits.square().sum()) for trainee in (quick, usual)), rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(*(flat(trainee.network) for trainee in (quick, usual)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "defense", [NoDefense(), PGDReplace(Fraction(1, 10), steps=2), NFGSM(), TRADES(steps=2)], ids=repr
)
def test_finding_the_form_leaves_no_trace(data, defense, uncompiled):
    """Not in batch statistics, and not in the random numbers of dropout."""
    usual, tried = (nn.Sequential(small(), nn.Dropout(0.3)) for _ in range(2))
    first, second = (train(data, one, how, defense) for one, how in ((usual, "off"), (tried, "on")))
    assert (first.form.compiled, second.form.compiled) == (False, True)
    assert len(uncompiled) > 0
    assert torch.equal(flat(usual), flat(tried))
    assert first.curves == second.curves


def test_a_cpu_compiles_on_demand_alone(data, uncompiled, monkeypatch):
    monkeypatch.setattr(forms, "SHORT_SECONDS", 0.0)
    monkeypatch.setattr(forms, "EXPECTED_COMPILE_SECONDS", {"cpu": -1.0})
    assert train(data, small(), "auto").form.compiled is False
    assert not uncompiled


def test_a_network_that_cannot_be_compiled_trains_as_it_is(data, monkeypatch):
    usual, refused = small(), small()
    train(data, usual, "off")
    monkeypatch.setattr(torch, "compile", refuse)
    form = train(data, refused, "on").form
    assert (form.compiled, form.refused) == (False, ["torch.compile: no graph of this"])
    assert torch.equal(flat(usual), flat(refused))


@pytest.mark.parametrize(("then", "compiled"), [("on", True), ("auto", True), ("off", False)])
def test_a_training_goes_on_in_its_form(data, tmp_path, uncompiled, then, compiled):
    class Stopped(Exception):  # noqa: N818
        pass

    def stop(epoch, values):
        if epoch == 2:
            raise Stopped

    whole, parts = small(), small()
    train(data, whole, "off")
    with pytest.raises(Stopped):
        train(data, parts, "on", checkpoint=Checkpoint(tmp_path / "c", every=0), hooks=Hooks(on_epoch=stop))
    uncompiled.clear()
    parts = small()
    training = train(data, parts, then, checkpoint=Checkpoint(tmp_path / "c", every=0))
    assert (training.resumed, training.form.compiled) == (1, compiled)
    assert bool(uncompiled) is compiled
    assert torch.equal(flat(whole), flat(parts))


@pytest.mark.parametrize("task", ["robustness", "generation"])
def test_the_record_says_what_was_refused(tmp_path, monkeypatch, task):
    axes = {"robustness": 'model = "smallcnn"\nattack = "fgsm"\neps = 0.1', "generation": "z_dim = 2"}
    small = "[generation.evaluation]\nimportance_samples = 0\nprior_samples = 0\ngenerated = 0\ngradient_samples = 0\n"
    text = f'[{task}]\ndata = "digits"\ntraining = {{ epochs = 1 }}\n[{task}.matrix]\n{axes[task]}\n'
    (tmp_path / "s.toml").write_text(text + small * (task == "generation"), encoding="utf-8")
    monkeypatch.setattr(torch, "compile", refuse)
    options = Options(quiet=True, device="cpu", compile="on")
    run_suite(load_suite(str(tmp_path / "s.toml"), limit=60), tmp_path / "out", options)
    (record,) = read_records(tmp_path / "out")
    assert record.training["refused"] == ["torch.compile: no graph of this"]


def test_a_checkpoint_of_before_there_were_forms_goes_on(data, tmp_path):
    checkpoint = Checkpoint(tmp_path / "c", every=0)
    train(data, small(), "off", checkpoint=checkpoint)
    kept = checkpoint.restore()
    del kept["form"]
    checkpoint.save(kept)
    assert str(train(data, small(), "auto", checkpoint=checkpoint).form) == "channels-last, sub-pixel gradients"


def test_many_networks_of_one_kind_are_all_compiled(monkeypatch):
    """Dynamo gives up on a function after eight forms of it, and says nothing."""
    graphs = []

    def backend(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda one, dynamic: compile(one, dynamic=dynamic, backend=backend))

    class Wide(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.layer = nn.Linear(width, 2)

        def forward(self, x):
            return self.layer(x)

    for width in range(1, 13):
        compiled(Wide(width))(torch.zeros(3, width))
        assert len(graphs) == width
