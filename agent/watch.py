"""What a reader of the broker knows of the cameras: one row each, from messages as they come."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.errors import AgentError
from agent.wire.reading import parse, parse_detections

if TYPE_CHECKING:
    from agent.wire.reading import DetectionMessage

RATE_WINDOW_S = 5.0
"""Rates are means over this time."""

MIN_SPAN_S = 0.001
"""Keeps the first two messages, which may come together, from making an endless rate."""

MAX_ROWS = 1000
"""A broker can invent devices and cameras without end."""

Camera = tuple[str, str]
"""Device and camera."""


@dataclass
class Row:
    """One camera.

    Attributes:
        state: last status of the camera, empty before any.
        last: last detection message, or None before any.
        age_ms: capture to arrival of the last message, by both machines' clocks.
        received: messages received.
        missed: messages that did not arrive, by their sequence numbers.
        arrivals: when messages of the last seconds arrived, by the monotonic clock.
    """

    state: str = ""
    last: DetectionMessage | None = None
    age_ms: float = 0.0
    received: int = 0
    missed: int = 0
    arrivals: deque[float] = field(default_factory=deque)

    def fps(self, now_s: float) -> float:
        """Messages a second, of the last seconds."""
        while self.arrivals and self.arrivals[0] < now_s - RATE_WINDOW_S:
            self.arrivals.popleft()
        intervals = len(self.arrivals) - 1
        return intervals / max(now_s - self.arrivals[0], MIN_SPAN_S) if intervals > 0 else 0.0

    def labels(self) -> str:
        """What the last frame showed: `2 box, 1 bag`."""
        if self.last is None:
            return ""
        counts = Counter(item["label"] for item in self.last.objects)
        return ", ".join(f"{n} {label}" for label, n in counts.most_common())

    def line(self) -> str:
        """The last message for people; what is not printable in it is escaped."""
        last = self.last
        if last is None:
            return ""
        text = (
            f"{last.device} {last.camera} #{last.frame_index}: {self.labels() or 'nothing'} "
            f"({self.age_ms:.0f} ms old)"
        )
        return text if text.isprintable() else ascii(text)


class Board:
    """All cameras, and the messages that are none of ours."""

    def __init__(self) -> None:
        self.rows: dict[Camera, Row] = {}
        self.devices: dict[str, str] = {}
        self.foreign = 0

    def take(self, topic: str, payload: bytes, now_s: float, wall_s: float) -> Row | None:
        """Take one message.

        Args:
            topic: where it came from; ends in `/detections`, `/cam/NAME/status` or `/status`.
            payload: its bytes; garbage is counted in `foreign`.
            now_s: monotonic clock.
            wall_s: seconds since the epoch.

        Returns:
            The camera's row if these were detections, else None.
        """
        try:
            if topic.endswith("/detections"):
                return self._detections(parse_detections(payload), now_s, wall_s)
            self._status(topic, parse(payload))
        except AgentError:
            self.foreign += 1
        return None

    def _row(self, device: str, camera: str) -> Row:
        if (device, camera) not in self.rows and len(self.rows) >= MAX_ROWS:
            return Row()
        return self.rows.setdefault((device, camera), Row())

    def _detections(self, message: DetectionMessage, now_s: float, wall_s: float) -> Row:
        row = self._row(message.device, message.camera)
        last = row.last
        if last is not None and last.boot == message.boot:
            row.missed += max(message.seq - last.seq - 1, 0)
        row.last = message
        row.age_ms = (wall_s - message.wall_s) * 1e3
        row.received += 1
        row.arrivals.append(now_s)
        row.fps(now_s)
        return row

    def _status(self, topic: str, message: dict[str, object]) -> None:
        state = " ".join(str(message[k]) for k in ("state", "reason") if message.get(k))
        match topic.split("/"):
            case [*_, device, "cam", camera, "status"]:
                self._row(device, camera).state = state
            case [*_, device, "status"]:
                if device in self.devices or len(self.devices) < MAX_ROWS:
                    self.devices[device] = state
            case _:
                self.foreign += 1
