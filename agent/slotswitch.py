"""How a loaded engine takes the place of the one that serves."""

from __future__ import annotations

import concurrent.futures
import logging
from typing import TYPE_CHECKING

from engines.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.pipeline.worker import LoadedModel
    from agent.slotports import Pipelines

log = logging.getLogger(__name__)

TAKE_OVER_S = 60.0
"""An old engine that has not ended after this hangs; longer than any inference."""

BESIDE_FACTOR = 3
"""Memory that an engine takes at the most, as a multiple of its plan: weights, packed weights, and
what the runtime needs while it loads them."""

BESIDE_BYTES = 64 * 2**20
"""Memory that it takes whatever its plan: activations, buffers of its contexts."""


class HangsError(BuildError):
    """The new engine serves, but the old one has not ended."""


def take_over(
    pipelines: Pipelines,
    slot: str,
    load: Callable[[], LoadedModel],
    *,
    size: int,
    available: int,
) -> str:
    """Load an engine and swap it in; where memory holds one only, the old one is closed first.

    Args:
        pipelines: where it takes over.
        slot: which slot.
        load: gives it, loaded and warm.
        size: of its plan, bytes.
        available: memory that can be had, bytes.

    Returns:
        What must be known of how it went, for people; empty if nothing.

    Raises:
        EngineError: it cannot be loaded, cannot begin, or the old one does not end.
    """
    needed = BESIDE_FACTOR * size + BESIDE_BYTES
    note = ""
    if available >= needed:
        taken_over = pipelines.swap(slot, load())
    else:
        note = (
            f"memory for two engines was short ({available >> 20} of {needed >> 20} MB): the one "
            "that served was closed before this one was loaded"
        )
        log.warning("model %s: %s", slot, note)
        taken_over = pipelines.replace(slot, load)
    try:
        taken_over.result(TAKE_OVER_S)
    except concurrent.futures.TimeoutError:
        raise HangsError(
            f"the engine that served did not end within {TAKE_OVER_S:g} s; restart the agent"
        ) from None
    return note
