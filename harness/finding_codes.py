"""Every code that a finding may have: what it means and what to do about it. ``docs/audits.md`` repeats the table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Code:
    """One kind of finding. "void": the cell's numbers mean nothing. "warning": they stand, and the report warns."""

    severity: Literal["void", "warning"]
    meaning: str
    remedy: str


CODES: dict[str, Code] = {
    # The model.
    "not-finite": Code(
        "void",
        "The model's logits, its codes, or the attack's images, hold NaN or infinity.",
        "find the division, logarithm or overflow that makes them",
    ),
    "probabilities": Code(
        "void",
        "The model's outputs are probabilities: a second softmax is applied, which flattens them and every gradient.",
        "return what the last linear layer returns",
    ),
    "not-deterministic": Code(
        "void",
        "Two passes over the same images or codes differ: dropout or a random transform is on.",
        "switch it off in evaluation mode; for a defense that is random, set randomness = { samples, votes }",
    ),
    "unsettled-votes": Code(
        "warning",
        "The model is random, and another vote gives clean images another class: the majority depends on the draws.",
        "raise votes; if the same draws give another class, draw from the global generators of torch, NumPy or Python",
    ),
    "not-random": Code(
        "warning",
        "The suite sets `randomness`, and all passes of the model give the same logits.",
        "leave randomness out: each further pass costs time and changes no verdict",
    ),
    "batch-dependent": Code(
        "void",
        "What the model gives for an image or a code depends on those beside it or on its place in the batch.",
        "use stored batch statistics in evaluation mode, and nothing that is computed over the batch",
    ),
    "gradient-mode-changes-output": Code(
        "void",
        "The model computes something else when gradients are asked for, so attacks and refinement see another model.",
        "let forward() depend on its input alone, not on `requires_grad`, `is_leaf` or the gradient mode",
    ),
    "copy-differs-under-attack": Code(
        "void",
        "On moved images the model and a copy of it differ, so what is attacked is not what is judged.",
        "let `copy.deepcopy` copy all that forward() uses, and remove what treats copies in another way",
    ),
    "answers-by-call-order": Code(
        "void",
        "Answers depend on earlier calls: once it has seen an image, the model answers moved ones alike.",
        "remove what forward() remembers between calls",
    ),
    "caller-changes-output": Code(
        "void",
        "The model answers by who asks: by the thread, or by how the images lie in memory.",
        "let forward() depend on the values of the pixels alone",
    ),
    "verdict-not-repeated": Code(
        "void",
        "Judged once more, adversarial images get other answers than those that were recorded.",
        "let forward() depend on the pixels alone, and not on earlier calls, on time or on who asks",
    ),
    "differs-in-fresh-process": Code(
        "void",
        "Built again in a process of its own, from its name and its weights, the model answers otherwise.",
        "keep nothing outside the model between calls: no globals, no files, no objects that copies share",
    ),
    "off-grid": Code(
        "warning",
        "Moving pixels by less than one level of a byte changes the logits much: the model reads their last bits.",
        "remove the switch on exact pixel values; round pixels only where their logits stay close",
    ),
    "discontinuous": Code(
        "warning",
        "Logits jump between nearly equal images: the model switches between networks, looks images up, or rounds.",
        "gradients know nothing of jumps: remove them, or use attacks without gradients",
    ),
    "knows-test-images": Code(
        "warning",
        "The model is clearly better on test images than on training images, or on images that are joined of two of "
        "them: more accurate, surer or more robust.",
        "check that no test image was used to build or train it, and that it looks no images up",
    ),
    "train-mode": Code(
        "void",
        "Outputs vary, and batch norm or dropout layers are still in train mode after `eval()`.",
        "make `eval()` reach every layer, and let batch norm keep its statistics (track_running_stats=True)",
    ),
    "normalised-twice": Code(
        "warning",
        "Pixels are normalised twice: the model has two such layers, or is more accurate when one is undone.",
        "normalise once, inside the model, and pass pixels in [0, 1] to it",
    ),
    "not-normalised": Code(
        "warning",
        "The model is far more accurate on normalised pixels, so its own normalisation is missing.",
        "add the normalisation that it was trained with as its first layer",
    ),
    "other-preprocessing": Code(
        "warning",
        "The images are resized or cropped otherwise than for the published accuracy of the model's weights.",
        "give the data the resize, crop and interpolation of the model; accuracies differ by points otherwise",
    ),
    "black-box-finds-more": Code(
        "warning",
        "In an ensemble, an attack by scores alone fools images that every attack along gradients left.",
        "suspect masked gradients: attack an approximation of the model with useful gradients",
    ),
    "adapted-to-few-classes": Code(
        "warning",
        "The data has fewer classes than the attack is made for, so it was adapted.",
        "state the adaptation beside the number: it is not comparable with the attack as published",
    ),
    "not-differentiable": Code(
        "warning",
        "The model cannot be differentiated: attacks along its gradients fail, the others run.",
        "attack a differentiable approximation of the model, or use attacks without gradients",
    ),
    "writes-input": Code(
        "warning",
        "The model writes into the images that it is given, so it is given a copy of them.",
        "compute x - mean instead of x.sub_(mean), and the like: the copy costs time and memory",
    ),
    "optimises-at-inference": Code(
        "warning",
        "The model takes gradients inside forward(): it optimises something for each image, such as a purified copy.",
        "check that gradients pass through that optimisation and that it is not cut off; attack with more steps, and "
        "with attacks without gradients",
    ),
    "at-chance": Code(
        "warning",
        "The model is no better than guessing on clean images.",
        "check the weights file, the order of the labels, the channels and the range of the pixels",
    ),
    "shared-images": Code(
        "warning",
        "Test images are training or validation images, too, equal at 256 levels: the accuracy is partly that of a "
        "memory.",
        "take them out of one of the splits",
    ),
    "few-classes": Code(
        "warning",
        "The attack's loss compares more logits than the model has.",
        "for so few classes, use an attack whose loss is the cross-entropy",
    ),
    # A generative model.
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
    # Its gradients.
    "zero-gradient": Code(
        "warning",
        "Gradients are exactly 0 in float32, so gradient attacks cannot move: the logits are saturated or scaled, "
        "or a layer has no useful derivative.",
        "divide the logits by their scale, or attack a differentiable approximation of the model",
    ),
    "gradient-not-finite": Code(
        "warning",
        "Gradients hold NaN or infinity, so attacks along them do not know where to go.",
        "find the square root, division or logarithm whose derivative is infinite",
    ),
    "precision-masked": Code(
        "warning",
        "Gradients are exactly 0 in the precision of the attack, and not in float32.",
        "run this model with precision = float32",
    ),
    "shattered": Code(
        "warning",
        "Steps along the gradient raise the loss no more than random steps: the gradient does not point uphill.",
        "before believing its robustness, attack a smooth approximation of the model, or use attacks without gradients",
    ),
    "masked": Code(
        "warning",
        "Accuracy stays above chance even when gradient steps may reach every possible image.",
        "do not believe this model's robust accuracies; use attacks without gradients, or another model's gradients",
    ),
    "decoy-gradient": Code(
        "warning",
        "The gradient is not the derivative: steps along it do not raise the loss as it promises.",
        "remove what replaces the gradient (detach, straight-through, hooks), or use attacks without gradients",
    ),
    "margin-beats-cross-entropy": Code(
        "warning",
        "Gradient steps on the margin of the logits fool far more images than steps on the cross-entropy.",
        "use an attack with a margin loss; the message names the cause, and what else helps",
    ),
    "attack-misses-constructed-example": Code(
        "warning",
        "The attack misses adversarial examples that exist by construction, in classifiers that are built on the "
        "features of this model (binarisation test, Zimmermann et al., 2022).",
        "do not believe the robust accuracy: the gradients of the features mislead, or the attack is too weak; give it "
        "more steps, or attack a smooth approximation of the model",
    ),
    "score-search-beats-gradient": Code(
        "void",
        "A short search without gradients fools many images that withstand gradient steps: gradients are masked.",
        "do not report accuracy under gradient attacks; use attacks without gradients",
    ),
    # The attack.
    "no-op": Code(
        "void",
        "The attack returned most images unchanged.",
        "check that it returns the images it made, and that the model has gradients to follow",
    ),
    "unmoved": Code(
        "warning",
        "The attack returned some images unchanged.",
        "check whether their gradients are 0, or whether the attack gives up on them",
    ),
    "beyond-ball": Code(
        "warning",
        "The attack returned images further away than ε. They were projected, which may undo the attack.",
        "give the attack ε in units of pixels in [0, 1] and the norm of the cell, and let it project",
    ),
    "not-pixels": Code(
        "void",
        "The attack returned values that are no pixels in [0, 1], such as bytes or normalised images.",
        "return pixels in [0, 1]: divide by 255, or undo the normalisation",
    ),
    "outside-ball": Code("void", "A perturbation is larger than ε.", "correct the norm's `project`"),
    "outside-box": Code("void", "Pixels lie outside [0, 1].", "correct what changes the image after the projection"),
    "no-ascent": Code(
        "warning",
        "The attack uses gradients and does not raise the loss.",
        "check the sign of its step, its step size, and the model's gradients",
    ),
    "unconverged": Code(
        "warning",
        "On images that it did not fool, the loss still rises when the attack takes one more step.",
        "take more steps, or larger ones",
    ),
    "one-step-short": Code(
        "warning",
        "The attack computes a gradient at the images that it returns, and does not take the last step.",
        "return the images after the last update",
    ),
    "lost-iterate": Code(
        "warning",
        "An earlier iterate fooled the model, and the image that the attack returned does not.",
        "return the first image that fools the model",
    ),
    # Cells against each other.
    "weaker-than-peers": Code(
        "warning",
        "An attack of many steps fools fewer than half as many images as another one in the same ball.",
        "check the weaker attack's ε, step size, number of steps and loss",
    ),
    "eps-not-monotone": Code(
        "warning",
        "A smaller ε fools significantly more images, although the larger ball contains the smaller.",
        "use a stronger attack, or curve = nested",
    ),
    "one-step-beats-many": Code(
        "warning",
        "A one-step attack fools significantly more images than one of many steps.",
        "suspect masked gradients, or steps too few or too small",
    ),
    "noise-beats-gradient": Code(
        "warning",
        "Random noise fools significantly more images than a gradient attack.",
        "suspect masked gradients or a broken attack; do not report the gradient attack's number alone",
    ),
    "black-box-beats-gradient": Code(
        "warning",
        "An attack without gradients fools significantly more images than a gradient attack of many steps.",
        "suspect masked gradients; report the worst case over both",
    ),
    "catastrophic-overfitting": Code(
        "warning",
        "The model withstands one gradient step of size ε, and neither half of that step nor many small steps: "
        "it has overfitted to the single steps that it was trained on (Wong et al., 2020).",
        "evaluate it with many steps; train with random starts, fewer epochs or more steps",
    ),
    # The audits and other outputs beside the number.
    "audit-failed": Code(
        "warning",
        "An audit raised an exception, so what it checks is not known. The number does not depend on it.",
        "call the model as the audit does, and correct what raises",
    ),
    "output-failed": Code(
        "warning",
        "Pictures or a profile could not be written. The number does not depend on them.",
        "correct the reason, and run the cell again if the output is needed",
    ),
    # Speed alone.
    "not-folded": Code("warning", "Batch norm could not be folded.", "numbers are unaffected, speed is"),
    "not-prepared": Code(
        "warning",
        "A faster form of the model was rejected.",
        "numbers are unaffected, speed is",
    ),
    "not-mixed": Code(
        "warning",
        "The model cannot run in low precision, or is slower in it; float32 is used.",
        "numbers are unaffected",
    ),
    "not-traced": Code(
        "warning", "No faster program could be traced from the model.", "numbers are unaffected, speed is"
    ),
    "not-compiled": Code("warning", "The model could not be compiled.", "numbers are unaffected, speed is"),
    "not-graphed": Code("warning", "The step could not be captured as a CUDA graph.", "numbers are unaffected"),
    "attacked-alone": Code(
        "warning", "Another process could not help with the attack.", "numbers are unaffected, speed is"
    ),
}


# Faults of a model's own gradients. They do not matter to an attack that follows the gradients of another model.
OWN_GRADIENTS = frozenset(
    {"zero-gradient", "gradient-not-finite", "precision-masked", "shattered", "masked", "decoy-gradient"}
)
