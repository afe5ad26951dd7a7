"""What is found by trying may change the speed and never a verdict; what is refused is a finding."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from epsbench.attacks import FABT, Square
from epsbench.attacks.noise import Noise
from epsbench.attacks.pgd import PGD
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.judge import Judge, frozen_copy
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.machine.precision import has_units
from epsbench.harness.run.speed import accelerate as tuning
from epsbench.harness.run.speed.accelerate import Work, accelerate
from epsbench.harness.run.speed.batch_size import find_batch, find_forward_batch
from epsbench.harness.run.speed.chosen import Chosen
from epsbench.harness.run.speed.floor import Floor, Passes, Rates, measure_rates, uncounted_rates
from epsbench.harness.run.speed.prepare import prepare

CPU = torch.device("cpu")


@pytest.fixture
def targets(network, digits) -> Targets:
    x, y = digits
    with torch.no_grad():
        right = (network(x).argmax(1) == y).nonzero().flatten()[:150]
    return Targets(lambda at: x[right][at], y[right], right)


class Paced(nn.Module):
    """A network that takes a given time, by batch size, on a clock of the test's own."""

    def __init__(self, network: nn.Module, seconds: dict[int, float], most: int = 10**9) -> None:
        super().__init__()
        self.network, self.seconds, self.most, self.now = network, seconds, most, 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError("no room")
        self.now += self.seconds.get(len(x), len(x) * 1e-3)
        return self.network(x)


def paced(network, monkeypatch, seconds, most=10**9) -> Victim:
    net = Paced(network, seconds, most)
    for clock in ("perf_counter", "thread_time"):  # of several threads, and of one
        monkeypatch.setattr(tuning.time, clock, lambda: net.now)
    return Victim(net, CPU, "float32", "plain")


def test_the_batch_with_the_most_gradients_a_second_is_chosen(network, targets, monkeypatch):
    victim = paced(network, monkeypatch, {32: 1.0, 64: 1.2, 128: 1.3, 256: 3.0, 512: 6.0})
    assert find_batch(victim, targets, 10**6) == 128


def test_memory_bounds_the_batch(network, targets, monkeypatch):
    victim = paced(network, monkeypatch, {32: 1.0, 64: 1.1, 128: 1.2}, most=130)
    assert find_batch(victim, targets, 10**6) == 128
    assert find_batch(paced(network, monkeypatch, {}, most=16), targets, 10**6) == 16


def test_little_work_is_not_spent_on_trials(network, targets, monkeypatch):
    victim = paced(network, monkeypatch, {})
    assert find_batch(victim, targets, 100) == 100
    assert victim.backwards == 0
    find_batch(victim, targets, 20_000)
    assert victim.backwards <= 0.02 * 20_000


def test_attacks_without_gradients_have_a_batch_of_their_own(network, targets, monkeypatch):
    victim = paced(network, monkeypatch, {32: 1.0, 64: 1.2, 128: 1.3, 256: 1.4, 512: 5.0})
    assert find_forward_batch(victim, targets, 32, 10**6) == 256
    assert find_forward_batch(victim, targets, 32, 100) == 32  # too little work for a trial
    engine = Engine(victim, Judge(network, CPU), targets, 32, forward_batch=100)
    seen: list[int] = []
    scores = victim.scores
    monkeypatch.setattr(victim, "scores", lambda x: (seen.append(len(x)), scores(x))[1])
    list(engine.run(Square(steps=2), [Fraction(1, 100)], seed=0))
    assert seen[0] == 100
    list(engine.run(FABT(steps=1, targets=1), [Fraction(1, 100)], seed=0))  # looks, and takes gradients
    assert seen[-1] <= 32


def test_small_operations_count_for_the_batch(network, targets, monkeypatch):
    """A query that takes as long as the rest of a turn is asked for many rows at once, one that takes long is not."""
    quick = paced(network, monkeypatch, {size: size * 1e-5 for size in (32, 64, 128, 256, 512)})
    assert find_batch(quick, targets, 10**6) == 512
    slow = paced(network, monkeypatch, {size: size * 1e-3 for size in (32, 64, 128, 256, 512)})
    assert find_batch(slow, targets, 10**6) == 32
    between = paced(network, monkeypatch, {size: size * 4e-5 for size in (32, 64, 128, 256, 512)})
    assert find_batch(between, targets, 10**6) == 256
    assert find_forward_batch(between, targets, 32, 10**6) == 512  # the rest of such a turn takes twice as long


