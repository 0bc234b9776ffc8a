"""The ground of a soak: a real agent, its supervisor, broker, camera, lines, disk and consumer."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import yaml

from agent.spoolfile import SpoolFile
from agent.spoolitem import EVENT, PRIORITIES
from tests.integration.environment import installed
from tests.integration.mosquitto import Mosquitto
from tests.integration.servers import RtspServer, has_rtsp_server
from tests.integration.subscriber import Received, Subscriber
from tests.soak.account import EVENTS, Arrival
from tests.soak.clock import WallClock
from tests.soak.link import Link
from tests.soak.supervisor import Supervisor
from tests.vectors.models import make_model

ROOT = Path(__file__).parents[2]
PREFIX = "soak"
DISK_KIB = 4096
TRACEBACK = "Traceback (most recent call last)"
IN_ONE_LINE = ("log", "series")
ALL_MESSAGES = 1 << 20
"""More messages than a spool here can hold."""


class Consumer(Subscriber):
    """Notes when each message came."""

    def __init__(self, port: int) -> None:
        super().__init__(port, f"{PREFIX}/#", qos=1)
        self.times: list[float] = []

    def _on_message(self, client: Any, data: Any, message: Any) -> None:
        with self._changed:
            self.times.append(time.monotonic())
        super()._on_message(client, data, message)


def arrivals(messages: list[Received], times: list[float]) -> list[Arrival]:
    """Detections and events as the account wants them."""
    found = []
    for message, at_s in zip(messages, times, strict=False):
        if message.retain:
            continue
        if is_detection(message):
            m = message.json
            found.append(
                Arrival(
                    m["boot"], m["cam"], m["seq"], at_s, m["dropped"], m["frame"]["id"], m["replay"]
                )
            )
        elif message.topic.endswith("/events"):
            m = message.json
            found.append(Arrival(m["boot"], EVENTS, m["seq"], at_s, replay=m["replay"]))
    return found


def is_detection(message: Received) -> bool:
    """Whether a camera's result."""
    return message.topic.endswith("/detections")


