"""Settings of the governor, which does less before the board slows itself down."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import Field, model_validator

from agent.configbase import Seconds, Section

MAX_STEPS = 8
"""Steps of the frame rate; more of them could not be told apart."""

Share = Annotated[float, Field(gt=0.0, lt=1.0)]


class GovernorConfig(Section):
    """Does less when it gets too hot or draws too much power; all again when it is well."""

    enabled: bool = Field(default=True, description="false: only measure and tell.")
    interval_s: Seconds = Field(default=2.0, description="How often temperatures are read.")
    margin_c: float = Field(
        default=8.0, ge=1, le=50, description="Step down when this close to slowing down."
    )
    hysteresis_c: float = Field(
        default=5.0, ge=1, le=50, description="Step up only when this much cooler than that."
    )
    limit_c: float = Field(
        default=90.0,
        ge=30,
        le=125,
        description="Where slowing down begins, if no sensor's trip point says so.",
    )
    power_w: float | None = Field(
        default=None, gt=0, le=2000, description="Power to stay below; default: no limit."
    )
    hold_s: Seconds = Field(default=15.0, description="Least time between two steps down.")
    calm_s: Seconds = Field(
        default=120.0,
        description="How long it must be cool before a step up; longer if that fails.",
    )
    steps: tuple[Share, ...] = Field(
        default=(0.75, 0.5, 0.33, 0.2),
        max_length=MAX_STEPS,
        description="Shares of each live camera's frame rate, step by step.",
    )
    min_fps: float = Field(
        default=1.0, gt=0, le=1000, description="No camera is slowed below this."
    )
    engine: bool = Field(
        default=True,
        description="After the last step, a built INT8 or FP16 engine of the same model serves.",
    )

    @model_validator(mode="after")
    def _falling(self) -> GovernorConfig:
        if any(later >= earlier for earlier, later in pairwise(self.steps)):
            raise ValueError("steps must fall from one to the next")
        return self