def test_the_floor_is_gradients_and_verdicts_at_their_bare_rates(network, targets):
    assert Rates(gradient=2.0, verdict=0.5, forward=0.25).floor(Passes(10, 4, 8)) == 24.0
    victim = Victim(frozen_copy(network, CPU), CPU, "float32", "plain")
    rates = measure_rates(victim, Judge(network, CPU), targets, 64)
    assert rates.gradient > rates.verdict > 0
    counts = victim.forwards, victim.backwards
    known = measure_rates(victim, Judge(network, CPU), targets, 64, gradient=128.0, forwards=False)
    assert (known.gradient, known.forward) == (2.0, None)
    assert (victim.forwards, victim.backwards) == counts  # what is known is not measured again


def test_a_floor_above_the_time_taken_is_measured_again(network, targets):
    slow, fast = Rates(gradient=3.0, verdict=0.0, forward=0.0), Rates(gradient=0.5, verdict=1.0, forward=1.0)
    floor = Floor(slow, lambda: fast)
    assert floor.share(Passes(10, 0), 40.0) == 0.75
    assert floor.rates is slow  # a share that is possible is kept
    assert floor.share(Passes(10, 0), 10.0) == 0.5
    assert (floor.rates.gradient, floor.rates.verdict) == (0.5, 0.0)
    unknown = Floor(Rates(gradient=1.0, verdict=1.0, forward=None), lambda: fast)
    assert unknown.share(Passes(10, 10), 40.0) == 0.5
    assert unknown.rates.forward is None  # no pass has asked for it
    assert unknown.share(Passes(10, 10, 5), 40.0) == 0.5
    assert (unknown.rates.gradient, unknown.rates.verdict, unknown.rates.forward) == (0.5, 1.0, 1.0)
    trials = []
    stuck = Floor(slow, lambda: trials.append(1) or slow)
    assert stuck.share(Passes(10, 0), 10.0) is None
    assert len(trials) == 3
    victim = Victim(frozen_copy(network, CPU), CPU, "float32", "plain")
    assert uncounted_rates(victim, Judge(network, CPU), targets, 64).gradient > 0
    assert (victim.forwards, victim.backwards) == (0, 0)


def test_short_work_pays_no_compilation(network, targets, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda *args, **options: pytest.fail("compiled"))
    victim = prepare(network, CPU, "float32", targets.pixels(torch.arange(8)), targets.labels[:8])
    accelerate(victim, targets, 64, Work(10_000), "auto")
    accelerate(victim, targets, 64, Work(10**12), "off")
    assert victim.compile_seconds == 0


def test_a_model_that_refuses_compilation_is_attacked_uncompiled(network, targets, monkeypatch):
    def refuses(*args, **options):
        raise RuntimeError("planted: cannot trace")

    monkeypatch.setattr(torch, "compile", refuses)
    victim = prepare(network, CPU, "float32", targets.pixels(torch.arange(8)), targets.labels[:8])
    accelerate(victim, targets, 64, Work(10), "on")
    assert [finding.code for finding in victim.findings] == ["not-compiled"]
    assert "planted" in victim.findings[0].message
    assert victim.fixed is None


def test_a_compiled_model_that_computes_something_else_is_not_used(network, targets, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda net, **options: lambda x: -net(x))
    victim = prepare(network, CPU, "float32", targets.pixels(torch.arange(8)), targets.labels[:8])
    accelerate(victim, targets, 64, Work(10), "on")
    assert [finding.code for finding in victim.findings] == ["not-compiled"]
    assert victim.fixed is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Dynamo's own imports warn
def test_compiled_verdicts_equal_eager_ones(network, targets):
    eps = [Fraction(1, 20), Fraction(1, 10)]
    actual = []
    for wanted in ("off", "on"):
        victim = prepare(network, CPU, "float32", targets.pixels(torch.arange(8)), targets.labels[:8])
        accelerate(victim, targets, 64, Work(10), wanted)
        assert not victim.findings
        assert (victim.compile_seconds > 0) is (wanted == "on")
        outcomes = Engine(victim, Judge(network, CPU), targets, 64).run(PGD(steps=6), eps, seed=0)
        actual.append(np.stack([outcome.fooled for outcome in outcomes]))
    np.testing.assert_array_equal(actual[0], actual[1])


