"""Keeps events, and detections where asked, until the broker has acknowledged them; sends in order.

Whoever has a message hands it over without waiting. One thread owns the rest: it sends, and what
the broker has not acknowledged within the flush interval is written to the disk, all of it in one
transaction; what is acknowledged before that never costs the flash anything. What lies there is
sent before anything newer, after a restart too, and while the disk cannot be written. A disk that
is full, read-only or damaged costs the durability, which is told and counted, and nothing else.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from agent import stallpoint
from agent.progress import Activity
from agent.spooldisk import Disk
from agent.spoolitem import DETECTION, EVENT, PRIORITIES, Item, Memory, first_key
from agent.spoolwindow import Window
from agent.threads import ThreadGroup
from agent.wire.events import event_body, event_head
from agent.wire.messages import detection_head
from agent.wire.schema import DETECTIONS as DETECTIONS_SCHEMA
from agent.wire.schema import EVENT as EVENT_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.config import SpoolConfig
    from agent.interfaces import Broker
    from agent.spooldisk import Tell
    from agent.wire.events import Event
    from agent.wire.topics import Topics

log = logging.getLogger(__name__)

MEMORY_MESSAGES = 5000
MEMORY_BYTES = 8 * 2**20
"""What is kept where there is no disk, or it is slow."""

LAST_EVENTS = 32
"""Of what waits when the thread hangs; the broker's link has a short queue."""

JOIN_MARGIN_S = 1.0
"""For the last write, beyond the time to send; a disk that takes longer is left to itself."""

FLUSH_MESSAGES = 512
"""So many that are not on the disk are written before the flush interval is over."""


