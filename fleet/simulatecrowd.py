"""Many simulated devices in one process: `python -m fleet.simulatecrowd FILE`.

FILE says which; the process tells on standard output, line by line in JSON, how it goes, and ends
when all have reported or the time is over. It is a process of its own so that what the controller
needs can be told from what a thousand devices need.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from agent.backoff import Backoff
from fleet.simulateline import Line

if TYPE_CHECKING:
    import ssl

    from agent.config import MqttConfig
    from fleet.simulatedevice import Orders, SimulatedDevice

TICK_S = 1.0
CONNECTS_AT_ONCE = 20
"""Connections begun before those that are up have their turn."""


class Member:
    """A device and its connection, made again whenever it is lost."""

    def __init__(
        self, device: SimulatedDevice, config: MqttConfig, context: ssl.SSLContext | None
    ) -> None:
        self.device = device
        self.finished = asyncio.Event()
        self.disconnects = 0
        self._config = config
        self._context = context
        self._backoff = Backoff(config.reconnect_initial_s, config.reconnect_max_s)
        self._line: Line | None = None
        self._closing = False

    def open(self) -> None:
        """Connect, now or later."""
        if self._closing:
            return
        line = Line(
            self._config,
            f"vigia-{self.device.name}",
            self._context,
            received=lambda topic, payload: self._do(self.device.received(topic, payload)),
            up=lambda: self._do(self.device.connected()),
            down=self._lost,
        )
        self._line = line
        try:
            line.open()
        except OSError as error:
            self._lost(str(error))

    def tick(self) -> None:
        """Time has passed."""
        if self._line is not None:
            self._line.tick()
            self._do(self.device.tick())

    def close(self) -> None:
        """Say goodbye."""
        self._closing = True
        if self._line is not None:
            self._line.close()
            self._line = None

    def _lost(self, _why: str) -> None:
        if self._line is None:
            return
        self._line = None
        if not self._closing:
            self.disconnects += 1
            asyncio.get_running_loop().call_later(self._backoff.next_delay(), self.open)

    def _do(self, orders: Orders) -> None:
        line = self._line
        if line is None:
            return
        line.unsubscribe(orders.unsubscribe)
        line.subscribe(orders.subscribe)
        for topic, payload, retain in orders.publish:
            told = self._reported if topic == self.device.report_topic else None
            line.publish(topic, payload, retain=retain, acknowledged=told)
        if self.device.finished:
            self.finished.set()

    def _reported(self) -> None:
        self.device.reported = True
        self.finished.set()


async def run(members: list[Member], timeout_s: float) -> None:
    """Have all of them take part until each has reported or failed."""

    async def ticking() -> None:
        while True:
            await asyncio.sleep(TICK_S)
            for member in members:
                member.tick()
            tell(progress(members))

    ticker = asyncio.create_task(ticking())
    try:
        for number, member in enumerate(members):
            member.open()
            if number % CONNECTS_AT_ONCE == 0:
                await asyncio.sleep(0)
        tell({"opened": len(members)})
        with contextlib.suppress(asyncio.TimeoutError):
            waiting = asyncio.gather(*(member.finished.wait() for member in members))
            await asyncio.wait_for(waiting, timeout_s)
    finally:
        ticker.cancel()
        for member in members:
            member.close()


def progress(members: list[Member]) -> dict[str, Any]:
    """How it goes."""
    return {
        "reported": sum(member.device.reported for member in members),
        "failed": sum(bool(member.device.failure) for member in members),
        "bytes": sum(member.device.counts["bytes"] for member in members),
    }


def result(members: list[Member], seconds: float) -> dict[str, Any]:
    """How it ended."""
    counts = sum((member.device.counts for member in members), Counter[str]())
    reasons = Counter(member.device.failure for member in members if member.device.failure)
    return progress(members) | {
        "devices": len(members),
        "seconds": round(seconds, 2),
        "messages": counts["messages"],
        "disconnects": sum(member.disconnects for member in members),
        "reasons": dict(reasons.most_common(5)),
        "done": True,
    }


def tell(what: dict[str, Any]) -> None:
    """One line to whoever started this process."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()
