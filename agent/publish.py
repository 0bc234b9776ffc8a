"""Takes results away from the pipeline and publishes them, in a thread of its own.

The pipeline's side only appends to the outbox. A message gets its `seq` when it is handed to the
broker's client, so readers see no gaps over what was published; whatever was left out before it
(superseded or dropped frames, results that gave way in the outbox or to the rate limit) is told in
its `dropped`.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Protocol

from agent.wire.messages import DETECTIONS, encode_detections

if TYPE_CHECKING:
    from agent.config import MqttConfig
    from agent.detection import Result
    from agent.outbox import Outbox
    from agent.wire.topics import Topics

IDLE_S = 1.0
"""How long the thread waits at a time when there is nothing to do."""

RATE_SLACK = 0.05
"""Part of an interval by which a message may come early under `max_rate_hz`."""

NS_PER_S = 1e9


class WaitingBroker(Protocol):
    """A broker that a publisher can wait for."""

    @property
    def connected(self) -> bool:
        """See `agent.interfaces.Broker`."""

    def publish(
        self, topic: str, payload: bytes, *, qos: int, retain: bool = False, schema: str = ""
    ) -> bool:
        """See `agent.interfaces.Broker`."""

    def wait_progress(self, timeout_s: float) -> None:
        """Wait until something was acknowledged or a session began or ended."""


class Publisher:
    """An `agent.interfaces.Sink` that publishes detections.

    Args:
        broker: takes the messages.
        outbox: where results wait for it.
        topics: the device's topics.
        config: `mqtt` section.
        device: device id.
        boot: id of this run.
    """

    def __init__(
        self,
        *,
        broker: WaitingBroker,
        outbox: Outbox,
        topics: Topics,
        config: MqttConfig,
        device: str,
        boot: str,
    ) -> None:
        self._broker = broker
        self._outbox = outbox
        self._topics = topics
        self._settings = config.detections
        self._device = device
        self._boot = boot
        self._lock = threading.Lock()
        self._published: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()
        self._drops: Counter[str] = Counter()
        self._due_ns: dict[str, float] = {}
        self._closing = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publish", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def publish(self, result: Result) -> None:
        """See `agent.interfaces.Sink`: appends, and returns at once."""
        cause = self._unwanted(result)
        if cause is not None:
            self._leave_out(result, cause)
            return
        for old in self._outbox.put(result):
            self._leave_out(old, "outbox_full")

    def counters(self) -> dict[str, object]:
        """Messages published by camera, results left out by cause, results that wait."""
        with self._lock:
            return {
                "published": dict(self._published),
                "drops": dict(self._drops),
                "waiting": len(self._outbox),
            }

    def close(self, timeout_s: float) -> bool:
        """Publish what waits, in `timeout_s` at the most, and end.

        Returns:
            True if nothing was left.
        """
        self._closing.set()
        self._outbox.wake()
        done = self._ended.wait(timeout_s) and not len(self._outbox)
        if not done:
            with self._lock:
                self._drops["shutdown"] += len(self._outbox)
        return done

    def _unwanted(self, result: Result) -> str | None:
        if not self._settings.empty and not len(result.detections):
            return "empty"
        if self._settings.max_rate_hz is None:
            return None
        interval = NS_PER_S / self._settings.max_rate_hz
        due = self._due_ns.get(result.camera)
        if due is not None and result.monotonic_ns < due - RATE_SLACK * interval:
            return "rate"
        late = due is None or result.monotonic_ns - due > interval
        self._due_ns[result.camera] = (result.monotonic_ns if late else due or 0) + interval
        return None

    def _leave_out(self, result: Result, cause: str) -> None:
        with self._lock:
            self._drops[cause] += 1
            self._left_out[result.camera] += 1 + result.dropped

    def _run(self) -> None:
        while True:
            closing = self._closing.is_set()
            result = self._outbox.take(0.0 if closing else IDLE_S)
            if result is None:
                if closing:
                    self._ended.set()
                    return
            elif not self._send(result):
                for old in self._outbox.restore(result):
                    self._leave_out(old, "outbox_full")
                if closing and not self._broker.connected:
                    self._ended.set()
                    return
                self._broker.wait_progress(IDLE_S)

    def _send(self, result: Result) -> bool:
        camera = result.camera
        with self._lock:
            seq, left_out = self._published[camera], self._left_out[camera]
        payload = encode_detections(
            result, self._device, self._boot, seq, result.dropped + left_out
        )
        topic = self._topics.detections(camera)
        if not self._broker.publish(topic, payload, qos=self._settings.qos, schema=DETECTIONS):
            return False
        with self._lock:
            self._published[camera] += 1
            # More may have been left out meanwhile; it is told with the next message.
            self._left_out[camera] -= left_out
        return True
