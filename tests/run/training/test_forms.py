"""Forms of a training step: the fastest is chosen by timing, and one that computes something else is not used."""

from __future__ import annotations

import math

import torch

from epsbench.harness.run.training.step_form import Form, fastest_form


def forms_of(module):
    """Makes the mean square of a convolution's weight times x, in a form."""
    return lambda form: form.apply(module, lambda x, noise: ((module.weight * x).square().mean(), x.mean()))


def test_a_compiled_gradient_that_is_none_is_not_used(monkeypatch):
    nan = math.nan
    monkeypatch.setattr(torch, "compile", lambda f, **options: lambda *batch: tuple(nan * part for part in f(*batch)))
    module = torch.nn.Conv2d(1, 1, 1)
    form = fastest_form(module, forms_of(module), (torch.rand(4, 1, 2, 2), torch.zeros(4, 1)), 10, "on")
    assert (form.compiled, form.refused) == (False, ["torch.compile: the compiled step has another gradient"])


def test_a_short_training_tries_nothing():
    module = torch.nn.Conv2d(1, 1, 1)
    batch = (torch.rand(4, 1, 2, 2), torch.zeros(4, 1))
    assert fastest_form(module, forms_of(module), batch, 10, "auto").compiled is False
    assert fastest_form(module, forms_of(module), batch, 10, "off") == Form()
    assert module.weight.grad is None


def test_what_cannot_be_compiled_goes_on_as_it_is(monkeypatch):
    def refuse(*args, **kwargs):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", refuse)
    module = torch.nn.Conv2d(1, 1, 1)
    form = fastest_form(module, forms_of(module), (torch.rand(4, 1, 2, 2), torch.zeros(4, 1)), 10, "on")
    assert (form.compiled, form.refused) == (False, ["torch.compile: no compiler here"])


def test_a_compiled_step_that_computes_something_else_is_not_used(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda f, **options: lambda *batch: tuple(2 * part for part in f(*batch)))
    module = torch.nn.Conv2d(1, 1, 1)
    form = fastest_form(module, forms_of(module), (torch.rand(4, 1, 2, 2), torch.zeros(4, 1)), 10, "on")
    assert (form.compiled, form.refused) == (False, ["torch.compile: the compiled step has another gradient"])
