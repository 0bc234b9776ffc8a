"""The ground of a soak: a real agent with a supervisor, broker, camera, line, disk and consumer."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.integration.environment import installed
from tests.integration.mosquitto import Mosquitto
from tests.integration.servers import RtspServer, has_rtsp_server
from tests.integration.subscriber import Received, Subscriber
from tests.soak.account import Arrival
from tests.soak.link import Link
from tests.vectors.models import make_model

ROOT = Path(__file__).parents[2]
PREFIX = "soak"
SAMPLE_S = 1.0
RESTART_S = 0.2
"""The supervisor's RestartSec=."""
STOP_S = 15.0
DISK_KIB = 4096
TRACEBACK = "Traceback (most recent call last)"


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
        if message.topic.endswith("/detections"):
            m = message.json
            found.append(
                Arrival(
                    m["boot"], m["cam"], m["seq"], at_s, m["dropped"], m["frame"]["id"], m["replay"]
                )
            )
        elif message.topic.endswith("/events"):
            m = message.json
            found.append(Arrival(m["boot"], "events", m["seq"], at_s, replay=m["replay"]))
    return found


class Ground:
    """Everything real; `close` ends all of it.

    Attributes:
        crashes: ends of the agent that nobody here caused.
        lives: samples of time, resident bytes and descriptors for each life of the agent.
        missing: what cannot be done on this machine, and why.
    """

    def __init__(self, folder: Path, fps: int = 15) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.missing: list[str] = []
        self.crashes: list[str] = []
        self.lives: list[list[tuple[float, int, int]]] = []
        self.began_s = time.monotonic()
        self.broker = Mosquitto(
            folder / "broker", {"plain": ("allow_anonymous true",)}, ("max_queued_messages 0",)
        )
        self.broker.start()
        self.link = Link(self.broker.port)
        self.rtsp = RtspServer() if has_rtsp_server() else None
        if self.rtsp is None:
            self.missing.append("rtsp: no GStreamer RTSP server here")
        else:
            self.rtsp.start()
        self.disk = folder / "disk"
        self.disk.mkdir(exist_ok=True)
        self._mounted = self._mount()
        model = folder / "tiny.onnx"
        make_model(model, "detect", "yolo", nc=3, size=64)
        self._config = folder / "vigia.yaml"
        self._config.write_text(yaml.safe_dump(self._settings(model, fps)))
        self.log = folder / "agent.log"
        self.consumer = Consumer(self.broker.port)
        self.consumer.__enter__()
        self.agent: subprocess.Popen[bytes] | None = None
        self._expected = False
        self._running = threading.Event()
        self._closing = False
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)

    @property
    def has_disk(self) -> bool:
        return self._mounted

    def start(self) -> None:
        """Start the agent and whoever starts it again."""
        self._supervisor.start()
        assert self._running.wait(10)

    def kill_agent(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the agent; the supervisor starts it again."""
        process = self.agent
        assert process is not None
        self._expected = True
        self._running.clear()
        process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        assert self._running.wait(STOP_S + 10), "the agent was not started again"

    def fill_disk(self) -> None:
        """Leave no byte where the spool is."""
        with contextlib.suppress(OSError), (self.disk / "fill").open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)

    def free_disk(self) -> None:
        (self.disk / "fill").unlink(missing_ok=True)

    def spool_check(self) -> str:
        """SQLite's own word on the spool's file; empty if all is well or there is none yet."""
        files = [p for p in (self.disk / "spool").glob("*") if p.suffix in (".db", ".sqlite", "")]
        for file in files or (self.disk / "spool").glob("*.sqlite3"):
            if file.read_bytes()[:15] != b"SQLite format 3":
                continue
            with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as base:
                answer = base.execute("PRAGMA integrity_check").fetchone()[0]
            if answer != "ok":
                return f"{file.name}: {answer}"
        damaged = [p.name for p in (self.disk / "spool").glob("*damaged*")]
        return f"set aside: {damaged}" if damaged else ""

    def tracebacks(self) -> int:
        text = self.log.read_text("utf-8", "replace")
        return text.count(TRACEBACK)

    def close(self) -> int:
        """Stop everything as an operator would.

        Returns:
            The agent's exit code; -9 if it had to be killed.
        """
        self._closing = self._expected = True
        process = self.agent
        code = 0
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)
            try:
                code = process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait(10)
        self._supervisor.join(10)
        self.consumer.__exit__()
        self.link.close()
        if self.rtsp is not None:
            self.rtsp.kill()
        self.broker.kill()
        if self._mounted:
            subprocess.run(["umount", "--lazy", self.disk], check=False)
        return code

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
        if self.rtsp is not None:
            cameras["rtsp"] = {
                "source": self.rtsp.url(),
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

    def _supervise(self) -> None:
        while not self._closing:
            with self.log.open("ab") as log:
                self.agent = subprocess.Popen(
                    [sys.executable, "-m", "agent", "run", "-c", str(self._config)],
                    stdout=log,
                    stderr=log,
                    cwd=ROOT,
                    env={**installed(), "XDG_CACHE_HOME": str(self.folder / "cache"),
                         "XDG_STATE_HOME": str(self.folder / "state")},
                )  # fmt: skip
            self._expected = False
            self._running.set()
            self._watch(self.agent)
            if not self._expected:
                self.crashes.append(f"exit code {self.agent.returncode}")
            if not self._closing:
                time.sleep(RESTART_S)

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        samples: list[tuple[float, int, int]] = []
        self.lives.append(samples)
        look = psutil.Process(process.pid)
        while True:
            try:
                process.wait(SAMPLE_S)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(psutil.Error):
                    since = time.monotonic() - self.began_s
                    samples.append((since, look.memory_info().rss, look.num_fds()))
                continue
            return


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")
