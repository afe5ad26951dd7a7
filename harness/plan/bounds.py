"""The ``expect`` tables of a suite as pydantic models: bounds on what its cells measure and on what they cost."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, model_validator

from epsbench.harness.plan.axes.base import Part
from epsbench.harness.plan.axes.values import (
    GenerationReference,
    GenerationWhere,
    RobustnessReference,
    RobustnessWhere,
)


class Bound(Part):
    """What a metric must reach (``min``), must not exceed (``max``), or both."""

    min: float | None = Field(default=None, ge=0)
    max: float | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _is_a_bound(self) -> Bound:
        if self.min is None and self.max is None:
            raise ValueError("bounds nothing; give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self


class Share(Bound):
    """A bound on a share of the examples."""

    min: float | None = Field(default=None, ge=0, le=1)
    max: float | None = Field(default=None, ge=0, le=1)


RELATIVE_TO = (
    'makes min and max ratios: to the same cell of `check --baseline DIR` ("baseline"), or to the cell that differs '
    "only in these axes"
)


class Cost(Bound):
    """A bound on a cost, or on its ratio to the cost of another cell or of a baseline."""

    relative_to: RobustnessReference | None = Field(default=None, description=RELATIVE_TO)


class GenerationCost(Cost):
    """The same for a generative model, whose cells have other axes."""

    relative_to: GenerationReference | None = Field(default=None, description=RELATIVE_TO)


class Time(Cost):
    """A bound on a ratio of times. A time by itself is that of one machine, so it has no bound."""

    example: ClassVar[str] = "attack"
    """An axis, for the message."""

    @model_validator(mode="after")
    def _is_relative(self) -> Time:
        if self.relative_to is None:
            raise ValueError(
                f'differs between machines; give relative_to = "baseline" or relative_to = {{ {self.example} = … }}'
            )
        return self


class GenerationTime(Time):
    """The same for a generative model, whose cells have other axes."""

    example: ClassVar[str] = "z_dim"
    relative_to: GenerationReference | None = Field(default=None, description=RELATIVE_TO)


class Expect(Part):
    """Bounds on the metrics of every cell that ``where`` matches; of every cell, without it."""

    where: dict[str, Any] = Field(default_factory=dict)
    strict: bool = Field(default=False, description="judge the value itself, not its 95 % interval")

    @property
    def bounds(self) -> dict[str, Bound]:
        """The bounds given, by metric."""
        given = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: value for name, value in given.items() if isinstance(value, Bound)}

    @model_validator(mode="after")
    def _expects_something(self) -> Expect:
        if not self.bounds:
            metrics = [name for name in type(self).model_fields if name not in ("where", "strict")]
            raise ValueError(f"expects nothing; bound at least one of {', '.join(metrics)}")
        return self


class RobustnessExpect(Expect):
    """What the records of some robustness cells must hold."""

    where: RobustnessWhere = Field(default_factory=dict)
    clean_accuracy: Share | None = None
    robust_accuracy: Share | None = None
    attack_success_rate: Share | None = None
    floor_share: Share | None = Field(
        default=None, description="the least time these gradients can take on the device, over the time they took"
    )
    gradients_per_image: Cost | None = None
    seconds: Time | None = None
    images_per_second: Time | None = None
    training_seconds: Time | None = None
    training_images_per_second: Time | None = None
    peak_bytes: Cost | None = None


class GenerationExpect(Expect):
    """What the records of some generation cells must hold. Names that end in ``_bpd`` are bits per dimension."""

    where: GenerationWhere = Field(default_factory=dict)
    train_bpd: Bound | None = None
    validation_bpd: Bound | None = None
    test_bpd: Bound | None = None
    rate_bpd: Bound | None = None
    distortion_bpd: Bound | None = None
    importance_bpd: Bound | None = None
    refined_bpd: Bound | None = None
    prior_bpd: Bound | None = None
    active_units: Bound | None = None
    probe_accuracy: Share | None = None
    frechet_distance: Bound | None = None
    frechet_distance_infinite: Bound | None = None
    kernel_distance: Bound | None = None
    precision: Share | None = None
    recall: Share | None = None
    density: Bound | None = None
    coverage: Share | None = None
    clipped_density: Share | None = None
    clipped_coverage: Share | None = None
    likelihood_divergence: Bound | None = None
    likelihood_gap: Bound | None = None
    seconds: GenerationTime | None = Field(default=None, description="measuring, without training")
    training_seconds: GenerationTime | None = None
    training_images_per_second: GenerationTime | None = None
    peak_bytes: GenerationCost | None = None
