"""Results become messages: thinned as configured, encoded, kept in an outbox, handed to the broker.

The pipeline's side only appends a result; a thread does the rest. A message gets its number when
the broker's client takes it, so numbers have no gaps over what was published, and what was lost
before it is told by `dropped`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Protocol

from agent import stallpoint
from agent.errors import WireError
from agent.outbox import Draft, MemoryOutbox
from agent.progress import Activity
from agent.ratelimit import RateLimit
from agent.threads import ThreadGroup
from agent.wire import messages
from agent.wire.schema import DETECTIONS

if TYPE_CHECKING:
    from agent.config import DetectionsConfig, MqttConfig
    from agent.detection import Result
    from agent.interfaces import Broker
    from agent.outbox import Outbox
    from agent.wire.topics import Topics

log = logging.getLogger(__name__)

MAX_INBOX = 256
"""Results that may wait to be encoded, which takes a tenth of a millisecond each."""

NS_PER_S = 1_000_000_000


class Durable(Protocol):
    """Keeps messages on a disk and sends them itself; see `agent.spool.Spool`."""

    def take_detection(
        self, camera: str, seq: int, dropped: int, body: bytes, *, replay: bool
    ) -> None:
        """Take a message; returns at once."""

    def expire(self, expiry_s: int | None) -> None:
        """The broker may forget detections after this from now on; None: never."""


class Publisher:
    """An `agent.interfaces.Sink` that publishes over a `Broker`.

    Args:
        broker: where messages go.
        topics: of this device.
        config: the outbox's bounds, and how detections are published.
        device: device id.
        boot: id of this run of the agent.
        outbox: keeps what cannot be sent; in memory by default.
        durable: takes everything instead, if given; what it loses leaves gaps in `seq`.
    """

    def __init__(
        self,
        broker: Broker,
        topics: Topics,
        config: MqttConfig,
        device: str,
        boot: str,
        outbox: Outbox | None = None,
        durable: Durable | None = None,
    ) -> None:
        self._broker = broker
        self._topics = topics
        # One value, so that another thread changes both at once: settings, and limits by camera.
        self._wanted: tuple[DetectionsConfig, dict[str, RateLimit]] = (config.detections, {})
        self._device = device
        self._boot = boot
        self._outbox = outbox or MemoryOutbox(config.outbox_messages, config.outbox_bytes)
        self._durable = durable
        self._lock = threading.Condition()
        self._inbox: deque[tuple[Result, bool]] = deque()
        # Frames lost, by camera: before its next result to be encoded, and to be sent.
        self._carried: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self._numbers: Counter[str] = Counter()
        self._published = 0
        self._drops: Counter[str] = Counter()
        self._withheld: Counter[str] = Counter()
        self._ready = True
        self._deadline: float | None = None
        self._crashed = threading.Event()
        self.activity = Activity()
        self._threads = ThreadGroup(self._crashed.set)
        broker.on_ready(self._on_ready)

    def start(self) -> None:
        """Begin to publish."""
        self._threads.start("publisher", self._run)

    def configure(self, detections: DetectionsConfig) -> None:
        """Publish otherwise from the next result on; all that waits goes out likewise."""
        self._wanted = (detections, {})
        if self._durable is not None:
            self._durable.expire(detections.expiry_s)

    def publish(self, result: Result) -> None:
        """Take one result; returns at once."""
        if self._crashed.is_set():
            self._threads.wait(0)  # raises what the thread ended with
        late = not self._broker.connected
        with self._lock:
            if len(self._inbox) >= MAX_INBOX:
                oldest, _ = self._inbox.popleft()
                self._drops["backlog"] += 1
                self._carried[oldest.camera] += oldest.dropped + 1
            self._inbox.append((result, late))
            self._lock.notify_all()

    def close(self, timeout_s: float) -> None:
        """Hand on what waits, as far as the broker takes it in time, and end."""
        with self._lock:
            self._deadline = time.monotonic() + timeout_s
            self._lock.notify_all()
        self._threads.wait(timeout_s)

    def counters(self) -> dict[str, object]:
        """Plain values for telemetry: what happened since the start, and what waits."""
        with self._lock:
            return {
                "published": self._published,
                "dropped": dict(self._drops),
                "withheld": dict(self._withheld),
                "outbox_messages": len(self._outbox),
                "outbox_bytes": self._outbox.size_bytes,
            }

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._has_work():
                    # Computed anew each time: `close` sets the deadline while this waits.
                    deadline = self._deadline
                    self._lock.wait(None if deadline is None else deadline - time.monotonic())
                batch = list(self._inbox)
                self._inbox.clear()
            self.activity.mark()
            stallpoint.hit("publish")
            # First what waits: with a full outbox and a broker that is back, nothing is dropped.
            self._send()
            for result, late in batch:
                self._draft(result, late)
            self._send()
            with self._lock:
                if self._ended():
                    if unsent := len(self._outbox) + len(self._inbox):
                        self._drops["stopped"] += unsent
                    self.activity.rest()
                    return
            self.activity.rest()

    def _has_work(self) -> bool:
        waiting = bool(self._inbox) or (self._ready and len(self._outbox) > 0)
        return waiting or self._ended()

    def _ended(self) -> bool:
        if self._deadline is None:
            return False
        nothing = not self._inbox and not len(self._outbox)
        return nothing or time.monotonic() >= self._deadline

    def _draft(self, result: Result, late: bool) -> None:
        camera = result.camera
        withheld = self._withholds(result)
        body = b""
        if withheld is None:
            try:
                body = messages.detection_body(result)
            except WireError as error:
                self._note_invalid(result, error)
                return
        with self._lock:
            dropped = result.dropped + self._carried.pop(camera, 0)
            if withheld is not None:
                self._withheld[withheld] += 1
                self._carried[camera] = dropped
                return
            if self._durable is not None:
                number = self._numbers[camera]
                self._durable.take_detection(camera, number, dropped, body, replay=late)
                self._numbers[camera] += 1
                self._published += 1
                return
            for lost in self._outbox.put(Draft(camera, body, dropped, replay=late)):
                self._drops["outbox"] += 1
                self._lost[lost.camera] += lost.dropped + 1

    def _withholds(self, result: Result) -> str | None:
        """Why the configuration does not want this result published, or None."""
        settings, limits = self._wanted
        if not settings.empty and not len(result.detections):
            return "empty"
        limit = limits.get(result.camera)
        if limit is None:
            limit = limits[result.camera] = RateLimit(settings.max_rate_hz)
        return None if limit.passes(result.monotonic_ns / NS_PER_S) else "rate"

    def _note_invalid(self, result: Result, error: WireError) -> None:
        with self._lock:
            self._drops["invalid"] += 1
            self._carried[result.camera] += result.dropped + 1
            first = self._drops["invalid"] == 1
        log.log(logging.ERROR if first else logging.DEBUG, "camera %s: %s", result.camera, error)

    def _send(self) -> None:
        while True:
            with self._lock:
                draft = self._outbox.first()
                if draft is None or not self._ready:
                    return
                # Before the attempt: the broker may become ready just after it refused.
                self._ready = False
            camera = draft.camera
            settings, _ = self._wanted
            head = messages.detection_head(
                self._device,
                self._boot,
                camera,
                self._numbers[camera],
                self._lost[camera] + draft.dropped,
                replay=draft.replay,
            )
            taken = self._broker.publish(
                self._topics.detections(camera),
                head + draft.body,
                qos=settings.qos,
                schema=DETECTIONS,
                expiry_s=settings.expiry_s,
            )
            if not taken:
                return
            with self._lock:
                self._ready = True
                self._published += 1
                self._numbers[camera] += 1
                self._lost[camera] = 0
                self._outbox.remove_first()

    def _on_ready(self) -> None:
        with self._lock:
            self._ready = True
            self._lock.notify_all()
