"""How models are trained and measured: the recipes of a suite as pydantic models, with their defaults."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from epsbench.harness.plan.axes.values import Part


class RobustnessTraining(Part):
    """How classifiers are trained."""

    epochs: int = Field(default=10, ge=0, le=100_000, description="0 keeps the weights a model comes with")
    batch_size: int = Field(default=128, ge=1)
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of sgd")
    schedule: Literal["one-cycle", "step", "constant"] = "one-cycle"
    step_epochs: int = Field(default=7, ge=1, description="of the step schedule: epochs between two steps")
    gamma: float = Field(default=0.1, gt=0, le=1, description="of the step schedule: the factor of a step")
    average: float = Field(
        default=0.0, ge=0, lt=1, description="decay a step of the moving average of the weights; 0: no averaging"
    )
    nesterov: bool = Field(default=False, description="of sgd: Nesterov's momentum")
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="of the cross-entropy trained on: the share given to all classes alike"
    )
    keep: Literal["last", "best"] = Field(
        default="last",
        description="the weights after the last epoch, or after the one with the best validation accuracy",
    )


class GenerationTraining(Part):
    """How generative models are trained: by Adam."""

    epochs: int = Field(default=80, ge=0, le=100_000)
    batch_size: int = Field(default=128, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    schedule: Literal["constant", "one-cycle"] = "constant"
    average: float = Field(
        default=0.0, ge=0, lt=1, description="decay a step of the moving average of the weights; 0: no averaging"
    )
    keep: Literal["last", "best"] = Field(
        default="last", description="the weights after the last epoch, or after the one with the lowest validation bpd"
    )


class GenerationEvaluation(Part):
    """How many random numbers each measure of a generative model takes. 0 leaves a measure out."""

    importance_samples: int = Field(
        default=100, ge=0, le=100_000, description="of z for every test image, for the importance-weighted bound"
    )
    long_importance_samples: int = Field(
        default=0, ge=0, le=1_000_000, description="the same for the first long_images test images only"
    )
    long_images: int = Field(default=1000, ge=1)
    refinement_steps: int = Field(
        default=0, ge=0, le=100_000, description="of Adam on each image's own posterior, for the amortisation gap"
    )
    refined_images: int = Field(default=1000, ge=1, description="how many test images that is done for, the first")
    prior_samples: int = Field(
        default=10_000, ge=0, le=1_000_000, description="of z from the prior, for the likelihood by plain Monte Carlo"
    )
    generated: int = Field(default=10_000, ge=0, le=1_000_000, description="images whose quality is measured")
    gradient_samples: int = Field(
        default=100, ge=0, le=100_000, description="estimates of one gradient, for the variance of its estimators"
    )

    @model_validator(mode="after")
    def _has_a_variance(self) -> GenerationEvaluation:
        if self.gradient_samples == 1:
            raise ValueError("gradient_samples: one estimate has no variance; give at least 2, or 0 to leave it out")
        return self
