"""Where cameras hand frames to the workers of one model: bounded, fair, and closable.

A live camera has one place and its newest frame wins; a lossless one has a few and waits for room.
Workers take in turn from the cameras that have something, so a fast camera cannot starve a slow
one. Whoever takes gets a ticket; every ticket must be completed (`agent.pipeline.order`).

Workers of two models may take from one intake while one model replaces the other: who is retired
gets nothing more, and what waits goes to those that are not.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.frame import Frame

NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Ticket:
    """A frame on its way through the model.

    Attributes:
        frame: the frame.
        order: number of this ticket among its camera's, from 0 without gaps.
        skipped: frames of this camera superseded by newer ones since the previous ticket.
    """

    frame: Frame
    order: int
    skipped: int


@dataclass(slots=True)
class _Mailbox:
    lossless: bool
    waiting: deque[Frame] = field(default_factory=deque)
    taken: int = 0
    skipped: int = 0
    ended: bool = False
    removed: bool = False


class Intake:
    """The mailboxes of all cameras that share one model.

    Args:
        cameras: for each camera's name, whether it is lossless.
        queue_frames: frames of a lossless camera that may wait.
    """

    def __init__(self, cameras: Mapping[str, bool], queue_frames: int) -> None:
        self._boxes = {name: _Mailbox(lossless) for name, lossless in cameras.items()}
        self._limit = queue_frames
        self._turns = deque(self._boxes)
        self._closed = False
        self._over = False
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)

    def put(self, frame: Frame) -> bool:
        """Hand over a frame; waits for room only if the camera is lossless.

        Returns:
            False if the intake is closed, or the camera removed, and the frame was not taken.
        """
        with self._lock:
            box = self._boxes[frame.camera]
            if box.lossless:
                while len(box.waiting) >= self._limit and not (self._closed or box.removed):
                    self._room.wait()
            elif box.waiting:
                box.waiting.clear()
                box.skipped += 1
            if self._closed or box.removed:
                return False
            box.waiting.append(frame)
            self._arrived.notify()
            return True

    def add(self, camera: str, *, lossless: bool) -> bool:
        """Take frames of one more camera, or of one that was removed and comes back.

        Its tickets go on being numbered where they ended.

        Returns:
            False if the intake is closed or everything has ended: nobody would take them.
        """
        with self._lock:
            if self._closed or self._over:
                return False
            box = self._boxes.get(camera)
            if box is None:
                self._boxes[camera] = _Mailbox(lossless)
                self._turns.append(camera)
            else:
                box.lossless, box.ended, box.removed = lossless, False, False
            return True

    def remove(self, camera: str) -> None:
        """Take no more frames of a camera; those that wait are still given out.

        An intake without cameras does not end by that: another may come.
        """
        with self._lock:
            self._boxes[camera].removed = True
            self._arrived.notify_all()
            self._room.notify_all()

    def end(self, camera: str) -> None:
        """Say that this camera gives no more; when all have ended, `take` drains and ends."""
        with self._lock:
            self._boxes[camera].ended = True
            self._arrived.notify_all()

    def close(self) -> None:
        """Take no more frames; those that wait are still given out."""
        with self._lock:
            self._closed = True
            self._arrived.notify_all()
            self._room.notify_all()

    def discard(self) -> dict[str, int]:
        """Throw away what waits, for a stop that cannot wait.

        Returns:
            How many frames of each camera were thrown away.
        """
        with self._lock:
            counts = {name: len(box.waiting) for name, box in self._boxes.items()}
            for box in self._boxes.values():
                box.waiting.clear()
            self._room.notify_all()
            return counts

    def waiting(self) -> int:
        """How many frames wait."""
        with self._lock:
            return sum(len(box.waiting) for box in self._boxes.values())

    def waiting_since(self) -> float | None:
        """When the oldest of them was captured, monotonic seconds; None if none waits."""
        with self._lock:
            heads = [box.waiting[0].monotonic_ns for box in self._boxes.values() if box.waiting]
        return min(heads) / NS_PER_S if heads else None

    def wake(self) -> None:
        """Have everyone who waits in `take` ask again whether he is still wanted."""
        with self._lock:
            self._arrived.notify_all()

    def take(self, limit: int, wanted: Callable[[], bool] = lambda: True) -> list[Ticket]:
        """Wait for frames and take up to `limit`, from the cameras in turn.

        Args:
            limit: frames taken at the most.
            wanted: whether the caller is to take any more; asked before each look, so call `wake`
                after its answer has changed. Must be quick.

        Returns:
            At least one ticket, or none at the end or when the caller is not wanted any more.
        """
        with self._lock:
            while True:
                if not wanted():
                    # A frame may have woken this thread instead of one that would take it.
                    self._arrived.notify()
                    return []
                tickets = self._take_in_turn(limit)
                if tickets:
                    self._room.notify_all()
                    return tickets
                if self._closed or self._all_ended():
                    self._over = True
                    return []
                self._arrived.wait()

    def _all_ended(self) -> bool:
        there = [box for box in self._boxes.values() if not box.removed]
        return bool(there) and all(box.ended for box in there)

    def newer(self, ticket: Ticket) -> Ticket | None:
        """A newer frame of a live ticket's camera, to be run in the ticket's place, or None.

        Only the camera's last ticket can be exchanged: the frame of a later one would come after a
        frame that is newer than itself.
        """
        with self._lock:
            box = self._boxes[ticket.frame.camera]
            if box.lossless or not box.waiting or ticket.order != box.taken - 1:
                return None
            skipped, box.skipped = box.skipped + 1, 0
            return replace(ticket, frame=box.waiting.pop(), skipped=ticket.skipped + skipped)

    def _take_in_turn(self, limit: int) -> list[Ticket]:
        tickets: list[Ticket] = []
        idle = 0
        while len(tickets) < limit and idle < len(self._turns):
            name = self._turns[0]
            self._turns.rotate(-1)
            box = self._boxes[name]
            if not box.waiting:
                idle += 1
                continue
            idle = 0
            tickets.append(Ticket(box.waiting.popleft(), box.taken, box.skipped))
            box.taken, box.skipped = box.taken + 1, 0
        return tickets
