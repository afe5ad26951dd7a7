"""A model that changes torch's global state disturbs no other model's cells."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from epsbench.harness.isolation import global_state_kept
from epsbench.harness.options import Options
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.records import read_records
from epsbench.harness.run.runner import run_suite

HOOK = "torch.nn.modules.module.register_module_forward_hook(lambda module, inputs, output: output * 0)"
CHANGES = {
    "dtype": ("torch.set_default_dtype(torch.float64)", "torch.get_default_dtype()"),
    "device": ("torch.set_default_device('meta')", "torch.empty(1).device"),
    "gradients": ("torch.set_grad_enabled(False)", "torch.is_grad_enabled()"),
    "inference": ("HELD.append(torch.inference_mode()); HELD[0].__enter__()", "torch.zeros(1).is_inference()"),
    "autocast": ("torch.autocast('cpu', torch.bfloat16).__enter__()", "(torch.ones(2, 2) @ torch.ones(2, 2)).dtype"),
    "threads": ("torch.set_num_threads(3)", "torch.get_num_threads()"),
    "seeds": (
        "torch.manual_seed(0); np.random.seed(0); random.seed(0)",
        "(torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate())",
    ),
    "deterministic": (
        "torch.use_deterministic_algorithms(True, warn_only=True)", "torch.are_deterministic_algorithms_enabled()",
    ),
    "anomaly": ("torch.autograd.set_detect_anomaly(True)", "torch.is_anomaly_enabled()"),
    "mkldnn": ("torch.backends.mkldnn.enabled = False", "torch.backends.mkldnn.enabled"),
    "cudnn": (
        "torch.backends.cudnn.benchmark = True; torch.backends.cudnn.allow_tf32 = False",
        "(torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32)",
    ),
    "conv": ("torch.backends.cudnn.conv.fp32_precision = 'ieee'", "torch.backends.cudnn.conv.fp32_precision"),
    "matmul": ("torch.set_float32_matmul_precision('medium')", "torch.get_float32_matmul_precision()"),
    "denormals": ("torch.set_flush_denormal(True)", "float((torch.tensor([1e-40]) * 0.5).item())"),
    "hooks": (HOOK, "float(torch.nn.Identity()(torch.ones(1)))"),
    "folder": ("os.chdir('/')", "os.getcwd()"),
    "environment": ("os.environ['TMPDIR'] = '/gone'; os.environ.pop('PATH', None)", "sorted(os.environ.items())"),
    "path": ("sys.path.insert(0, '/gone'); sys.path.pop()", "(list(sys.path), id(sys.path))"),
    "numpy errors": ("np.seterr(all='raise')", "np.geterr()"),
    "numpy printing": ("np.set_printoptions(precision=2)", "str(np.pi * np.ones(1))"),
    "warnings": ("warnings.simplefilter('error')", "list(warnings.filters)"),
    "showwarning": ("warnings.showwarning = print", "warnings.showwarning"),
    "logging": (
        "logging.basicConfig(level=logging.DEBUG, force=True); logging.disable(logging.CRITICAL)",
        "(list(logging.root.handlers), logging.root.level, logging.root.manager.disable)",
    ),
    "signals": (
        "signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "(signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))",
    ),
    "alarm": ("signal.alarm(60)", "signal.getitimer(signal.ITIMER_REAL)"),
    "excepthooks": (
        "sys.excepthook = threading.excepthook = sys.unraisablehook = print",
        "(sys.excepthook, threading.excepthook, sys.unraisablehook)",
    ),
    "gc": ("gc.disable(); gc.set_threshold(1)", "(gc.isenabled(), gc.get_threshold())"),
    "recursion": ("sys.setrecursionlimit(900)", "sys.getrecursionlimit()"),
    "umask": ("os.umask(0o777)", "(mask := os.umask(0o077), os.umask(mask))[0]"),
    "locale": ("locale.setlocale(locale.LC_ALL, 'C.UTF-8')", "locale.setlocale(locale.LC_ALL)"),
    "streams": ("sys.stderr = sys.stdin = io.StringIO()", "(sys.stderr, sys.stdin)"),
    "style": ("matplotlib.rcParams['font.size'] = 99", "matplotlib.rcParams['font.size']"),
}  # fmt: skip
"""What a user's code may change globally, and an expression whose value shows the change."""
IMPORTS = (
    "import gc, io, locale, logging, os, random, signal, sys, threading, warnings\n"
    "import matplotlib\nimport numpy as np\nimport torch\nHELD = []\n"
)
OF_A_MODULE = ("environment", "path", "warnings", "showwarning", "logging", "style")
"""What a module may set for its packages when it is imported."""
SUITE = """
[robustness]
data = "digits"
limit = 60
training = {{ epochs = 2, batch_size = 20 }}
[robustness.matrix]
model = [{models}]
attack = ["noise", "fgsm"]
eps = 0.1
"""
NET = (
    IMPORTS
    + """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(64, 10)
    def forward(self, x):
        logits = self.fc(x.flatten(1).to(self.fc.weight.dtype))
        {change}
        return logits
"""
)