def test_long_work_on_a_cpu_makes_a_program_of_the_step_and_keeps_every_verdict(network, targets, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda *args, **options: pytest.fail("compiled"))
    monkeypatch.setattr(tuning, "_faster", lambda *args: True)
    eps = [Fraction(1, 20), Fraction(1, 10)]
    actual = []
    low = [("auto", "bf16")] if has_units(CPU, "bf16") else []  # without them oneDNN packs no weights in bf16
    for wanted, precision in (("off", "float32"), ("auto", "float32"), *low):
        victim = prepare(network, CPU, precision, targets.pixels(torch.arange(8)), targets.labels[:8])
        accelerate(victim, targets, 64, Work(10**9), wanted)
        assert not victim.findings
        assert (victim.program is not None) is (wanted == "auto")
        assert victim.form == "folded, channels-last" + (", program" if wanted == "auto" else "")
        assert (victim.compile_seconds > 0) is (wanted == "auto")
        for batch in (1, 33, 64):
            outcomes = list(Engine(victim, Judge(network, CPU), targets, batch).run(PGD(steps=6), eps, seed=0))
            actual.append(np.stack([outcome.fooled for outcome in outcomes]))
    for other in actual[1:6]:
        np.testing.assert_array_equal(other, actual[0])
    for low in actual[6:]:
        assert abs(low.mean() - actual[0].mean()) < 0.02


@pytest.mark.parametrize("faster", [False, True])
def test_logits_in_the_librarys_own_layout_keep_every_verdict_and_are_handed_on(targets, monkeypatch, faster):
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(64, 10),
    )  # fmt: skip
    x = targets.pixels(torch.arange(60))
    with torch.no_grad():
        known = Targets(lambda at: x[at], network(x).argmax(1), torch.arange(60))
    judge, fooled = Judge(network, CPU), []
    choices: list[Chosen] = []
    for wanted in ("off", "auto", "handed on"):
        victim = prepare(network, CPU, "float32", x[:8], known.labels[:8])
        # Every program but the one in the library's own layout is slower, or that one is, too.
        monkeypatch.setattr(tuning, "_faster", lambda new, old, victim: faster or victim.forward_program is None)
        if wanted == "handed on":
            choices[-1].apply(victim, judge, known)
        else:
            accelerate(victim, known, 64, Work(0, 10**9, ()), wanted)
            choices.append(Chosen.of(victim, judge, 64))
        # torch 2.11 warns while it compiles a function with a gradient of its own, and warnings are errors here.
        assert {finding.code for finding in victim.findings} <= {"not-compiled"}
        assert getattr(victim.forward_program, "own_layouts", False) is (faster and wanted != "off")
        (outcome,) = Engine(victim, judge, known, 64).run(Square(steps=40), [Fraction(1, 20)], seed=0)
        fooled.append(outcome.fooled)
    assert 0 < fooled[0].mean() < 1
    np.testing.assert_array_equal(fooled[1], fooled[0])
    np.testing.assert_array_equal(fooled[2], fooled[0])


class Around(nn.Module):
    """Changes what another network computes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network


class StraightThrough(Around):
    """Rounds its pixels, and lets gradients pass as if it had not: a graph of the forward pass cannot know."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            error = (16 * x).round() / 16 - x
        return self.network(x + error)


def test_a_program_that_is_no_faster_is_not_used(network, targets, monkeypatch):
    monkeypatch.setattr(tuning, "_faster", lambda *args: False)
    victim = prepare(network, CPU, "float32", targets.pixels(torch.arange(8)), targets.labels[:8])
    seconds = accelerate(victim, targets, 64, Work(10**9), "auto")
    assert (victim.program, victim.form, victim.findings) == (None, "folded, channels-last", [])
    assert seconds > 0  # what was timed is what attacks ask
    monkeypatch.setattr(tuning, "_faster", lambda *args: True)
    assert accelerate(victim, targets, 64, Work(10**9), "auto") is None
    assert victim.program is not None


