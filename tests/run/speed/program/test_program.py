"""Programs against the networks they were traced from: the same logits and gradients, whatever the number of images."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn
from torch.nn import functional as F

from epsbench.harness.plan.data import DATASETS
from epsbench.harness.run.attack.gradient import input_gradient
from epsbench.harness.run.machine.precision import autocast
from epsbench.harness.run.speed.convolutions import subpixel
from epsbench.harness.run.speed.program import UNTRACEABLE
from epsbench.harness.run.speed.program.program import ForwardProgram, Program
from epsbench.harness.run.speed.program.tracing import aten, fold_constants, trace
from epsbench.models.catalogue import ResNet18, SmallCNN
from epsbench.models.layers import Normalise
from tests.run.speed.units import BF16, units_for_bf16

CPU = torch.device("cpu")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


class Residual(nn.Module):
    """Sums, a strided and a grouped convolution, pooling, and features that are flattened with positions left."""

    def __init__(self) -> None:
        super().__init__()
        self.normalise = Normalise(MEAN, STD)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.inner = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.down = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.short = nn.Conv2d(8, 12, 1, stride=2)
        self.head = nn.Linear(12 * 9, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(self.normalise(x)))
        x = F.relu(self.inner(x) + x)
        x = F.relu(self.down(x) + self.short(x), inplace=True)
        return self.head(F.max_pool2d(x, 2).flatten(1))


class Attention(nn.Module):
    """Patches, a layer norm, attention over positions and a GELU: nothing there is to be rewritten but the patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.norm = nn.LayerNorm(16)
        self.mixing = nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(self.patches(x).flatten(2).transpose(1, 2))
        mixed, _ = self.mixing(tokens, tokens, tokens, need_weights=False)
        return self.head(F.gelu(tokens + mixed).mean(1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "smallcnn": lambda: SmallCNN(width=4, hidden=20).build(DATASETS["cifar10"]),
    "resnet": lambda: ResNet18(width=4).build(DATASETS["cifar10"]),
    "residual": Residual,
    "attention": Attention,
    "transposed": lambda: nn.Sequential(
        nn.ConvTranspose2d(3, 4, 2, stride=2), nn.ReLU(), nn.Conv2d(4, 6, 3, dilation=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10),
    ),
    "no convolution": lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 20), nn.Tanh(), nn.Linear(20, 10)),
}  # fmt: skip


def network_of(name: str) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[name]().eval().requires_grad_(False).to(memory_format=torch.channels_last)


def images(n: int, size: int = 12, channels: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    x = torch.rand(n, channels, size, size, generator=generator).contiguous(memory_format=torch.channels_last)
    return x, torch.randint(0, 10, (n,), generator=generator)


def size_of(name: str) -> int:
    return 32 if name in ("smallcnn", "resnet") else 12


def operations(program: Program) -> list[object]:
    return [node.target for node in program.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_program_computes_what_its_network_does_for_any_number_of_images(name):
    network, size = network_of(name), size_of(name)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    program = Program(network, *images(5, size))
    for n in (2, 3, 5, 12, 32, 41):
        x, y = images(n, size)
        gradient, logits = input_gradient(network, x, y)
        actual = program(x, y)
        assert not any(tensor.requires_grad for tensor in actual)
        torch.testing.assert_close(actual[1], logits, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(actual[0], gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max()))
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])


@units_for_bf16
@pytest.mark.parametrize("name", NETWORKS)
def test_in_bf16_a_program_is_as_near_to_float32_as_its_network(name):
    network, size = network_of(name), size_of(name)

    def low(x: Tensor) -> Tensor:
        with autocast(CPU, "bf16"):
            return network(x).float()

    program = Program(low, *images(5, size))
    x, y = images(64, size)
    expected, bare, actual = input_gradient(network, x, y)[0], input_gradient(low, x, y)[0], program(x, y)[0]
    assert actual.dtype == torch.float32
    assert (actual - expected).norm() <= 1.25 * (bare - expected).norm() + 1e-3 * expected.norm()


def test_the_normalisations_scale_and_every_copy_of_flattened_features_are_gone():
    program = Program(network_of("smallcnn"), *images(5, 32))
    done = operations(program)
    assert aten.div.Tensor not in done
    assert aten.convolution.default not in done
    # What is left of copies interleaves the two sub-pixel gradients.
    assert done.count(aten.clone.default) == 2


def test_convolutions_take_up_their_relus_and_sums():
    done = operations(Program(network_of("residual"), *images(5)))
    packed, summed = (torch.ops.mkldnn._convolution_pointwise.default, torch.ops.mkldnn._convolution_pointwise.binary)
    assert done.count(aten.relu.default) == done.count(aten.convolution_backward.default) - 1 == 1, "the grouped one's"
    assert (done.count(summed), done.count(packed)) == (1, 5)


def test_a_strided_convolution_of_few_channels_goes_back_by_a_convolution_without_stride():
    network = nn.Sequential(nn.Conv2d(3, 8, 4, stride=2, padding=1), nn.Flatten(), nn.Linear(8 * 36, 10))
    done = operations(Program(network.requires_grad_(False), *images(5)))
    assert aten.convolution_backward.default not in done


