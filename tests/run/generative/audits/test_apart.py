"""The copy of a model in another process: it answers as the model does, and always ends."""

from __future__ import annotations

import copy
import os

import pytest
import torch
from honest_vaes import DIGITS, small
from torch import nn

from epsbench.harness.run.generative import apart as module
from epsbench.harness.run.generative.apart import Apart, apart
from epsbench.harness.run.generative.parts import Parts


@pytest.fixture(params=["a process", "no process"])
def way(request, monkeypatch):
    if request.param == "no process":
        monkeypatch.delattr(os, "fork", raising=False)
    return request.param


def test_it_answers_as_the_model_does(way):
    torch.manual_seed(0)
    vae = small()
    z = torch.randn(20, 8)
    with apart(vae, DIGITS.shape) as copy, torch.no_grad():
        answers = copy.ask("decode", z)
        images = torch.randint(16, (20, *DIGITS.shape))
        encoded = copy.ask("encode", images)
        torch.testing.assert_close(answers.together, vae.decoder(z).flatten(2))
        torch.testing.assert_close(encoded.alone, torch.stack(vae.encode(images), 1))
        assert torch.equal(answers.alone[: len(answers.again)], answers.again)


def test_it_does_not_know_what_the_model_learns_later(way):
    vae = small()
    z = torch.zeros(1, 8)
    with apart(vae, DIGITS.shape) as copy:
        before = copy.ask("decode", z).alone
        with torch.no_grad():
            for weight in vae.parameters():
                weight.add_(1)
        assert torch.equal(copy.ask("decode", z).alone, before)


class Raises(nn.Module):
    def forward(self, z):
        raise ValueError("no codes today")


class Exits(nn.Module):
    def forward(self, z):
        os._exit(3)


@pytest.mark.parametrize(("decoder", "message"), [(Raises(), "no codes today"), (Exits(), "has ended")])
def test_a_model_that_raises_or_ends_there_raises_here(decoder, message):
    vae = small()
    vae.decoder = decoder
    with apart(vae, DIGITS.shape) as copy, pytest.raises(RuntimeError, match=message):
        copy.ask("decode", torch.zeros(1, 8))


def test_a_model_that_does_not_answer_is_given_up(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.05)

    class Waits(nn.Module):
        def forward(self, z):
            import time

            time.sleep(60)

    vae = small()
    vae.decoder = Waits()
    with apart(vae, DIGITS.shape) as copy, pytest.raises(RuntimeError, match=r"did not answer in 0\.05 s"):
        copy.ask("decode", torch.zeros(1, 8))


class Reads(nn.Module):
    """A decoder whose sharpness is in a file."""

    def __init__(self, decoder: nn.Module, path) -> None:
        super().__init__()
        self.decoder, self.path = decoder, path

    def forward(self, z):
        return self.decoder(z) * float(self.path.read_text())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="files are hidden from a forked process")
def test_it_reads_files_as_they_were_and_none_that_changed_since(tmp_path):
    path = tmp_path / "sharpness"
    path.write_text("2")
    os.utime(path, (1e9, 1e9))
    vae = small()
    vae.decoder = Reads(vae.decoder, path)
    with apart(vae, DIGITS.shape) as copy:
        copy.ask("decode", torch.zeros(1, 8))
        path.write_text("3")
        with pytest.raises(RuntimeError, match="FileNotFoundError"):
            copy.ask("decode", torch.zeros(1, 8))


class Logs(Reads):
    def forward(self, z):
        with self.path.open("a") as file:
            file.write("decoded\n")
        return self.decoder(z)


def test_a_model_may_write_a_log(way, tmp_path):
    vae = small()
    vae.decoder = Logs(vae.decoder, tmp_path / "log")
    with apart(vae, DIGITS.shape) as copy:
        vae.decoder(torch.zeros(1, 8))
        copy.ask("decode", torch.zeros(1, 8))
    assert (tmp_path / "log").read_text().count("decoded") > 1


class LargeBatches(nn.Module):
    def forward(self, z):
        logits = torch.zeros(len(z), 16, *DIGITS.shape)
        logits[:, 0] = float(len(z) > 50) + 2 * float(torch.is_grad_enabled())
        return logits


def test_it_can_be_asked_as_it_was_asked_while_measured(way):
    vae = small()
    vae.decoder = LargeBatches()
    z = torch.zeros(1, 8)
    with apart(vae, DIGITS.shape) as copy:
        answers = [copy.ask_in_batch("decode", z, n, gradients)[0, 0, 0].item()
                   for n, gradients in ((1, False), (64, False), (64, True))]  # fmt: skip
        assert answers == [0, 1, 3]
        assert copy.ask("decode", z).differentiated[0, 0, 0].item() == 2


def test_no_process_is_left():
    with apart(small(), DIGITS.shape) as copy:
        pid = copy._pid
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    copy = Apart(small(), DIGITS.shape)
    pid = copy._pid
    copy.close()
    copy.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_witness_of_a_copied_model_is_the_same():
    from epsbench.harness.run.generative.witness import Witness

    witness = Witness()
    witness.measure = "bounds"
    parts = copy.deepcopy(Parts(small(), DIGITS.shape, witness))
    parts.decoder(torch.zeros(3, 8))
    assert [seen.how.measure for seen in witness.of("decode")] == ["bounds"]


def test_the_witness_keeps_rows_of_early_and_late_calls():
    from epsbench.harness.run.generative.witness import Witness

    witness = Witness(seed=0, most=16)
    for call in range(1000):
        witness.saw("log_prob", torch.full((4, 2), float(call)), torch.zeros(4))
    calls = sorted(seen.question[0].item() for seen in witness.of("log_prob"))
    assert len(calls) == 16
    assert calls[0] < 300
    assert calls[-1] > 700
