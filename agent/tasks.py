"""What the event loop does all the while: beats, tells figures, waits for the pipeline's end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from agent import stallpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.progress import Activity

BEAT_S = 1.0
"""How often the event loop says that it runs."""

POLL_S = 0.5
"""How often a waiting helper thread looks whether the event loop still wants it."""


async def beat(activity: Activity) -> None:
    """Say that the event loop runs, for ever."""
    while True:
        activity.mark()
        stallpoint.hit("loop")
        await anyio.sleep(BEAT_S)


async def report(tell: Callable[[], None], every_s: float) -> None:
    """Tell figures, for ever, the first time after `every_s`."""
    while True:
        await anyio.sleep(every_s)
        tell()


async def await_end(wait: Callable[[float], bool], ended: anyio.Event) -> None:
    """Set `ended` once `wait`, which is given seconds and blocks, says so or raises."""
    try:
        while not await anyio.to_thread.run_sync(wait, POLL_S, abandon_on_cancel=True):
            pass
    finally:
        ended.set()
