"""`vigia run` as a process, its configuration, and what its messages must be."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema
import yaml

from agent.wire.schema import schema
from tests.integration.subscriber import Received

ROOT = Path(__file__).parents[2]
CONVEYOR = ROOT / "examples" / "conveyor"
SOON_S = 30.0
STOP_S = 5.0
"""An agent that is asked to stop has stopped within this time."""


class Agents:
    """Starts `vigia run` processes and kills what a test leaves behind."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, config: dict, **environ: str) -> subprocess.Popen[bytes]:
        path = self._folder / f"agent{len(self._processes)}.yaml"
        path.write_text(yaml.safe_dump(config))
        return self.again(path, **environ)

    def again(self, path: Path, **environ: str) -> subprocess.Popen[bytes]:
        """Start with a file that is there already; its log begins anew."""
        log = path.with_suffix(".log").open("wb")
        process = subprocess.Popen(
            [sys.executable, "-m", "agent", "run", "-c", str(path)],
            stderr=log,
            stdout=log,
            cwd=ROOT,
            env={
                **os.environ,
                "XDG_CACHE_HOME": str(self._folder / "cache"),
                "XDG_STATE_HOME": str(self._folder / "state"),
                **environ,
            },
        )
        log.close()
        self._processes.append(process)
        return process

    def log(self, number: int = 0) -> str:
        return (self._folder / f"agent{number}.log").read_text()

    def kill(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait(SOON_S)


def settings(port: int, prefix: str, model: Path, cameras: dict, **mqtt: object) -> dict:
    return {
        "device": {"id": "d1"},
        "mqtt": {
            "host": "localhost",
            "port": port,
            "prefix": prefix,
            "telemetry_interval_s": 1,
            "reconnect_max_s": 0.5,
            "detections": {"qos": 1},
            **mqtt,
        },
        "cameras": cameras,
        "models": {"main": {"path": str(model), "threads": 1}},
        # Several agents run at once: only tests of the page open one, on a port of their own.
        "http": {"enabled": False},
    }


def detections(messages: list[Received], camera: str) -> list[dict]:
    topic = f"/cam/{camera}/detections"
    return [m.json for m in messages if m.topic.endswith(topic)]


def has(camera: str, count: int) -> Callable[[list[Received]], bool]:
    return lambda messages: len(detections(messages, camera)) >= count


def validate(messages: list[Received]) -> None:
    for message in messages:
        jsonschema.validate(message.json, schema(message.json["schema"]))
        assert message.schema == message.json["schema"]
        assert message.content_type == "application/json"


def states(messages: list[Received]) -> list[str]:
    return [m.json["state"] for m in messages if m.topic.endswith("/d1/status")]


def assert_account(found: list[dict], frames: int | None = None) -> None:
    """Sequence numbers without gaps; every frame up to the last is published or told."""
    assert [m["seq"] for m in found] == list(range(len(found)))
    told = sum(1 + m["dropped"] for m in found)
    assert told == found[-1]["frame"]["id"] + 1
    if frames is not None:
        assert told == frames
