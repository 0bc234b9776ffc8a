"""What every section of the configuration is made of: its base, and types of values."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
"""Names of devices, cameras and models: they become MQTT topic levels and file names."""

WHOLE = re.compile(r"\d{1,9}", re.ASCII)


def _whole(value: object) -> object:
    """Files and secrets give texts; pydantic turns them into numbers, but not in a Literal."""
    return int(value) if isinstance(value, str) and WHOLE.fullmatch(value) else value


Whole = BeforeValidator(_whole)
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(gt=0.0, le=86_400.0)]


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, values do not change."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )
