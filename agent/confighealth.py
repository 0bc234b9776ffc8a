"""Settings of how the agent watches itself."""

from __future__ import annotations

from pydantic import Field

from agent.configbase import Section

LEAST_S = 2.0
"""Event loops mark their progress every second."""


class HealthConfig(Section):
    """When the agent says that it is ready, and when a part of it counts as stalled."""

    ready_timeout_s: float = Field(
        default=20.0,
        ge=1.0,
        le=120.0,
        description="Cameras without a result by then are named, and not waited for any longer.",
    )
    stall_timeout_s: float = Field(
        default=7.0,
        ge=LEAST_S,
        le=300.0,
        description="A stage whose work takes longer is stalled; with systemd below WatchdogSec=.",
    )
    slow_timeout_s: float = Field(
        default=120.0,
        ge=LEAST_S,
        le=600.0,
        description="The same for stages that wait for a network or a disk: the link to the "
        "broker, the spool, the updater, the governor, the status page.",
    )
    load_timeout_s: float = Field(
        default=120.0,
        ge=1.0,
        le=3600.0,
        description="A model that is not loaded after this is stalled; at the start below "
        "systemd's TimeoutStartSec=.",
    )
    cameras_timeout_s: float = Field(
        default=60.0,
        ge=1.0,
        le=600.0,
        description="Every live camera hangs in its driver and none can be opened anew: not longer "
        "than this.",
    )
    exit_after_s: float = Field(
        default=2.0,
        ge=1.0,
        le=300.0,
        description="A stall that lasts so long beyond that ends the process, to be started anew.",
    )
