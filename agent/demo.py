"""Shows the whole road on this machine: video -> agent -> real broker -> subscriber -> figures.

The broker (amqtt) and the agent (`vigia run`) are processes of their own; this process is the
reader. Accuracy is computed from the messages that arrived, not from what the agent knows.
"""

from __future__ import annotations

import importlib.util
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np

from agent.capture.base import open_device
from agent.config import CameraConfig, MqttConfig
from agent.detection import Detections
from agent.errors import AgentError, ConfigError, WireError
from agent.mqttlink import Link
from agent.vision.draw import annotate
from agent.vision.metrics import Labelled, mean_average_precision
from agent.watch import Board
from agent.wire.reading import DetectionMessage, parse, parse_detections
from agent.wire.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "conveyor"
DEVICE, CAMERA = "demo", "belt"

PROTOCOL: Literal["3.1.1"] = "3.1.1"
"""All that the demo's broker speaks."""

REFRESH_HZ = 4

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 8.0
DELIVERY_TIMEOUT_S = 5.0
"""Time for the last messages to arrive once the agent has ended."""

LEAST_SCORE = 0.05
"""Mean average precision counts detections of low score too."""

SHOWN_SCORE = 0.4
"""Least score of what is drawn into the picture."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What to show.

    Attributes:
        seconds: how long.
        picture: where the annotated picture goes.
        camera: source instead of the sample video.
        model: ONNX file instead of the sample's.
    """

    seconds: float
    picture: Path
    camera: str | None
    model: Path | None


@dataclass
class Received:
    """What the reader got."""

    messages: list[DetectionMessage] = field(default_factory=list)
    published: int | None = None
    board: Board = field(default_factory=Board)

    def detections(self, topic: str, payload: bytes) -> None:
        """Take a detection message."""
        try:
            self.messages.append(parse_detections(payload))
        except WireError:
            return
        self.board.take(topic, payload, time.monotonic(), time.time())

    def telemetry(self, _topic: str, payload: bytes) -> None:
        """Take the agent's own count of what it published."""
        self.published = parse(payload).get("publisher", {}).get("published", self.published)


def demo(options: DemoOptions, draw: Callable[[Board], None]) -> dict[str, Any]:
    """Run the demonstration.

    Args:
        options: what to show.
        draw: shows what the reader knows; called a few times a second.

    Returns:
        The summary: frames, fps, published, received, map50 (None for a camera of the user's),
        lat_ms and picture.

    Raises:
        AgentError: a part did not start, or something was lost.
    """
    if importlib.util.find_spec("amqtt") is None:
        raise ConfigError("the demo's broker is missing: pip install 'vigia-agent[demo]'")
    model = options.model or EXAMPLE / "conveyor-n.onnx"
    source = options.camera or str(EXAMPLE / "sample.mp4")
    if not model.is_file():
        raise ConfigError(f"{model}: no such model; run the demo from a checkout, or give --model")
    with tempfile.TemporaryDirectory(prefix="vigia-demo-") as name:
        folder = Path(name)
        port = free_port()
        broker = _start_broker(folder, port)
        try:
            received = _watch_agent(options, _configure(folder, port, model, source), port, draw)
        finally:
            _stop(broker, signal.SIGTERM)
    return _summary(options, received)


