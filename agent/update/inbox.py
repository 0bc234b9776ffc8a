"""What has arrived for the updater and was not looked at yet: bounded, the newest win."""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass

from agent.bundle.documents import MAX_ENVELOPE_BYTES
from agent.bundle.trustmessage import MAX_MESSAGE_BYTES

MAX_COMMANDS = 16


@dataclass(frozen=True, slots=True)
class Arrived:
    """Everything that came since it was looked at last.

    Attributes:
        trust: the newest trust message, or None.
        assignment: the newest assignment, or None.
        commands: in the order in which they came.
        settings: the newest settings, or None.
    """

    trust: bytes | None
    assignment: bytes | None
    commands: tuple[bytes, ...]
    settings: bytes | None = None


class Inbox:
    """Filled by the MQTT thread, emptied by the updater's.

    Attributes:
        refused: messages that were not taken, by cause.
    """

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._trust: bytes | None = None
        self._assignment: bytes | None = None
        self._settings: bytes | None = None
        self._commands: deque[bytes] = deque()
        self._closed = False
        self._poked = False

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def trust(self, _topic: str, payload: bytes) -> None:
        """Take a trust message."""
        with self._changed:
            if self._fits(payload, MAX_MESSAGE_BYTES):
                self._trust = payload
                self._changed.notify_all()

    def assignment(self, _topic: str, payload: bytes) -> None:
        """Take an assignment, or the empty message that takes it back."""
        with self._changed:
            if self._fits(payload, MAX_ENVELOPE_BYTES):
                self._assignment = payload
                self._changed.notify_all()

    def settings(self, _topic: str, payload: bytes) -> None:
        """Take settings; the empty message that takes them from the broker says nothing."""
        with self._changed:
            if payload and self._fits(payload, MAX_ENVELOPE_BYTES):
                self._settings = payload
                self._changed.notify_all()

    def command(self, _topic: str, payload: bytes) -> None:
        """Take a command."""
        with self._changed:
            if len(self._commands) >= MAX_COMMANDS:
                self.refused["too_many"] += 1
            elif self._fits(payload, MAX_ENVELOPE_BYTES):
                self._commands.append(payload)
                self._changed.notify_all()

    def poke(self) -> None:
        """Make `wait` return."""
        with self._changed:
            self._poked = True
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing more is to be begun."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> None:
        """Wait until something has arrived, was poked or closed, or for `timeout_s`."""
        with self._changed:
            self._changed.wait_for(self._something, timeout_s)
            self._poked = False

    def take(self) -> Arrived:
        """Everything that has arrived; the inbox is empty afterwards."""
        with self._changed:
            arrived = Arrived(self._trust, self._assignment, tuple(self._commands), self._settings)
            self._trust = self._assignment = self._settings = None
            self._commands.clear()
            return arrived

    def _something(self) -> bool:
        return bool(
            self._closed
            or self._poked
            or self._trust is not None
            or self._assignment is not None
            or self._settings is not None
            or self._commands
        )

    def _fits(self, payload: bytes, limit: int) -> bool:
        if len(payload) > limit:
            self.refused["too_large"] += 1
            return False
        return True
