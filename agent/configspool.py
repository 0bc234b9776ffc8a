"""Settings of the spool: what is kept on disk while the broker is away."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from agent.configbase import Section


class SpoolConfig(Section):
    """Events, and detections where asked, outlive a broker that is away and a restart."""

    enabled: bool = Field(default=True, description="false: kept in memory only.")
    dir: Path | None = Field(
        default=None, description="Folder; default: `spool` in the state folder."
    )
    max_bytes: int = Field(
        default=64 * 2**20, ge=2**20, le=2**36, description="Bytes kept; the oldest go."
    )
    max_messages: int = Field(
        default=100_000, ge=100, le=10_000_000, description="Messages kept; the oldest go."
    )
    max_age_s: float = Field(
        default=7 * 86_400.0, ge=1.0, le=366 * 86_400.0, description="Older messages go."
    )
    detections: bool = Field(
        default=False,
        description="Detections are spooled too: sent with QoS 1, each once at least.",
    )
    flush_interval_s: float = Field(
        default=1.0,
        ge=0.05,
        le=60.0,
        description="What the broker has not acknowledged after this is written to the disk, "
        "all of it at once: longer spares flash, shorter loses less when power fails.",
    )
