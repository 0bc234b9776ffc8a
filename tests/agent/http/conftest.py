"""What tests of the HTTP side share."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import anyio
import httpx
import numpy as np
import pytest

from agent.confighttp import HttpConfig
from agent.http.ports import Sources
from agent.http.server import HttpServer
from agent.pipeline.stats import PipelineStats
from tests.fakes.frames import frame, result

PATIENCE_S = 20.0


def until(condition, patience_s=PATIENCE_S):
    """Wait for something that other threads bring about."""
    deadline = time.monotonic() + patience_s
    turn = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        turn.wait(0.01)


class Agent:
    """A made-up agent whose state tests change, and a server that shows it."""

    def __init__(self, names=("dock", "gate")):
        self.cameras = {n: {"state": "online", "reason": "", "model": "main"} for n in names}
        self.models = {"main": {"name": "n", "reason": ""}}
        self.watched = {"ready": True, "stalled": ()}
        self.parts = {}
        self.troubles = []
        self.stats = PipelineStats(names)
        self.show = None
        self.servers = []

    def sources(self):
        def part(name):
            return lambda: self.parts.get(name)

        return Sources(
            identity=lambda: {"device": "edge-7", "boot": "b1", "version": "1", "started": 0.0},
            cameras=lambda: self.cameras,
            stats=self.stats.counted,
            models=lambda: self.models,
            health=lambda: self.watched,
            troubles=lambda: self.troubles,
            show=lambda show: setattr(self, "show", show),
            **{name: part(name) for name in ("host", "broker", "spool", "governor", "updates")},
        )

    def server(self, **config):
        server = HttpServer(HttpConfig.model_validate({"port": 0, "live_fps": 30, **config}),
                            self.sources())  # fmt: skip
        self.servers.append(server)
        return server

    def give(self, name="dock", *, number=0, size=(48, 64), noise=False):
        """An analysed frame, if somebody looks."""
        show = self.show
        if show is not None:
            pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
            shown = frame(name, number, size=size)
            if noise:
                shown = replace(shown, pixels=pixels)
            show(shown, result(shown))

    def playing(self, name="dock", **how):
        """Frames one after the other, in a thread, until the block ends."""
        return _Player(self, name, how)


class _Player:
    def __init__(self, agent, name, how):
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._play, args=(agent, name, how), daemon=True)

    def _play(self, agent, name, how):
        number = 0
        while not self._stop.wait(0.01):
            number += 1
            agent.give(name, number=number, **how)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


@pytest.fixture
def agent():
    made = Agent()
    yield made
    for server in made.servers:
        server.close(5.0)


@pytest.fixture
def ask(agent):
    """Asks a server that does not listen."""

    def get(path, server=None, method="GET", **headers):
        asgi = (server or agent.server()).guard

        async def send():
            transport = httpx.ASGITransport(app=asgi)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as one:
                fields = {k.replace("_", "-"): v for k, v in headers.items()}
                return await one.request(method, path, headers=fields)

        return anyio.run(send)

    return get