class Spool:
    """Takes messages from any thread; never blocks on a disk or a network.

    Args:
        broker: where messages go.
        topics: of this device.
        device: device id.
        boot: id of this run of the agent.
        settings: bounds and times.
        folder: where the file is; None: in memory only.
        expiry_s: the broker may forget a detection after this; None: never.
        now: seconds since the epoch.
        clock: monotonic seconds.

    Attributes:
        activity: what its thread does at present: one round of sending and writing.
    """

    def __init__(
        self,
        broker: Broker,
        topics: Topics,
        device: str,
        boot: str,
        settings: SpoolConfig,
        folder: Path | None,
        expiry_s: int | None = None,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._broker = broker
        self._topics = topics
        self._device = device
        self._boot = boot
        self._settings = settings
        self._expiry_s = expiry_s
        self._now = now
        self._clock = clock
        # Guards what follows; notified when the thread has something to do.
        self._lock = threading.Condition()
        self._memory = Memory(MEMORY_MESSAGES, MEMORY_BYTES)
        self._acks: list[int] = []
        self._woken = False
        self._ready = True
        self._number = 0
        self._seq = 0
        self._late_below = 0
        self._taken = 0
        self._evicted = 0
        self._acknowledged = 0
        self._stopped = 0
        self._deadline: float | None = None
        # The thread's own.
        # One file for each device id: several agents on one machine do not meet.
        path = None if folder is None else folder / f"{device}.db"
        self._disk = Disk(path, settings, now, clock)
        self._window = Window(clock)
        self.activity = Activity(clock)
        self._threads = ThreadGroup(self._crashed)
        broker.on_ready(self._on_ready)

    def expire(self, expiry_s: int | None) -> None:
        """The broker may forget detections after this from now on; None: never."""
        self._expiry_s = expiry_s

    def start(self, tell: Tell) -> None:
        """Begin to send, first what earlier runs left.

        Args:
            tell: told what happens to the spool itself; see `agent.events.Events.tell`.
        """
        self._disk.tell = tell
        self._threads.start("spool", self._run)

    def take_event(self, event: Event) -> None:
        """Take an event; returns at once.

        Raises:
            WireError: it cannot be encoded.
        """
        body = event_body(event)
        late = not self._broker.connected
        with self._lock:
            self._take(EVENT, "", self._seq, 0, body, event.ts, late=late)
            self._seq += 1

    def take_detection(
        self, camera: str, seq: int, dropped: int, body: bytes, *, replay: bool
    ) -> None:
        """Take a detection message; returns at once."""
        with self._lock:
            self._take(DETECTION, camera, seq, dropped, body, self._now(), late=replay)

    def close(self, timeout_s: float) -> None:
        """Send what waits as far as the broker takes it in time, keep the rest, and end.

        Raises:
            BaseException: what its thread ended with, if that was a mistake in it.
        """
        with self._lock:
            self._deadline = self._clock() + timeout_s
            self._wake()
        self._threads.wait(timeout_s + JOIN_MARGIN_S)

    def speak_past_thread(self) -> None:
        """Send the newest events that wait, without its thread, which hangs; the process ends.

        They lie in memory only, so that no later run sends them again.
        """
        with self._lock:
            waiting = [item for item in self._memory.all() if item.priority == EVENT]
        for item in waiting[-LAST_EVENTS:]:
            head = event_head(self._device, item.boot, item.seq, replay=item.replay)
            self._broker.publish(self._topics.events, head + item.body, qos=1, schema=EVENT_SCHEMA)

    def counters(self) -> dict[str, object]:
        """Plain values for telemetry: what happened since the start, and what waits."""
        disk = self._disk.counters()
        with self._lock:
            return {
                "taken": self._taken,
                "acknowledged": self._acknowledged,
                "given_up": self._window.given_up,
                "memory_messages": len(self._memory),
                "memory_bytes": self._memory.size_bytes,
                "dropped": {"memory": self._evicted, "stopped": self._stopped, **disk.dropped},
                "disk_messages": disk.messages,
                "disk_bytes": disk.size_bytes,
                "written": disk.written,
                "transactions": disk.transactions,
                "failures": disk.failures,
                "damaged_files": disk.damaged,
                "disk": disk.state,
            }

    def _take(
        self, priority: int, stream: str, seq: int, dropped: int, body: bytes, at: float, *,
        late: bool,
    ) -> None:  # fmt: skip
        key = first_key(priority) + self._number
        item = Item(key, self._boot, stream, seq, dropped, late, at, body, self._clock())
        self._number += 1
        self._taken += 1
        self._evicted += len(self._memory.put(item))
        self._wake()

    def _wake(self) -> None:
        self._woken = True
        self._lock.notify_all()

    def _on_ready(self) -> None:
        with self._lock:
            self._ready = True
            self._wake()

    def _crashed(self) -> None:
        # The error itself is raised by `close`; until then the cameras go on.
        log.critical("the spool has ended by a mistake in it; nothing more is sent from it")

    def _acknowledge(self, ticket: int) -> None:
        with self._lock:
            self._acks.append(ticket)
            self._wake()

    def _run(self) -> None:
        while True:
            self.activity.mark()
            stallpoint.hit("spool")
            self._turn()
            with self._lock:
                if not self._woken and not self._ended():
                    self.activity.rest()
                    self._lock.wait(self._pause())
                    self.activity.mark()
                self._woken = False
            self._settle()
            if self._ended():
                self._finish()
                self.activity.rest()
                return

    def _turn(self) -> None:
        # All there is to do at this moment.
        self._settle()
        self._look_after_disk()
        self._send()
        self._flush()

    def _look_after_disk(self) -> None:
        """Open the file if it is time, and let what is too old or too much go."""
        if self._disk.open(self._window):
            # What this run has made so far comes after what was there.
            self._renumber(self._disk.last + 1)
        self._disk.tidy(self._window.keys())

    def _renumber(self, number: int) -> None:
        with self._lock:
            unwritten = [*self._memory.all(), *self._window.unwritten()]
            lowest = min((i.number for i in unwritten), default=self._number)
            if lowest >= number:
                self._number = max(self._number, number)
                return
            shift = number - lowest
            self._memory.shift(shift)
            self._window.shift(shift)
            self._number += shift
            self._late_below += shift

    def _send(self) -> None:
        for overdue in self._window.overdue(connected=self._broker.connected):
            if not self._publish(overdue, self._window.ticket(overdue.key), replay=True):
                return
            self._window.again(overdue.key)
        self._disk.gone.update(self._window.hopeless())
        while self._window.room:
            item, stored = self._next()
            if item is None:
                return
            late = item.number < self._late_below
            ticket = self._window.ticket(item.key)
            if not self._publish(item, ticket, replay=stored or item.replay or late):
                return
            with self._lock:
                self._window.sent(item, ticket, stored=stored)
                if stored:
                    self._disk.sent(item)
                else:
                    self._memory.pop(item.key)

    def _next(self) -> tuple[Item | None, bool]:
        """What is to be sent next, and whether it is on the disk."""
        for priority in PRIORITIES:
            item = self._disk.next(priority, self._window.keys())
            if item is not None:
                return item, True
            with self._lock:
                item = self._memory.first(priority)
            if item is not None:
                return item, False
        return None, False

    def _publish(self, item: Item, ticket: int, *, replay: bool) -> bool:
        with self._lock:
            if not self._ready:
                return False
            # Before the attempt: the broker may become ready just after it refused.
            self._ready = False
        if item.priority == EVENT:
            topic, schema, expiry_s = self._topics.events, EVENT_SCHEMA, None
            head = event_head(self._device, item.boot, item.seq, replay=replay)
        else:
            topic, schema = self._topics.detections(item.stream), DETECTIONS_SCHEMA
            expiry_s = self._expiry_s
            head = detection_head(
                self._device, item.boot, item.stream, item.seq, item.dropped, replay=replay
            )
        taken = self._broker.publish(
            topic,
            head + item.body,
            qos=1,
            schema=schema,
            expiry_s=expiry_s,
            acknowledged=lambda: self._acknowledge(ticket),
        )
        with self._lock:
            if taken:
                self._ready = True
            elif not self._broker.connected:
                self._late_below = self._number
        return taken

    def _flush(self, *, all_: bool = False) -> None:
        with self._lock:
            full = len(self._memory) >= FLUSH_MESSAGES and self._clock() >= self._disk.write_at
            if not (all_ or full or self._flush_in() <= 0):
                return
            new = self._memory.all()
        if not self._disk.change(new, self._window.unwritten(), self._window):
            return
        with self._lock:
            for item in new:
                self._memory.pop(item.key)

    def _flush_in(self) -> float:
        """Seconds until something must be written, or infinite; called under the lock."""
        oldest = filter(None, map(self._memory.first, PRIORITIES))
        since = [item.taken for item in (*oldest, *self._window.unwritten())]
        if self._disk.gone_since is not None:
            since.append(self._disk.gone_since)
        due_at = min(since, default=float("inf")) + self._settings.flush_interval_s
        return max(due_at, self._disk.write_at) - self._clock()

    def _settle(self) -> None:
        with self._lock:
            acks, self._acks = self._acks, []
        done = self._window.acknowledged(acks)
        self._disk.remove(key for key, stored in done if stored)
        with self._lock:
            self._acknowledged += len(done)

    def _pause(self) -> float | None:
        """How long the thread may sleep; called under the lock."""
        waits = [self._disk.pause(), self._window.pause(), self._flush_in()]
        if self._deadline is not None:
            waits.append(self._deadline - self._clock())
        least = max(0.0, min(waits))
        return None if least == float("inf") else least

    def _ended(self) -> bool:
        if self._deadline is None:
            return False
        nothing = not len(self._memory) and not self._window.keys() and self._disk.all_sent
        return nothing or not self._broker.connected or self._clock() >= self._deadline

    def _finish(self) -> None:
        self._flush(all_=True)
        with self._lock:
            self._stopped = len(self._memory) + len(self._window.unwritten())
        self._disk.close()
