"""What figures of speed depend on beside the model, so that they can be compared at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.doctor_host import HostFiles
from agent.modelsettings import engine_options
from agent.versions import versions

if TYPE_CHECKING:
    from agent.config import ModelConfig


def circumstances(config: ModelConfig) -> dict[str, object]:
    """Board, power mode, clocks, temperature, threads and versions, for JSON."""
    options = engine_options(config, live=True, cache_dir=None)
    return {
        **HostFiles().read().summary(),
        "threads": options.run.threads,
        "versions": versions(),
    }
