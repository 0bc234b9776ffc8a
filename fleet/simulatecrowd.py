"""Many simulated devices in one process: `python -m fleet.simulatecrowd FILE`.

FILE says which; the process tells on standard output, line by line in JSON, how it goes, and ends
when all have reported or the time is over. It is a process of its own so that what the controller
needs can be told from what a thousand devices need.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.backoff import Backoff
from agent.bundle.softkeys import KemKey, SoftKeys, p256_from_pem
from agent.bundle.trust import Trust
from agent.config import MqttConfig, TlsConfig
from agent.tls import client_context
from fleet.simulatedevice import SimulatedDevice
from fleet.simulateline import Line

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

    from fleet.simulatedevice import Orders

TICK_S = 1.0
TAKE_BACK_S = 5.0
REASONS = 5
"""Reasons of failures that are told, the most frequent."""

SPARE_FILES = 200
"""Descriptors that a process needs beside those of its connections."""

CONNECTS_AT_ONCE = 20
"""Connections begun before those that are up have their turn."""


class Member:
    """A device and its connection, made again whenever it is lost."""

    def __init__(
        self, device: SimulatedDevice, config: MqttConfig, context: ssl.SSLContext | None
    ) -> None:
        self.device = device
        self.taken_back = asyncio.Event()
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

    def take_back(self) -> None:
        """Have the broker forget what it keeps of this device."""
        line = self._line
        if line is None:
            self.taken_back.set()
            return
        *topics, last = self.device.retained_topics
        for topic in topics:
            line.publish(topic, b"", retain=True)
        line.publish(last, b"", retain=True, acknowledged=self.taken_back.set)

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

    def _reported(self) -> None:
        self.device.reported = True


async def run(
    members: list[Member],
    timeout_s: float,
    stop: asyncio.Event,
    tell: Callable[[dict[str, Any]], None],
) -> None:
    """Have all of them take part until `stop`, and then take back what they retained.

    Args:
        members: not connected yet.
        timeout_s: after which they end by themselves.
        stop: set from outside.
        tell: takes how it goes, again and again, and in the end how it ended.
    """

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
            await asyncio.wait_for(stop.wait(), timeout_s)
        tell(result(members))
        for member in members:
            member.take_back()
        with contextlib.suppress(asyncio.TimeoutError):
            gone = asyncio.gather(*(member.taken_back.wait() for member in members))
            await asyncio.wait_for(gone, TAKE_BACK_S)
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


def result(members: list[Member]) -> dict[str, Any]:
    """How it ended."""
    counts = sum((member.device.counts for member in members), Counter[str]())
    reasons = Counter(member.device.failure for member in members if member.device.failure)
    return progress(members) | {
        "messages": counts["messages"],
        "disconnects": sum(member.disconnects for member in members),
        "reasons": dict(reasons.most_common(REASONS)),
    }


def say(what: dict[str, Any]) -> None:
    """One line to whoever started this process."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


class MemoryStore:
    """What a simulated device has accepted; see `agent.bundle.trust.TrustStore`."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}
        self._floor = 0.0

    def load(self) -> dict[str, bytes]:
        """See `TrustStore`."""
        return self._files

    def save(self, files: Mapping[str, bytes]) -> None:
        """See `TrustStore`."""
        self._files = dict(files)

    def time_floor(self) -> float:
        """See `TrustStore`."""
        return self._floor

    def raise_time_floor(self, t: float) -> None:
        """See `TrustStore`."""
        self._floor = max(self._floor, t)


def make_member(device: dict[str, str], specification: dict[str, Any]) -> Member:
    """A device as the specification has it."""
    root = specification["root"].encode()

    def read_trust(message: bytes) -> Trust:
        trust = Trust(root, MemoryStore(), time.time)
        trust.refresh(message)
        return trust

    pair = Path(device["tls"])
    tls = TlsConfig(ca_file=Path(specification["ca"]), cert_file=pair, key_file=pair)
    return Member(
        SimulatedDevice(
            name=device["name"],
            slot=specification["slot"],
            prefix=specification["prefix"],
            keys=SoftKeys(
                KemKey.from_pem(device["kem"].encode()),
                p256_from_pem(device["signing"].encode()),
            ),
            trust=read_trust,
            window=specification["window"],
            outcome="COMMITTED",
            wall=time.time,
            monotonic=time.monotonic,
        ),
        MqttConfig(host=specification["host"], port=specification["port"], tls=tls),
        client_context(tls),
    )


def read_specification(path: Path) -> dict[str, Any]:
    """What `fleet.simulatekeys` has written, with the keys."""
    specification: dict[str, Any] = json.loads(path.read_bytes())
    lines = Path(specification["devices"]).read_text("utf-8").splitlines()
    return specification | {"keys": [json.loads(line) for line in lines]}


async def main(specification: dict[str, Any]) -> None:
    """Run the crowd that is specified, until SIGTERM."""
    devices = specification["keys"]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, len(devices) + SPARE_FILES), hard))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    members = [make_member(device, specification) for device in devices]
    await run(members, specification["timeout_s"], stop, say)


if __name__ == "__main__":
    asyncio.run(main(read_specification(Path(sys.argv[1]))))
