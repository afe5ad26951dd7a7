"""Small networks for digits, honest and broken, and a bench that measures cells of a given network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from small import RECIPE
from torch import Tensor, nn
from torch.nn import functional as F

from epsbench.harness.plan.data import DATASETS
from epsbench.harness.plan.plan import plan
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.records import Record
from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.audits.probe import Probe
from epsbench.harness.run.context import Context
from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.data.load import load_data
from epsbench.harness.run.robustness.job import Bench
from epsbench.harness.run.training.classifier import train_classifier
from epsbench.harness.run.training.seeding import seeded
from epsbench.harness.run.training.settings import Method, Settings
from epsbench.models.catalogue import ResNet18, SmallCNN
from epsbench.models.defenses import Defense, FGSMLoss, NoDefense, PGDBatch
from epsbench.models.layers import Normalise

CPU = torch.device("cpu")
DIGITS = DATASETS["digits"]
SHAPE = DIGITS.shape

SUITE = """
[robustness]
data = "digits"
precision = "{precision}"
[robustness.training]
epochs = 0
[robustness.matrix]
model = "smallcnn"
attack = [{attacks}]
norm = "{norm}"
eps = {eps}
"""
ATTACKS = (
    '"noise"', '"fgsm"', '"pgd"', '{ name = "pgd", steps = 12, random_start = true, restarts = 2 }', '"mi-fgsm"',
)  # fmt: skip


def digits(limit: int = 300) -> Data:
    """The data set, at most ``limit`` examples of a split (all for training)."""
    data = load_data("digits", None, CPU)
    return Data(data.description, data.train, data.validation, load_data("digits", None, CPU, limit).test)


def measure(
    network: nn.Module,
    folder: Path,
    attacks: Sequence[str] = ATTACKS,
    eps: Sequence[float] = (0.1, 0.3),
    norm: str = "linf",
    precision: str = "float32",
    data: Data | None = None,
    weights: str | None = None,
    profile: bool = False,
) -> list[Record]:
    """Records of a network under attacks, as a run makes them; its weights are taken as they are."""
    text = SUITE.format(precision=precision, attacks=", ".join(attacks), norm=norm, eps=list(eps))
    (folder / "audit.toml").write_text(text, encoding="utf-8")
    suite = load_suite(str(folder / "audit.toml"))
    (job,) = plan(suite, folder / "results").jobs
    context = Context(
        results=folder / "results",
        weights=folder,
        device=CPU,
        suite="audit",
        base=folder,
        compile="off",
        boards=False,
        profile=profile,
    )
    training = {"weights_sha256": weights} if weights else {}
    bench = Bench(network, job.streams, data or digits(), context, training)
    return [record for stream in job.streams for record in bench.stream(stream)]


def probe_of(network: nn.Module, images: int = 48) -> Probe:
    """The first test images, judged by the network."""
    test = digits().test
    return Probe(Judge(network.eval(), CPU), test.pixels(slice(0, images)), test.labels[:images], 64)


def codes(records: Sequence[Record]) -> set[str]:
    """Every code of a finding of any of the records."""
    return {finding.code for record in records for finding in record.findings}


def trained(
    build: Callable[[], nn.Module], defense: Defense | None = None, epochs: int = 4, learning_rate: float = 3e-3
) -> nn.Module:
    """A network trained on the digits' training split with the harness's own loop, seed 0."""
    network = seeded(build, 0)
    method = Method(defense or NoDefense(), "none", RECIPE | {"epochs": epochs, "learning_rate": learning_rate})
    train_classifier(network, digits(), method, Settings(seed=0, precision="float32"))
    return network.eval()


def mlp(activation: type[nn.Module], width: int = 64) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, width), activation(), nn.Linear(width, width), activation(), nn.Linear(width, 10)
    )


def cnn(normal: Callable[[int], nn.Module], pool: nn.Module, activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    return nn.Sequential(
        Normalise(DIGITS.mean, DIGITS.std),
        nn.Conv2d(1, 16, 3, padding=1), normal(16), activation(), pool,
        nn.Conv2d(16, 32, 3, padding=1), normal(32), activation(), nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip


class Attention(nn.Module):
    """Rows of pixels as tokens, one layer of attention with layer norm and dropout, as in a vision transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 32)
        self.place = nn.Parameter(torch.randn(8, 32) * 0.1)
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True, activation="gelu")
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(x[:, 0]) + self.place).mean(1))


class Upsampled(nn.Module):
    """Resizes its input, as networks for larger images do here."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2),
                                    nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10))  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(F.interpolate(x * 2 - 1, (16, 16), mode="bilinear", align_corners=False))


# Honest models: how each is made.
HONEST: dict[str, Callable[[], nn.Module]] = {
    "smallcnn": lambda: trained(lambda: SmallCNN().build(DIGITS)),
    "smallcnn, untrained": lambda: seeded(lambda: SmallCNN().build(DIGITS), 0).eval(),
    "resnet18": lambda: trained(lambda: ResNet18(width=4).build(DIGITS), epochs=2),
    "resnet18, untrained": lambda: seeded(lambda: ResNet18(width=4).build(DIGITS), 0).eval(),
    "linear": lambda: trained(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), epochs=10),
    "mlp": lambda: trained(lambda: mlp(nn.ReLU), epochs=6),
    "mlp, tanh": lambda: trained(lambda: mlp(nn.Tanh), epochs=6),
    "mlp, sigmoid": lambda: trained(lambda: mlp(nn.Sigmoid), epochs=12),
    "mlp, confident": lambda: trained(lambda: mlp(nn.ReLU, 128), epochs=40, learning_rate=1e-2),
    "batch norm, max-pool": lambda: trained(lambda: cnn(nn.BatchNorm2d, nn.MaxPool2d(2))),
    "group norm, average pool": lambda: trained(lambda: cnn(lambda n: nn.GroupNorm(4, n), nn.AvgPool2d(2), nn.GELU)),
    "instance norm": lambda: trained(lambda: cnn(nn.InstanceNorm2d, nn.AvgPool2d(2), nn.SiLU)),
    "attention": lambda: trained(Attention, epochs=12),
    "upsampled": lambda: trained(Upsampled, epochs=8),
    "fgsm loss": lambda: trained(lambda: SmallCNN().build(DIGITS), FGSMLoss(eps=0.1), epochs=6),
    "pgd batch": lambda: trained(lambda: SmallCNN().build(DIGITS), PGDBatch(eps=0.2, steps=4), epochs=8),
}