class Strides(nn.Module):
    """Raises once its features are channels-last, as code does that reads memory itself."""

    def __init__(self, network: nn.Sequential) -> None:
        super().__init__()
        self.features, self.head = network[:-2], network[-1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.ops.aten.view(self.features(x), [-1, self.head.in_features]))


class Branches(Around):
    """Data-dependent control flow: torch.fx cannot trace it, so its batch norm cannot be folded."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x) if x.sum() > -1 else x


@pytest.mark.parametrize(("wrap", "reason"), [(StraightThrough, "something else"), (Branches, "no program")])
def test_a_model_that_is_more_than_its_graph_is_attacked_without_a_program(network, targets, monkeypatch, wrap, reason):
    monkeypatch.setattr(tuning, "_faster", lambda *args: True)
    model = wrap(network).eval()
    victim = prepare(model, CPU, "float32", targets.pixels(torch.arange(8)), targets.labels[:8])
    victim.findings.clear()
    accelerate(victim, targets, 64, Work(10**9), "auto")
    assert [finding.code for finding in victim.findings] == ["not-traced"]
    assert reason in victim.findings[0].message
    assert victim.program is None
    (actual,) = Engine(victim, Judge(model, CPU), targets, 64).run(PGD(steps=5), [Fraction(1, 10)], seed=0)
    plain = Victim(frozen_copy(model, CPU), CPU, "float32", "plain")
    (expected,) = Engine(plain, Judge(model, CPU), targets, 64).run(PGD(steps=5), [Fraction(1, 10)], seed=0)
    np.testing.assert_array_equal(actual.fooled, expected.fooled)


class OnlyFloat32(Around):
    """Raises when an activation is of low precision."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.network(x)
        if logits.dtype != torch.float32:
            raise RuntimeError("planted: no bf16 here")
        return logits


@pytest.mark.parametrize(
    ("wrap", "precision", "code", "form"),
    [
        (Strides, "float32", "not-prepared", "plain"),
        (Branches, "float32", "not-folded", "channels-last"),
        (OnlyFloat32, "bf16", "not-mixed", "channels-last"),
    ],
)
def test_a_model_that_refuses_a_faster_form_takes_a_plainer_one(network, targets, wrap, precision, code, form):
    model = wrap(network).eval()
    victim = prepare(model, CPU, precision, targets.pixels(torch.arange(8)), targets.labels[:8])
    assert code in {finding.code for finding in victim.findings}
    assert all(finding.severity == "warning" for finding in victim.findings)
    assert (victim.form, victim.precision) == (form, "float32")
    eps = [Fraction(1, 10)]
    (actual,) = Engine(victim, Judge(model, CPU), targets, 64).run(PGD(steps=5), eps, seed=0)
    plain = Victim(frozen_copy(network, CPU), CPU, "float32", "plain")
    (expected,) = Engine(plain, Judge(network, CPU), targets, 64).run(PGD(steps=5), eps, seed=0)
    np.testing.assert_array_equal(actual.fooled, expected.fooled)


class Argmax(nn.Module):
    """Not differentiable: one-hot of the argmax."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(x.flatten(1).argmax(1) % 10, 10).float()


def test_a_model_without_a_gradient_raises_rather_than_looks_robust(targets):
    victim = prepare(Argmax(), CPU, "bf16", targets.pixels(torch.arange(8)), targets.labels[:8])
    assert [finding.code for finding in victim.findings] == ["not-differentiable"]
    assert (victim.form, victim.precision) == ("plain", "float32")
    accelerate(victim, targets, 64, Work(10**12), "on")
    assert find_batch(victim, targets, 10**6) > 0
    with pytest.raises(RuntimeError, match="grad"):
        list(Engine(victim, Judge(Argmax(), CPU), targets, 64).run(PGD(steps=2), [Fraction(1, 10)], seed=0))
    (noise,) = Engine(victim, Judge(Argmax(), CPU), targets, 64).run(Noise(), [Fraction(1, 10)], seed=0)
    assert noise.attacked.all()


class Confident(Around):
    """Logits so far apart that the loss's gradient is what rounding left of it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 4 * self.network(x)


def test_a_confident_model_is_not_taken_for_another_one(network, targets):
    model = Confident(network)
    victim = prepare(model, CPU, "float32", targets.pixels(torch.arange(64)), targets.labels[:64])
    assert victim.form == "folded, channels-last"
    assert not victim.findings