def free_port() -> int:
    """A port of the loopback interface that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start_broker(folder: Path, port: int) -> subprocess.Popen[bytes]:
    config = {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }
    path = folder / "broker.yaml"
    path.write_text(json.dumps(config))
    command = [str(Path(sys.executable).with_name("amqtt")), "-c", str(path)]
    process = _spawn(command, folder / "broker.log")
    _until(lambda: _answers(port), process, "the broker", folder / "broker.log")
    return process


def _configure(folder: Path, port: int, model: Path, source: str) -> Path:
    config = {
        "device": {"id": DEVICE},
        "mqtt": {
            "host": "127.0.0.1",
            "port": port,
            "protocol": PROTOCOL,
            "telemetry_interval_s": 5,
            "detections": {"qos": 1},
        },
        "cameras": {CAMERA: {"source": source, "loop": True, "realtime": True}},
        "models": {
            "main": {"path": str(model), "confidence": LEAST_SCORE, "arrangement": "latency"}
        },
    }
    path = folder / "agent.yaml"
    path.write_text(json.dumps(config))
    # A camera's address may hold a password.
    path.chmod(0o600)
    return path


def _watch_agent(
    options: DemoOptions, config: Path, port: int, draw: Callable[[Board], None]
) -> Received:
    received = Received()
    topics = Topics("vigia/v1", DEVICE)
    client = Link(MqttConfig(host="127.0.0.1", port=port, protocol=PROTOCOL), "vigia-demo-reader")
    client.subscribe(topics.detections(CAMERA), received.detections, qos=1)
    client.subscribe(topics.telemetry, received.telemetry)
    client.start()
    log = config.with_name("agent.log")
    try:
        if not client.wait_connected(START_TIMEOUT_S):
            raise AgentError(f"the demo's broker does not answer: {client.reason}")
        agent = _spawn([sys.executable, "-m", "agent", "run", "-c", str(config)], log)
        try:
            _until(lambda: received.messages, agent, "the agent", log)
            deadline = time.monotonic() + options.seconds
            while time.monotonic() < deadline and agent.poll() is None:
                draw(received.board)
                time.sleep(1 / REFRESH_HZ)
        finally:
            _stop(agent, signal.SIGTERM)
        deadline = time.monotonic() + DELIVERY_TIMEOUT_S
        while len(received.messages) != received.published and time.monotonic() < deadline:
            time.sleep(1 / REFRESH_HZ)
    finally:
        client.close(1.0)
    if agent.returncode != 0:
        raise AgentError(f"the agent ended with {agent.returncode}: {_last_line(log)}")
    return received


def _summary(options: DemoOptions, received: Received) -> dict[str, Any]:
    messages = received.messages
    latencies = [m.total_ms for m in messages]
    spent = messages[-1].wall_s - messages[0].wall_s
    summary = {
        "frames": len(messages),
        "fps": round((len(messages) - 1) / max(spent, 1e-6), 2),
        "published": received.published,
        "received": len(messages),
        "map50": None if options.camera else _map50(messages),
        "lat_ms": {f"p{q}": round(float(np.percentile(latencies, q)), 2) for q in (50, 95, 99)},
        "picture": str(_picture(options, messages)),
    }
    if received.published != len(messages):
        raise AgentError(
            f"{received.published} messages were published, but {len(messages)} arrived"
        )
    return summary


def _map50(messages: list[DetectionMessage]) -> float:
    """Mean average precision at IoU 0.5 of the messages against the sample's ground truth."""
    frames = json.loads((EXAMPLE / "sample.json").read_text("utf-8"))["frames"]
    found, expected = [], []
    for message in messages:
        boxes = _boxes(message)
        found.append(Labelled(boxes.boxes, boxes.class_ids, boxes.scores))
        rows = np.array(frames[message.frame_index % len(frames)], np.float32).reshape(-1, 5)
        ids = rows[:, 4].astype(np.int32)
        expected.append(Labelled(rows[:, :4], ids, np.ones(len(rows), np.float32)))
    return round(mean_average_precision(found, expected).map50, 4)


def _boxes(message: DetectionMessage, least: float = 0.0) -> Detections:
    objects = [o for o in message.objects if o["score"] >= least]
    size = np.array([message.width, message.height] * 2, np.float32)
    return Detections(
        boxes=np.array([o["box"] for o in objects], np.float32).reshape(-1, 4) * size,
        scores=np.array([o["score"] for o in objects], np.float32),
        class_ids=np.array([o["cls"] for o in objects], np.int32),
    )


def _picture(options: DemoOptions, messages: list[DetectionMessage]) -> Path:
    """Draw the richest message's objects into its frame."""
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    if options.camera:
        # A live frame is gone; the newest one of the camera stands for it.
        message = messages[-1]
        index = 0
        device = open_device(CameraConfig(source=options.camera))
    else:
        message = max(messages, key=lambda m: len(_boxes(m, SHOWN_SCORE)))
        frames = json.loads((EXAMPLE / "sample.json").read_text("utf-8"))["frames"]
        index = message.frame_index % len(frames)
        device = open_device(CameraConfig(source=str(EXAMPLE / "sample.mp4")))
    pixels = None
    try:
        for _ in range(index + 1):
            pixels = device.read()
    finally:
        device.close()
    if pixels is None:
        raise AgentError("the source ended before its picture could be drawn")
    found = _boxes(message, SHOWN_SCORE)
    names = {o["cls"]: o["label"] for o in message.objects}
    labels = [names.get(i, "") for i in range(max(names, default=-1) + 1)]
    if not cv2.imwrite(str(options.picture), annotate(pixels, found, labels)):
        raise ConfigError(f"{options.picture}: cannot be written")
    return options.picture


def _spawn(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return subprocess.Popen(command, stdout=file, stderr=file)  # noqa: S603 - our own words


def _stop(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until(
    ready: Callable[[], object], process: subprocess.Popen[bytes], what: str, log: Path
) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not ready():
        if process.poll() is not None:
            raise AgentError(f"{what} ended at once: {_last_line(log)}")
        if time.monotonic() > deadline:
            raise AgentError(f"{what} did not start in {START_TIMEOUT_S:g} s: {_last_line(log)}")
        time.sleep(1 / (10 * REFRESH_HZ))


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


def _last_line(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "(it said nothing)"
