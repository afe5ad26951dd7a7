"""Codes about an attack, and about cells of one model beside each other."""

from __future__ import annotations

from epsbench.harness.finding_codes.code import Code

ATTACK: dict[str, Code] = {
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
    "unkeyed-noise": Code(
        "warning",
        "The attack draws from a global random generator: verdicts depend on the batch size and on what ran before.",
        "draw from rows.noise, or from the noise that perturb gets: it is keyed by image",
    ),
    "lost-iterate": Code(
        "warning",
        "An earlier iterate fooled the model, and the image that the attack returned does not.",
        "return the first image that fools the model",
    ),
    "misses-other-images": Code(
        "warning",
        "An attack for the smallest distance found nothing as near as test images of other classes, which are "
        "adversarial examples: the model is not as robust as these distances say.",
        "take more steps, or another attack for this norm",
    ),
}

CELLS: dict[str, Code] = {
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
}
