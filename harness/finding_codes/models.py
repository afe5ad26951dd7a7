"""Codes about a classifier, and about its gradients."""

from __future__ import annotations

from epsbench.harness.finding_codes.code import Code

MODEL: dict[str, Code] = {
    "not-finite": Code(
        "void",
        "The model's logits, its codes, or the attack's images, hold NaN or infinity.",
        "find the division, logarithm or overflow that makes them; a class that is left out needs a finite logit, such "
        "as -1e4",
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
        "Pixels are normalised twice: the model has two such layers, or is clearly more accurate when one is undone.",
        "normalise once, inside the model, and pass pixels in [0, 1] to it",
    ),
    "not-normalised": Code(
        "warning",
        "The model is clearly more accurate on normalised pixels, so its own normalisation is probably missing.",
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
    "no-better-than-one-class": Code(
        "warning",
        "The classes are imbalanced, and the model is no more accurate than the most frequent class is.",
        "look at the accuracy of each class (result.by_class(), or the report): weigh or sample the classes evenly "
        "when it is trained",
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
}

GRADIENTS: dict[str, Code] = {
    "zero-gradient": Code(
        "warning",
        "Gradients are exactly 0 in float32, so gradient attacks cannot move: the logits are saturated or scaled, "
        "or a layer has no useful derivative.",
        "divide the logits by their scale, or attack a differentiable approximation of the model",
    ),
    "stuck-at-bounds": Code(
        "warning",
        "Gradients are exactly 0 at pixels that are 0 or 1, and not a little further inside: steps along them leave "
        "these pixels where they are, so robust accuracies are too high.",
        "remove the clamp, hardtanh, ReLU or abs before the first layer: pixels are in [0, 1] anyway",
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
}

OWN_GRADIENTS = frozenset(
    {
        "zero-gradient",
        "stuck-at-bounds",
        "gradient-not-finite",
        "precision-masked",
        "shattered",
        "masked",
        "decoy-gradient",
    }
)
"""Faults of a model's own gradients. They do not matter to an attack that follows the gradients of another model."""
