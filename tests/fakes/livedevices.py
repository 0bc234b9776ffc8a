"""Enrolled devices that take updates from a real broker, simulated in a thread of the test."""

from __future__ import annotations

import asyncio
import threading
import time

from agent.bundle.trust import Trust
from agent.config import MqttConfig, TlsConfig
from agent.tls import client_context
from fleet.simulatecrowd import Member, MemoryStore, run
from fleet.simulatedevice import SimulatedDevice

RUN_S = 60.0


def member(device, answer, outcome="COMMITTED"):
    """A device of `tests.fakes.fleetfolder.enroll_new`; to be called in an asyncio loop."""
    files = device.tls_files(answer)
    tls = TlsConfig(**files)

    def read_trust(message):
        trust = Trust(answer.root.encode(), MemoryStore(), time.time)
        trust.refresh(message)
        return trust

    return Member(
        SimulatedDevice(
            name=device.name,
            slot="main",
            prefix=answer.prefix,
            keys=device.keys,
            trust=read_trust,
            window=8,
            outcome=outcome,
            wall=time.time,
            monotonic=time.monotonic,
        ),
        MqttConfig(host="127.0.0.1", port=answer.port, tls=tls),
        client_context(tls),
    )


class LiveDevices:
    """Runs devices from entering to leaving.

    Args:
        devices: device, answer and outcome of each.
    """

    def __init__(self, devices):
        self._devices = devices
        self._loop = None
        self._stop = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="devices", daemon=True)

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_error):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(RUN_S)

    def _run(self):
        asyncio.run(self._main())

    async def _main(self):
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.members = [member(*device) for device in self._devices]
        self._ready.set()
        await run(self.members, RUN_S, self._stop, lambda _how: None)
