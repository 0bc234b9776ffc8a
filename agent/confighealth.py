"""Settings of how the agent watches itself."""

from __future__ import annotations

from pydantic import Field

from agent.configbase import Section


class HealthConfig(Section):
    """When the agent says that it is ready, and when a part of it counts as stalled."""

    ready_timeout_s: float = Field(
        default=20.0,
        ge=1.0,
        le=120.0,
        description="Cameras without a result by then are named, and not waited for any longer.",
    )
    stall_timeout_s: float = Field(
        default=10.0,
        ge=1.0,
        le=300.0,
        description="A stage whose work takes longer is stalled; with systemd below WatchdogSec=.",
    )
    exit_after_s: float = Field(
        default=5.0,
        ge=1.0,
        le=300.0,
        description="A stall that lasts so long beyond that ends the process, to be started anew.",
    )
