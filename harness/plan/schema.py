"""The format of a suite file as pydantic models: its parts, axes and recipes; `bounds` has its bounds.

Names are resolved while the file is validated, relative to the folder in the validation context's ``"base"``. So a
wrong name is reported together with every other error of the file.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import (
    Field,
    model_validator,
)

from epsbench.harness.plan.axes.base import LONGEST, Part
from epsbench.harness.plan.axes.corruptions import Corruption
from epsbench.harness.plan.axes.randomness import Randomness
from epsbench.harness.plan.axes.recipes import (
    Changes,
    GenerationEvaluation,
    GenerationRecipes,
    GenerationTraining,
    RobustnessRecipes,
    RobustnessTraining,
)
from epsbench.harness.plan.axes.values import (
    GENERATION_AXES,
    ROBUSTNESS_AXES,
    Attacks,
    Augmentations,
    Betas,
    Budgets,
    Corruptions,
    Data,
    Defenses,
    Epsilons,
    GenerationWhere,
    Latents,
    Models,
    Norms,
    RobustnessWhere,
    Seeds,
    Severities,
    Sources,
    Starts,
    Subsets,
)
from epsbench.harness.plan.bounds import GenerationExpect, RobustnessExpect

Precision = Literal["auto", "bf16", "fp16", "float32"]
Curve = Literal["each", "nested", "bisect"]
MOST_CELLS = 50_000


class RobustnessInclude(Part):
    """Further points: an axis left out takes the matrix's only value, or its default."""

    model: Models = Field(default_factory=list)
    defense: Defenses = Field(default_factory=list)
    augmentation: Augmentations = Field(default_factory=list)
    subset: Subsets = Field(default_factory=list, description="the part of the training split that is trained on")
    start: Starts = Field(
        default_factory=list, description='the weights training begins with: "scratch", or those of another training'
    )
    training: RobustnessRecipes = Field(
        default_factory=list, description="changes of the recipe, such as { epochs = 20 }; {} is the recipe as it is"
    )
    source: Sources = Field(
        default_factory=list, description='whose gradients make the images: "self", or a model trained in this suite'
    )
    attack: Attacks = Field(default_factory=list)
    norm: Norms = Field(default_factory=list)
    eps: Epsilons = Field(default_factory=list)
    corruption: Corruptions = Field(
        default_factory=list, description="what is done to the test images before they are classified and attacked"
    )
    severity: Severities = Field(default_factory=list, description="of the corruption")
    queries: Budgets = Field(
        default_factory=list,
        description="the most queries of attacks that take no gradient, in place of their steps, for each restart",
    )
    seed: Seeds = Field(default_factory=list)


class RobustnessMatrix(RobustnessInclude):
    """The axes whose every combination is a cell."""

    model: Models
    attack: Attacks
    eps: Epsilons = Field(description='ε in pixel units, such as "8/255"')


class GenerationInclude(Part):
    """Further points: an axis left out takes the matrix's only value, or its default."""

    model: Models = Field(default_factory=list)
    z_dim: Latents = Field(default_factory=list)
    beta: Betas = Field(default_factory=list)
    training: GenerationRecipes = Field(
        default_factory=list, description="changes of the recipe, such as { epochs = 20 }; {} is the recipe as it is"
    )
    seed: Seeds = Field(default_factory=list)


class GenerationMatrix(GenerationInclude):
    """The axes whose every combination is a cell."""


class TaskPart(Part):
    """What both parts of a suite share."""

    task: ClassVar[str]
    axes: ClassVar[tuple[str, ...]]
    defaults: ClassVar[dict[str, Any]]

    data: Data
    limit: int | None = Field(default=None, ge=1, description="use at most this many examples of each split")
    precision: Precision = Field(default="auto", description="auto: bf16 on CUDA, float32 on a CPU")


class RobustnessPart(TaskPart):
    """Classifiers under attack."""

    task: ClassVar[str] = "robustness"
    axes: ClassVar[tuple[str, ...]] = ROBUSTNESS_AXES
    defaults: ClassVar[dict[str, Any]] = {
        "defense": "none",
        "augmentation": "none",
        "subset": "all",
        "start": "scratch",
        "training": Changes(()),
        "source": "self",
        "norm": "linf",
        "corruption": Corruption("none"),
        "severity": 3,
        "queries": 0,
        "seed": 0,
    }

    test_images: int | None = Field(
        default=None, ge=1, description="attack and judge only the first so many test images; training is unchanged"
    )
    randomness: Randomness | None = Field(
        default=None, description="how often a model is asked that answers at random; left out: it must not be random"
    )
    early_stop: bool = Field(default=True, description="stop attacking an image once it is fooled")
    curve: Curve = Field(
        default="each",
        description="each: every ε on its own; nested: what a smaller ε fools a larger does; bisect: by bisection",
    )
    training: RobustnessTraining = Field(default_factory=RobustnessTraining)
    matrix: RobustnessMatrix
    include: list[RobustnessInclude] = Field(default_factory=list, max_length=LONGEST)
    exclude: list[RobustnessWhere] = Field(default_factory=list, max_length=LONGEST)
    expect: list[RobustnessExpect] = Field(default_factory=list, max_length=LONGEST)


class GenerationPart(TaskPart):
    """Generative models."""

    task: ClassVar[str] = "generation"
    axes: ClassVar[tuple[str, ...]] = GENERATION_AXES
    defaults: ClassVar[dict[str, Any]] = {
        "model": "vae",
        "z_dim": 20,
        "beta": 1.0,
        "training": Changes(()),
        "seed": 0,
    }

    training: GenerationTraining = Field(default_factory=GenerationTraining)
    evaluation: GenerationEvaluation = Field(default_factory=GenerationEvaluation)
    matrix: GenerationMatrix = Field(default_factory=GenerationMatrix)
    include: list[GenerationInclude] = Field(default_factory=list, max_length=LONGEST)
    exclude: list[GenerationWhere] = Field(default_factory=list, max_length=LONGEST)
    expect: list[GenerationExpect] = Field(default_factory=list, max_length=LONGEST)


SuitePart = RobustnessPart | GenerationPart


class SuiteFile(Part):
    """A suite: what to train, attack, generate and expect."""

    description: str = ""
    robustness: RobustnessPart | None = None
    generation: GenerationPart | None = None

    @model_validator(mode="after")
    def _has_a_part(self) -> SuiteFile:
        if self.robustness is None and self.generation is None:
            raise ValueError("holds neither a [robustness] nor a [generation] part; give one or both")
        return self

    @property
    def parts(self) -> tuple[SuitePart, ...]:
        """The parts the file holds."""
        return tuple(part for part in (self.robustness, self.generation) if part is not None)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a suite file."""
    dialect = "https://json-schema.org/draft/2020-12/schema"
    schema = _without_null(SuiteFile.model_json_schema())
    return {"$schema": dialect} | schema | {"title": "epsbench suite"}


def _without_null(schema: Any) -> Any:
    """TOML has no null: a key that may be left out is not a key that may be null."""
    if isinstance(schema, list):
        return [_without_null(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: _without_null(value) for key, value in schema.items() if (key, value) != ("default", None)}
    options = [option for option in plain.get("anyOf", []) if option != {"type": "null"}]
    if len(options) == 1:
        return {key: value for key, value in plain.items() if key != "anyOf"} | options[0]
    return plain | ({"anyOf": options} if options else {})
