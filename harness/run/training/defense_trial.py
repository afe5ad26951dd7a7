"""A defense tried before it trains a classifier: does it return a loss that trains it?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from epsbench.harness.errors import FAILURES
from epsbench.harness.plan.names.raised import what_was_raised
from epsbench.harness.run.machine.memory import is_out_of_memory
from epsbench.harness.run.training.trainee import ClassifierInTraining
from epsbench.harness.run.training.trial_text import count_of, short
from epsbench.models.defenses import Defense


def no_training(
    defense: Defense, network: nn.Module, batch: tuple[Tensor, Tensor], seed: int, precision: str
) -> str | None:
    """What is wrong with a defense's loss, in two steps of training on one batch; None where nothing is.

    ``batch`` is of images (N, C, H, W) and labels (N,), as many as in the training; ``precision`` is that of the
    training. The network is used up.
    """
    x, y = batch
    trainee = ClassifierInTraining(network, torch.Generator(x.device).manual_seed(seed), precision)
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=1e-6)
    try:
        for _ in range(2):
            network.train()
            network.zero_grad(set_to_none=True)
            loss = defense.loss(trainee, x, y)
            if problem := _no_loss(loss):
                return problem
            loss.backward()
            if not any(weight.grad is not None for weight in weights):
                return "the loss that it returns does not depend on the model's weights; compute it from trainee.loss"
            optimizer.step()
    # The defense is the user's code: it may raise anything, or even try to exit.
    except FAILURES as error:
        return None if is_out_of_memory(error) else f"for {count_of(len(x))} it raises {what_was_raised(error)}"
    return None


def _no_loss(loss: object) -> str | None:
    wanted = "loss must return one floating-point number with a gradient, a tensor of shape ()"
    if not isinstance(loss, Tensor):
        return f"it returns {short(loss)}; {wanted}"
    if loss.shape != ():
        mean = ", such as the mean over the images" if loss.numel() > 1 else ""
        return f"it returns a tensor of shape {tuple(loss.shape)}; {wanted}{mean}"
    if not loss.is_floating_point():
        return f"it returns {loss.dtype}; {wanted}"
    if not loss.requires_grad:
        return f"it returns a loss without a gradient; {wanted}: leave out detach(), item() and no_grad()"
    return None
