"""Reads detections from a broker and shows them."""

from __future__ import annotations

import queue
import secrets
import sys
import time
from collections import Counter, deque
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.table import Table

from agent.errors import BrokerError, WireError
from agent.mqtt import MqttClient
from agent.wire.messages import DetectionMessage, parse_detections
from agent.wire.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.config import MqttConfig

CONNECT_TIMEOUT_S = 10.0
MAX_WAITING = 10_000
"""Messages that may wait to be shown; more are left out rather than kept."""

RATE_WINDOW = 50
"""Messages over which a camera's rate is told."""

REFRESH_HZ = 4


class CameraRow:
    """What is shown of one camera."""

    def __init__(self) -> None:
        self.count = 0
        self.missing = 0
        self.labels: Counter[str] = Counter()
        self.last: DetectionMessage | None = None
        self._times: deque[float] = deque(maxlen=RATE_WINDOW)
        self.age_ms = 0.0

    def add(self, message: DetectionMessage, now_wall_s: float) -> None:
        """Take one message."""
        if self.last is not None and self.last.boot == message.boot:
            self.missing += max(0, message.seq - self.last.seq - 1)
        self.count += 1
        self.last = message
        self.labels = Counter(o["label"] for o in message.objects)
        self.age_ms = max(0.0, (now_wall_s - message.wall_s) * 1e3)
        self._times.append(now_wall_s)

    @property
    def fps(self) -> float:
        """Messages a second, lately."""
        if len(self._times) < 2:  # noqa: PLR2004 - a rate needs two times
            return 0.0
        return (len(self._times) - 1) / max(1e-6, self._times[-1] - self._times[0])


def messages(
    mqtt: MqttConfig, device: str, count: int | None, seconds: float | None
) -> Iterator[DetectionMessage | None]:
    """Detection messages as they come; None now and then while none comes.

    Raises:
        BrokerError: the broker cannot be reached.
    """
    inbox: queue.Queue[bytes] = queue.Queue(MAX_WAITING)

    def take(_topic: str, payload: bytes) -> None:
        if not inbox.full():
            inbox.put_nowait(payload)

    client = MqttClient(mqtt, "watch", secrets.token_hex(3), watcher=True)
    client.subscribe(Topics(mqtt.prefix, device).detections("+"), take)
    client.start()
    try:
        if not client.wait_connected(CONNECT_TIMEOUT_S):
            raise BrokerError(client.last_error or "the broker does not answer")
        deadline = None if seconds is None else time.monotonic() + seconds
        shown = 0
        while (count is None or shown < count) and (
            deadline is None or time.monotonic() < deadline
        ):
            try:
                message = parse_detections(inbox.get(timeout=1 / REFRESH_HZ))
            except (queue.Empty, WireError):
                # Others may publish what they like below our prefix.
                yield None
                continue
            shown += 1
            yield message
    finally:
        client.close(1.0)


def watch_json(mqtt: MqttConfig, device: str, count: int | None, seconds: float | None) -> None:
    """Print every message as a line of JSON."""
    import json  # noqa: PLC0415 - only here

    for message in messages(mqtt, device, count, seconds):
        if message is not None:
            print(json.dumps(message.raw), file=sys.stdout, flush=True)  # noqa: T201 - the output


def watch_table(mqtt: MqttConfig, device: str, count: int | None, seconds: float | None) -> None:
    """Show a table that is kept up to date."""
    rows: dict[tuple[str, str], CameraRow] = {}
    with Live(table(rows), console=Console(), refresh_per_second=REFRESH_HZ) as live:
        for message in messages(mqtt, device, count, seconds):
            if message is not None:
                row = rows.setdefault((message.device, message.camera), CameraRow())
                row.add(message, time.time())
            live.update(table(rows))


def table(rows: dict[tuple[str, str], CameraRow]) -> Table:
    """One row a camera."""
    view = Table(title="detections")
    for heading in ("device", "camera", "fps", "age ms", "model ms", "messages", "missing"):
        view.add_column(heading, justify="left" if heading in ("device", "camera") else "right")
    view.add_column("objects")
    for (device, camera), row in sorted(rows.items()):
        assert row.last is not None
        found = ", ".join(f"{n} {label}" for label, n in row.labels.most_common())
        infer = row.last.raw["lat_ms"].get("infer", 0.0)
        view.add_row(
            device,
            camera,
            f"{row.fps:.1f}",
            f"{row.age_ms:.0f}",
            f"{infer:.1f}",
            str(row.count),
            str(row.missing),
            found or "-",
        )
    return view
