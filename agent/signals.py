"""What signals ask of the agent: SIGTERM and SIGINT to end, SIGHUP to read its settings again."""

from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from anyio.abc import TaskGroup

    from agent.healthwatch import Watch
    from agent.reload import Reloader

log = logging.getLogger(__name__)

WANTED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""What is obeyed, from before the first frame on: until then SIGTERM ends the process at once."""


def hold_reloads() -> None:
    """Until the event loop listens, a reload that comes early does not end the process."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


class Signals:
    """Obeys signals in the event loop.

    Args:
        reloader: reads the settings again.
        watch: the service manager hears that a reload begins and ends.
        restart: called when the agent is to be started anew after its end.
    """

    def __init__(self, reloader: Reloader, watch: Watch, restart: Callable[[], None]) -> None:
        self._reloader = reloader
        self._watch = watch
        self._restart = restart

    async def listen(self, signals: AsyncIterator[signal.Signals], ended: anyio.Event) -> None:
        """Obey until cancelled; sets `ended` when the agent is to end.

        Args:
            signals: those of `WANTED` that come.
            ended: as said.
        """
        async with anyio.create_task_group() as tasks:
            await self._obey(signals, tasks, ended)

    async def _obey(
        self, signals: AsyncIterator[signal.Signals], tasks: TaskGroup, ended: anyio.Event
    ) -> None:
        async for number in signals:
            if number == signal.SIGHUP:
                log.info("SIGHUP: reading the configuration again")
                tasks.start_soon(self._reload, ended)
            else:
                log.info("%s: stopping", signal.Signals(number).name)
                ended.set()

    async def _reload(self, ended: anyio.Event) -> None:
        self._watch.reloading()
        try:
            if not self._reloader.bare:
                await anyio.to_thread.run_sync(self._reloader.reload, abandon_on_cancel=True)
            elif await anyio.to_thread.run_sync(self._reloader.holds, abandon_on_cancel=True):
                # Hardly anything of the right configuration is in force: a fresh start is better.
                log.warning("the configuration has no mistake any more: restarting with it")
                self._restart()
                ended.set()
        finally:
            self._watch.reloaded()
