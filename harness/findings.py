"""Every code a finding may carry: what it means, and what to do about it. ``docs/audits.md`` is this table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Finding(BaseModel):
    """A structured remark of an audit. One that voids says the cell's numbers mean nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: str
    severity: Literal["void", "warning"]
    message: str
    evidence: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Code:
    """One kind of finding. "void": the cell's number means nothing; "warning": it stands, with this beside it."""

    severity: Literal["void", "warning"]
    meaning: str
    remedy: str


CODES: dict[str, Code] = {
    # The model.
    "not-finite": Code(
        "void",
        "The model's logits, or the attack's images, hold NaN or infinity.",
        "find the division, logarithm or overflow that makes them",
    ),
    "probabilities": Code(
        "void",
        "The model's outputs are probabilities: the loss applies a second softmax, which flattens every gradient.",
        "return what the last linear layer returns",
    ),
    "not-deterministic": Code(
        "void",
        "Two passes over the same images differ: dropout or a random transform is on.",
        "switch it off in evaluation mode; a random defense has no single verdict for an image",
    ),
    "batch-dependent": Code(
        "void",
        "The logits of an image depend on the images beside it or on its place in the batch.",
        "use stored batch statistics in evaluation mode, and nothing that is computed over the batch",
    ),
    "train-mode": Code(
        "void",
        "Outputs vary, and batch norm or dropout layers stay in train mode after `eval()`.",
        "let `eval()` reach every layer, and keep the statistics of batch norm (track_running_stats=True)",
    ),
    "normalised-twice": Code(
        "warning",
        "Pixels are normalised a second time: a second layer does it, or undoing it once makes the model better.",
        "normalise once, inside the model, and give it pixels in [0, 1]",
    ),
    "not-normalised": Code(
        "warning",
        "The model is clearly better on normalised pixels: its own normalisation is missing.",
        "make the normalisation it was trained with its first layer",
    ),
    "not-differentiable": Code(
        "warning",
        "The model cannot be differentiated: attacks along its gradients fail, the others run.",
        "attack a differentiable stand-in of the model, or use attacks without gradients",
    ),
    "few-classes": Code(
        "warning",
        "The attack's loss compares more logits than the model has.",
        "use an attack on the cross-entropy for so few classes",
    ),
    # Its gradients.
    "zero-gradient": Code(
        "warning",
        "Gradients are exactly 0 in float32, where an attack that follows them cannot move: "
        "saturated or scaled logits, or a step that has no derivative.",
        "divide the logits by their scale, or attack a differentiable stand-in of the model",
    ),
    "precision-masked": Code(
        "warning",
        "Gradients that float32 still sees are exactly 0 in the precision of the attack.",
        "run this model with precision = float32",
    ),
    "shattered": Code(
        "warning",
        "Steps along the gradient raise the loss no better than random steps: the gradient is no direction of ascent.",
        "attack a smooth stand-in of the model, or one without gradients, before believing its robustness",
    ),
    "masked": Code(
        "warning",
        "Gradient steps of any length, up to every image there is, leave accuracy above chance.",
        "do not believe robust accuracies of this model; use attacks without gradients and a stand-in's gradients",
    ),
    # The attack.
    "no-op": Code(
        "void",
        "The attack returned most images as they were.",
        "check that it returns the images it made, and that the model has gradients to follow",
    ),
    "unmoved": Code(
        "warning",
        "The attack returned some images as they were.",
        "see whether their gradients are 0, or the attack gives up on them",
    ),
    "outside-ball": Code("void", "A perturbation is larger than ε.", "mend the norm's `project`"),
    "outside-box": Code("void", "Pixels lie outside [0, 1].", "mend what comes after the projection"),
    "no-ascent": Code(
        "warning",
        "The attack takes gradients and does not raise the loss.",
        "check the sign of its step, its step size, and the model's gradients",
    ),
    "unconverged": Code(
        "warning",
        "On images that withstood, the loss still rises when the attack takes one step more.",
        "take more steps, or larger ones",
    ),
    "one-step-short": Code(
        "warning",
        "The attack takes a gradient at the very images it returns: its last step is computed and not taken.",
        "return the images after the last update",
    ),
    "lost-iterate": Code(
        "warning",
        "An earlier iterate fooled the model, and the image that the attack returned does not.",
        "keep an image once it fools",
    ),
    # Cells against each other.
    "eps-not-monotone": Code(
        "warning",
        "A smaller ε fools significantly more images, though the larger ball holds the smaller.",
        "use a stronger attack, or curve = nested",
    ),
    "one-step-beats-many": Code(
        "warning",
        "An attack of one step fools significantly more images than one of many steps.",
        "suspect masked gradients, or steps too few or too small",
    ),
    "noise-beats-gradient": Code(
        "warning",
        "Random noise fools significantly more images than an attack along gradients.",
        "suspect masked gradients or a broken attack; do not report the gradient attack's number alone",
    ),
    "black-box-beats-gradient": Code(
        "warning",
        "An attack without gradients fools significantly more images than one of many gradient steps.",
        "suspect masked gradients; report the worst case over both",
    ),
    "catastrophic-overfitting": Code(
        "warning",
        "The model withstands one step of size ε and neither half of that step nor many small ones: "
        "training on single steps has bent its loss around them (Wong et al., 2020).",
        "judge it by many steps; train with random starts, fewer epochs or more steps",
    ),
    # Speed alone.
    "not-folded": Code("warning", "Batch norm could not be folded.", "numbers are unaffected, speed is"),
    "not-prepared": Code("warning", "A faster form of the model was refused.", "numbers are unaffected, speed is"),
    "not-mixed": Code("warning", "The model cannot run in low precision; float32 is used.", "numbers are unaffected"),
    "not-traced": Code("warning", "No program could be made of the model.", "numbers are unaffected, speed is"),
    "not-compiled": Code("warning", "The model could not be compiled.", "numbers are unaffected, speed is"),
    "not-graphed": Code("warning", "The step could not be captured as a CUDA graph.", "numbers are unaffected"),
}

# What an attack along the gradients of another model does not suffer from.
OWN_GRADIENTS = frozenset({"zero-gradient", "precision-masked", "shattered", "masked"})


def found(code: str, fact: str, **evidence: Any) -> Finding:
    """A finding: what was seen, then what to do."""
    kind = CODES[code]
    return Finding(code=code, severity=kind.severity, message=f"{fact}; {kind.remedy}", evidence=evidence)


def voids(findings: Iterable[Finding]) -> bool:
    """Whether any of these findings voids the cell."""
    return any(finding.severity == "void" for finding in findings)


def slower(code: str, message: str, error: BaseException | None) -> Finding:
    """A warning that a faster form was refused, and why."""
    reason = f" ({type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''})" if error else ""
    return Finding(code=code, severity="warning", message=f"{message}{reason}; numbers are unaffected, speed is")
