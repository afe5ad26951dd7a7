"""How often a model that is random is asked: `randomness` of a suite."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

MOST = 10_000


class Randomness(BaseModel):
    """Several passes through the model for each answer, because two of them differ."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    samples: int = Field(ge=1, le=MOST, description="passes over which the attacked model's loss is averaged")
    votes: int = Field(ge=1, le=MOST, description="passes among which the judge takes the majority")
