"""The last epochs of a VAE's training, in which the encoder alone learns."""

from __future__ import annotations

import pytest
import torch
from small import flat

from epsbench.harness.run.training.checkpoint import Checkpoint
from epsbench.harness.run.training.recipe import SCHEDULES, phase
from epsbench.harness.run.training.seeding import seeded
from epsbench.harness.run.training.settings import Hooks, Settings
from epsbench.harness.run.training.vae import train_vae
from epsbench.models.generative import ResidualVAE

RECIPE = {"epochs": 2, "batch_size": 64, "learning_rate": 5e-3, "schedule": "one-cycle"}
ALONE = {"epochs": 4, "encoder_epochs": 2}


class Stopped(Exception):  # noqa: N818 - it is what a kill would do
    pass


def train(data, checkpoint=Checkpoint(None), on_epoch=lambda epoch, values: None, beta=1.0, **recipe):  # noqa: B008
    vae = seeded(lambda: ResidualVAE(filters=4, hidden=8, components=3, levels=2).build(data.description, 2), 0)
    settings = Settings(seed=0, precision="float32", checkpoint=checkpoint)
    return vae, train_vae(vae, data, RECIPE | recipe, beta, settings, Hooks(on_epoch=on_epoch))


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
@pytest.mark.parametrize("source", ["samples", "augmented", "both"])
def test_decoder_and_prior_are_those_of_the_epochs_before(data, source, optimizer):
    """Not even the momentum or the weight decay of an optimizer moves them."""
    options = {"optimizer": optimizer, "weight_decay": 0.5}
    first, _ = train(data, **options)
    both, training = train(data, **options, **ALONE, encoder_batches=source)
    for part in ("decoder", "prior"):
        assert torch.equal(flat(getattr(first, part)), flat(getattr(both, part)))
    assert not torch.equal(flat(first.encoder), flat(both.encoder))
    assert {len(values) for values in training.curves.values()} == {4}


def test_without_epochs_of_its_own_the_batches_join_every_step(data):
    first, _ = train(data)
    joined, _ = train(data, encoder_batches="augmented")
    assert not torch.equal(flat(first.decoder), flat(joined.decoder))


def test_the_schedule_runs_once_more():
    recipe = {"epochs": 10, "encoder_epochs": 4}
    one_cycle = SCHEDULES["one-cycle"]

    def share(epoch):
        return one_cycle(*phase(epoch, recipe))

    assert [share(epoch) for epoch in (0, 3, 5.99)] == [one_cycle(epoch, {"epochs": 6}) for epoch in (0, 3, 5.99)]
    assert [share(epoch) for epoch in (6, 8.5)] == [one_cycle(epoch, {"epochs": 4}) for epoch in (0, 2.5)]
    assert phase(3, {"epochs": 10}) == (3, {"epochs": 10})


def test_a_stop_among_them_loses_nothing(data, tmp_path):
    recipe = ALONE | {"encoder_batches": "both", "average": 0.9}
    whole, expected = train(data, **recipe)
    stops = [2, 4]

    def stop(epoch, values):
        if epoch in stops:
            stops.remove(epoch)
            raise Stopped

    checkpoint = Checkpoint(tmp_path / "a.checkpoint", every=0)
    for _ in range(2):
        with pytest.raises(Stopped):
            train(data, checkpoint, stop, **recipe)
    resumed, training = train(data, checkpoint, **recipe)
    assert torch.equal(flat(resumed), flat(whole))
    assert training.curves == expected.curves


def test_a_schedule_of_beta_is_over(data, monkeypatch):
    """An encoder that learned for a smaller β would be worse for the bound."""
    seen = []
    monkeypatch.setattr(
        "epsbench.harness.run.training.vae.EncoderBatches.loss",
        lambda batches, x, beta: (seen.append(beta.item()), next(batches._vae.encoder.parameters()).sum(), ZEROS)[1:],
    )
    train(data, **ALONE, encoder_batches="both", beta=2.0, beta_schedule="warm-up", warm_up_epochs=100)
    assert seen == [2.0] * (2 * (len(data.train) // 64))


ZEROS = torch.zeros(3)
