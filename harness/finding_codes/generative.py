"""Codes about a generative model."""

from __future__ import annotations

from epsbench.harness.finding_codes.code import Code

GENERATIVE_MODEL: dict[str, Code] = {
    "bounds-out-of-order": Code(
        "void",
        "A bound of the likelihood is clearly lower, in bits per dimension, than one that it cannot lie below.",
        "let elbo() return the distortion −log p(x|z) and the whole rate KL(q(z|x) ‖ p(z)), each in nats an image",
    ),
    "loss-is-no-bound": Code(
        "warning",
        "The model's own elbo() is clearly lower than the ELBO of its encoder, decoder and prior, or is not finite. "
        "The numbers are of these parts, the training curves are not.",
        "do not compare the training curves; let elbo() return the distortion and the rate",
    ),
    "not-normalised-likelihood": Code(
        "void",
        "The prior does not integrate to 1, or the likelihood of a code does not sum to 1 over the grey levels of a "
        "pixel: the bounds are no bounds of a likelihood.",
        "subtract the logarithm of the integral in the prior's log_prob; let the decoder depend on z alone",
    ),
    "prior-draws-differ": Code(
        "void",
        "The prior draws from another distribution than the density that its log_prob computes, such as a truncated "
        "one: likelihood and samples are of two models.",
        "let draw() and log_prob() use the same parameters, and do not truncate",
    ),
    "sees-the-image": Code(
        "void",
        "The decoder or the prior answers otherwise in a process that has not encoded the images: the code is not the "
        "only way from the image to its likelihood.",
        "let the decoder and the prior depend on z alone: nothing that encode() leaves in the model or beside it",
    ),
    "trained-on-test-images": Code(
        "void",
        "The model fits test images better than images that it was trained on, or held-out ones, or its samples are "
        "copies of test images.",
        "check that no test image was used to build or train it, and train it anew",
    ),
    "memorised-images": Code(
        "warning",
        "Many samples are copies of training images: the measures of sample quality reward them.",
        "do not compare its sample quality; train for fewer epochs, or with fewer latent dimensions",
    ),
    "degenerate-posterior": Code(
        "void",
        "The posterior is so narrow that float32 cannot draw from it, so rates and importance weights mean nothing.",
        "bound the log-std from below, or train the model as an autoencoder",
    ),
    "decoder-gradient": Code(
        "warning",
        "log p(x|z) does not rise along its gradient in z as the gradient promises: refined posteriors, the "
        "amortisation gap and the variances of gradient estimators mean little.",
        "remove what replaces the decoder's gradient (detach, rounding, straight-through, hooks)",
    ),
    "constant-dimensions": Code(
        "warning",
        "The posterior of some latent dimensions is the same for all images and is not that of the prior: they carry "
        "nothing, and cost rate.",
        "find the layer whose output is constant, or use fewer latent dimensions",
    ),
    "likelihood-at-floor": Code(
        "warning",
        "Likelihoods of single pixels are 0 or 1 in float32: the decoder's logits are saturated.",
        "bound the logits, or train with a smaller learning_rate or for fewer epochs",
    ),
}