def shown(names: Iterable[str] = CHANGES) -> dict[str, str]:
    """What each expression shows now."""
    space: dict[str, object] = {}
    exec(IMPORTS, space)
    return {name: repr(eval(CHANGES[name][1], space)) for name in names}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
def test_every_change_is_undone(name):
    change, _ = CHANGES[name]
    space: dict[str, object] = {}
    exec(IMPORTS, space)
    before = shown([name])
    with global_state_kept():
        exec(change, space)
        assert shown([name]) != before
    assert shown([name]) == before


def test_a_change_is_undone_after_an_error_too():
    @global_state_kept()
    def changes_and_raises():
        torch.set_default_dtype(torch.float64)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        changes_and_raises()
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
def test_models_that_change_everything_leave_the_others_cells_as_they_were(tmp_path):
    names = []
    for name, (change, _) in CHANGES.items():
        if name not in ("gradients", "inference", "device"):  # such a model cannot be trained
            file = f"changes_{name.replace(' ', '_')}.py"
            (tmp_path / file).write_text(NET.format(change=change), encoding="utf-8")
            names.append(f'"{file}:Net"')

    def run(folder: str, *models: str):
        path = tmp_path / "suite.toml"
        path.write_text(SUITE.format(models=", ".join(models)), encoding="utf-8")
        run_suite(load_suite(str(path)), tmp_path / folder, Options(quiet=True, device="cpu"))
        honest = [r for r in read_records(tmp_path / folder) if r.cell["model"]["name"] == "smallcnn"]
        return {r.id: (r.status, r.verdicts, r.training["weights_sha256"]) for r in honest}

    alone = run("alone", '"smallcnn"')  # packages that it imports may set things, too
    assert len(alone) == 2
    before = shown()
    assert run("among", *names, '"smallcnn"') == alone
    assert shown() == before


AT_IMPORT = """
import os, random, signal, sys, torch
print("loading")
torch.set_default_dtype(torch.float64)
torch.set_grad_enabled(False)
torch.set_num_threads(7)
torch.autocast("cpu", torch.bfloat16).__enter__()
torch.backends.mkldnn.enabled = False
torch.manual_seed(0)
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.setrecursionlimit(900)
os.chdir("/")
os.environ["OF_HER_PACKAGE"] = "1"
sys.path.append("/of/her/package")
x = 1
"""
SHOWS = """
def shown():
    import torch
    return (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads(), torch.initial_seed() == 0,
            torch.is_autocast_enabled("cpu"), torch.backends.mkldnn.enabled, signal.getsignal(signal.SIGINT),
            sys.getrecursionlimit(), Path.cwd())
"""


@pytest.mark.parametrize("torch_first", [True, False])
def test_what_a_module_sets_at_import_is_put_back_and_what_it_prints_goes_to_stderr(tmp_path, torch_first):
    """The environment and the path stay as it set them: packages that it uses later look there."""
    (tmp_path / "net.py").write_text(AT_IMPORT, encoding="utf-8")
    script = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from epsbench.harness.plan.names.loading import load_object\n"
        f"{SHOWS}{'before = shown()' if torch_first else ''}\n"
        "assert ('torch' in sys.modules) == " + str(torch_first) + "\n"
        "load_object('net.py:x', Path.cwd())\nassert sys.modules['torch']\nprint(*shown(), sep='; ')\n"
        "assert os.environ['OF_HER_PACKAGE'] and '/of/her/package' in sys.path\n"
    )
    fresh = f"import signal, sys\nfrom pathlib import Path\n{SHOWS}print(*shown(), sep='; ')"
    loaded, alone = (
        subprocess.run([sys.executable, "-c", each], cwd=tmp_path, capture_output=True, text=True, check=False)
        for each in (script, fresh)
    )
    assert (loaded.returncode, loaded.stdout, loaded.stderr) == (0, alone.stdout, "loading\n")


def test_results_do_not_follow_a_model_that_changes_the_working_folder(tmp_path, monkeypatch):
    away = tmp_path / "away"
    away.mkdir()
    (tmp_path / "net.py").write_text(NET.format(change=f"os.chdir({str(away)!r})"), encoding="utf-8")
    (tmp_path / "suite.toml").write_text(SUITE.format(models='"net.py:Net", "smallcnn"'), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    options = Options(quiet=True, device="cpu", weights=Path("kept"))
    assert run_suite(load_suite("suite.toml"), Path("results"), options) == 0
    assert len(read_records(Path("results"))) == 4
    assert len(list(Path("kept").glob("*.safetensors"))) == 2
    assert not list(away.iterdir())
