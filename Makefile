# Two commands do everything: `make quickstart` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: quickstart reference test audit-bed check bench bench-peers gpu clean

quickstart: $(VENV)/.installed
	$(BIN)/epsbench run quickstart >/dev/null
	$(BIN)/epsbench report results/quickstart

# The suites of results/reference: those that two cores do in hours, and those that want a GPU. Stopped or killed, the
# same command goes on; REFERENCE="mnist cost" REFERENCE_GPU= runs these alone.
REFERENCE := mnist mnist-robust mnist-autoattack mnist-attacks transfer cost vae-mnist vae-latent vae-beta vae-mnist-best vae-encoder vae-small cifar10-small cifar10-autoattack corruptions pretrained-small resnet18-transfer resnet18-augmentation resnet18-pretrained resnet18-clean resnet18-cost resnet18-loss-vs-batch resnet18-random-vs-fgsm resnet18-defenses resnet18-fine-tuned resnet18-autoattack resnet18-assignment-settings
REFERENCE_GPU := random-vs-fgsm augmentation loss-vs-batch pretrained assignment-settings defenses

reference: $(VENV)/.installed
	$(BIN)/python -m epsbench.harness.reference $(REFERENCE) --gpu $(REFERENCE_GPU)

# Two processes, each with one thread: two cores finish sooner than with two threads in one process.
WORKERS ?= 2
test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

# Every model of the audits' test bed: those that look robust and are not, and honest ones. About twenty minutes.
audit-bed: $(VENV)/.installed-test
	EPSBENCH_FULL=1 $(BIN)/python -m pytest tests/run/audits/test_tricks.py tests/run/audits/test_honest_models.py

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p $(VENV)/mypy && ln -sfn ../.. $(VENV)/mypy/epsbench  # the root is the package: mypy wants it by that name
	MYPYPATH=$(VENV)/mypy $(BIN)/mypy

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "epsbench needs Python 3.11 or newer; name one with: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# What an attack costs here (the timer waits for the device), and what a VAE's step gains by its form.
bench: $(VENV)/.installed-test
	$(BIN)/python -m pytest tests/benchmarks --benchmark-enable --benchmark-only \
		--benchmark-timer=torch.utils.benchmark.timer --benchmark-columns=median,iqr,rounds --benchmark-sort=name
	$(BIN)/python tests/benchmarks/vae.py

# The same work through other libraries, each in a process of its own. visdom, which adv-lib imports, builds with an older
# setuptools only. The networks are those of the reference runs, trained here where those have not; the last is a
# ResNet-18 that two cores train in half an hour.
PEERS := -m tests.benchmarks.peers --weights results/reference/.weights
RESNET := --suite tests/benchmarks/resnet18.toml --defenses none n-fgsm
bench-peers: $(VENV)/.installed-test
	echo 'setuptools<81' > $(VENV)/build-constraint.txt
	PIP_CONSTRAINT=$(VENV)/build-constraint.txt $(BIN)/python -m pip install --quiet 'visdom>=0.2'
	$(BIN)/python -m pip install --quiet --editable '.[peers]'
	$(BIN)/python -m pip install --quiet --no-deps cleverhans
	$(BIN)/python $(PEERS) one-eps $(RESNET) --defenses n-fgsm --images 128
	$(BIN)/python $(PEERS) curve $(RESNET) --images 128
	$(BIN)/python $(PEERS) curve --images 2048
	$(BIN)/python $(PEERS) curve --suite cifar10-small --defenses none pgd-replace --images 2048
	$(BIN)/python $(PEERS) fgsm $(RESNET) --images 1024
	$(BIN)/python $(PEERS) fgsm --images 8192
	$(BIN)/python $(PEERS) floor --images 1250
	$(BIN)/python -m tests.benchmarks.autoattack --weights results/reference/.weights --defenses none pgd-batch --images 200
	$(BIN)/python $(PEERS) floor $(RESNET) --images 80 --rounds 1

# Everything that wants a GPU, in pieces of less than ten minutes: tests, verdicts, forms, memory, peers, reference suites.
# The same command goes on after the last finished piece. GPU_MINUTES=9 begins no piece that would end later; exit code 3
# says that some are left. Other libraries join where `make bench-peers` has installed them.
GPU_MINUTES ?= 0
gpu: $(VENV)/.installed-test
	$(BIN)/python -m tests.gpu --out results/gpu --minutes $(GPU_MINUTES)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