@settings(max_examples=10)
@given(
    channels=st.integers(1, 4), groups=st.booleans(), kernel=st.integers(1, 4), stride=st.integers(1, 2),
    padding=st.integers(0, 4), seed=st.integers(0, 999), multiply=st.booleans(),
)  # fmt: skip
def test_any_convolution_after_a_normalisation(channels, groups, kernel, stride, padding, seed, multiply):
    torch.manual_seed(seed)
    convolution = nn.Conv2d(
        channels, 4 * channels, kernel, stride, padding, groups=channels if groups else 1
    ).requires_grad_(False)
    scale, shift = torch.rand(1, channels, 1, 1) + 0.5, torch.rand(1, channels, 1, 1)
    head = nn.LazyLinear(10)

    def network(x: Tensor) -> Tensor:
        normal = (x - shift) * scale if multiply else (x - shift) / scale
        return head(F.relu(convolution(normal)).flatten(1))

    x, y = images(7, 9, channels)
    network(x)
    head.requires_grad_(False)
    program = Program(network, x, y)
    x, y = images(6, 9, channels)
    for actual, expected in zip(program(x, y), input_gradient(network, x, y), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-5)


def test_random_numbers_are_drawn_anew_at_every_call():
    def network(x: Tensor) -> Tensor:
        noise = torch.rand_like(torch.ones(10))
        return x.flatten(1)[:, :10] + noise

    x, y = images(5)
    program = Program(network, x, y)
    assert not torch.equal(program(x, y)[1], program(x, y)[1])


class Counts(nn.Module):
    """Keeps count of its calls in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(432, 10)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return self.head(x.flatten(1))


class Branches(nn.Module):
    """Looks at its input to decide what to do."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :10] if x.sum() > 0 else -x.flatten(1)[:, :10]


@pytest.mark.parametrize("network", [Counts(), Branches()], ids=lambda network: type(network).__name__)
def test_what_a_graph_cannot_say_is_refused(network):
    with pytest.raises(UNTRACEABLE):
        Program(network.requires_grad_(False), *images(5))


@pytest.mark.parametrize("rows", [2, 3, 12])
def test_rows_are_distinguished_from_axes_of_the_same_length(rows):
    network = network_of("residual")
    program = Program(network, *images(rows))
    for n in (2, 3, 7, 12):
        x, y = images(n)
        torch.testing.assert_close(program(x, y)[1], network(x), rtol=1e-4, atol=1e-5)


def test_one_row_is_too_few_to_trace_by():
    with pytest.raises(ValueError, match="one row"):
        trace(lambda x: x * 2, images(1)[0])


def test_folding_computes_once_what_depends_on_constants_alone():
    weight = torch.randn(4, 4)
    traced = trace(lambda x: x @ (weight * 2).t(), torch.rand(5, 4))
    targets = [node.target for node in traced.graph.nodes if node.op == "call_function"]
    assert targets == [aten.mm.default]
    x = torch.rand(3, 4)
    torch.testing.assert_close(traced(x), x @ (weight * 2).t())
    count = len(traced.graph.nodes)
    fold_constants(traced)
    assert isinstance(traced, fx.GraphModule)
    assert len(traced.graph.nodes) == count


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("precision", ["float32", BF16])
def test_a_forward_program_fuses_what_a_gradient_would_keep_apart(precision, quick):
    network = SmallCNN().build(DATASETS["mnist"]).eval().requires_grad_(False).to(memory_format=torch.channels_last)
    if quick:
        assert subpixel(network) == 2
    x = torch.rand(9, 1, 28, 28)

    def logits(x: Tensor) -> Tensor:
        with autocast(CPU, precision):
            return network(x).float()

    program = ForwardProgram(logits, x[:3])
    tolerance = 1e-5 if precision == "float32" else 0.02
    torch.testing.assert_close(program(x), logits(x), rtol=tolerance, atol=tolerance)
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    if torch.backends.mkldnn.is_available():
        assert sum("_convolution_pointwise" in each for each in called) == 2
        assert sum("relu" in each for each in called) == 1  # that of the linear layer


@pytest.mark.parametrize("precision", ["float32", BF16])
@pytest.mark.parametrize("name", ["smallcnn", "attention"])
def test_features_stay_in_the_librarys_own_layout_from_one_convolution_to_the_next(precision, name):
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    network = network_of(name)
    x = torch.rand(37, 3, 32, 32)

    def logits(x: Tensor) -> Tensor:
        with autocast(CPU, precision):
            return network(x).float()

    program = ForwardProgram(logits, x[:3], own_layouts=True)
    tolerance = 1e-5 if precision == "float32" else 0.02
    torch.testing.assert_close(program(x), logits(x), rtol=tolerance, atol=tolerance)
    called = [str(node.target) for node in program.graph.nodes]
    convolutions = 2 if name == "smallcnn" else 1
    assert sum("mkldnn_convolution" in each for each in called) == convolutions
    assert sum(each in ("to_mkldnn", "to_dense") for each in called) == 2  # once in, once out
    assert not any("clone" in each for each in called) or name == "attention"
    for count in (4, 5, 17, 33):  # a row's logits do not depend on the rows beside it
        assert torch.equal(program(x[:count]), program(x)[:count])


@pytest.mark.parametrize("name", ["resnet", "residual", "transposed", "no convolution"])
def test_a_network_whose_convolutions_are_no_chain_from_the_image_keeps_its_layout(name):
    with pytest.raises(ValueError, match="convolution"):
        ForwardProgram(network_of(name), torch.rand(3, 3, 12, 12), own_layouts=True)