class Ground:
    """Everything real; `close` ends all of it.

    Args:
        folder: for everything; what is left there after a soak is the agent's log.
        fps: of the synthetic camera.

    Attributes:
        supervisor: of the agent.
        missing: what cannot be done on this machine, and why.
    """

    def __init__(self, folder: Path, fps: int = 15) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.missing: list[str] = []
        self.began_s = time.monotonic()
        self.broker = Mosquitto(
            # The consumer may be slower than a replay: nothing is to be dropped for it.
            folder / "broker", {"plain": ("allow_anonymous true",)}, ("max_queued_messages 0",)
        )  # fmt: skip
        self.broker.start()
        self._ends = contextlib.ExitStack()
        self.link = self._ends.enter_context(Link(self.broker.port))
        self.rtsp = RtspServer() if has_rtsp_server() else None
        self.camera_link: Link | None = None
        if self.rtsp is None:
            self.missing.append("rtsp: no GStreamer RTSP server here")
        else:
            self.rtsp.start()
            self.camera_link = self._ends.enter_context(Link(self.rtsp.port, seed=1))
        self.clock = WallClock(folder)
        if self.clock.missing:
            self.missing.append(self.clock.missing)
        self.disk = folder / "disk"
        self.disk.mkdir(exist_ok=True)
        self._mounted = self._mount()
        model = folder / "tiny.onnx"
        make_model(model, "detect", "yolo", nc=3, size=64)
        config = folder / "vigia.yaml"
        config.write_text(yaml.safe_dump(self._settings(model, fps)))
        self.log = folder / "agent.log"
        self.consumer = self._ends.enter_context(Consumer(self.broker.port))
        self.supervisor = Supervisor(
            [sys.executable, "-m", "agent", "run", "-c", str(config)],
            {**installed(), "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "cache"),
             "XDG_STATE_HOME": str(folder / "state"), **self.clock.environment},
            self.log,
            folder / "notify",
        )  # fmt: skip
        self._rest = threading.Event()

    @property
    def has_disk(self) -> bool:
        """Whether the spool has a small disk of its own, that can be filled."""
        return self._mounted

    def rest(self, seconds: float) -> None:
        """Let things go on for a while."""
        self._rest.wait(seconds)

    def fill_disk(self) -> None:
        """Leave no byte where the spool is."""
        with contextlib.suppress(OSError), (self.disk / "fill").open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)

    def free_disk(self) -> None:
        """Make room again."""
        (self.disk / "fill").unlink(missing_ok=True)

    def wait_served(self, timeout_s: float) -> float:
        """Wait for a detection of a run that nothing was heard of yet.

        Returns:
            Seconds since the present process was started.
        """
        life = self.supervisor.lives[-1]
        known = self._boots(life.began_s)
        self.consumer.wait_for(
            lambda messages: any(is_detection(m) and m.json["boot"] not in known
                                 for m in messages[-20:]),
            timeout_s,
        )  # fmt: skip
        return time.monotonic() - life.began_s

    def spool_check(self) -> str:
        """SQLite's own word on the spool's file; empty if all is well or there is none yet."""
        # Of a copy: SQLite writes beside a file while it looks, and this disk may be full.
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            copy = Path(name) / "spool"
            shutil.copytree(self.disk / "spool", copy)
            for file in copy.glob("*.db"):
                with contextlib.closing(sqlite3.connect(file)) as base:
                    answer = base.execute("PRAGMA integrity_check").fetchone()[0]
                if answer != "ok":
                    return f"{file.name}: {answer}"
        damaged = [p.name for p in (self.disk / "spool").glob("*damaged*")]
        return f"set aside: {damaged}" if damaged else ""

    def left_on_disk(self) -> list[tuple[str, str, int]]:
        """Run, stream and number of what the spool still holds; the agent has ended."""
        self.free_disk()
        found = []
        for path in (self.disk / "spool").glob("*.db"):
            file = SpoolFile(path)
            for priority in PRIORITIES:
                items = file.read(priority, -1, ALL_MESSAGES)
                found += [(i.boot, EVENTS if priority == EVENT else i.stream, i.seq) for i in items]
            file.close()
        return found

    def tracebacks(self) -> int:
        """Exceptions that nobody handled, by the agent's log."""
        return self.log.read_text("utf-8", "replace").count(TRACEBACK)

    def stop_agent(self) -> int:
        """As an operator would; returns its exit code."""
        return self.supervisor.close()

    def close(self) -> None:
        """End the rest."""
        self._ends.close()
        if self.rtsp is not None:
            self.rtsp.kill()
        self.broker.kill()
        if self._mounted:
            subprocess.run(["umount", "--lazy", self.disk], check=False)

    def _boots(self, before_s: float) -> set[str]:
        pairs = zip(list(self.consumer.messages), list(self.consumer.times), strict=False)
        return {m.json["boot"] for m, at_s in pairs if at_s < before_s and is_detection(m)}

    def _mount(self) -> bool:
        options = f"size={DISK_KIB}k,mode=0700"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.disk)],
            check=False,
            capture_output=True,
        )
        if done.returncode:
            self.missing.append("disk full: mounting a tmpfs needs more rights")
        return done.returncode == 0

    def _settings(self, model: Path, fps: int) -> dict[str, Any]:
        cameras: dict[str, Any] = {"made": {"source": f"synthetic://320x240@{fps}"}}
        if self.camera_link is not None:
            cameras["rtsp"] = {
                "source": f"rtsp://127.0.0.1:{self.camera_link.port}/stream",
                "stall_timeout_s": 2,
                "open_timeout_s": 5,
                "reconnect_max_s": 1,
            }
        return {
            "device": {"id": "d1"},
            "mqtt": {
                "host": "127.0.0.1",
                "port": self.link.port,
                "prefix": PREFIX,
                "telemetry_interval_s": 1,
                "reconnect_max_s": 0.5,
                "keepalive_s": 5,
                "detections": {"qos": 1},
            },
            "cameras": cameras,
            "models": {
                "main": {"path": str(model), "threads": 1, "precision": "fp32",
                         "backend": "onnxruntime"}
            },
            "spool": {"dir": str(self.disk / "spool"), "detections": True,
                      "max_bytes": 2**20 * 2, "flush_interval_s": 0.5},
        }  # fmt: skip


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a report: what people read over many lines, the rows of a picture in one each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [
        f"{json.dumps(key)}: {json.dumps(part, indent=None if key in IN_ONE_LINE else 2)}"
        for key, part in value.items()
    ]
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n")
