"""The device's link to its broker: client id, birth and will, state."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from agent.mqttlink import Link
from agent.mqttmessage import Message
from agent.wire import messages
from agent.wire.schema import STATUS
from agent.wire.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.backoff import Backoff
    from agent.config import MqttConfig

FLUSH_PART = 0.5
"""Part of the time to close that what waits may take, so that "offline" can come last."""


def client_id(device: str) -> str:
    """The device's id at the broker; a broker that sees it twice ends the older connection."""
    return f"vigia-{device}"


class MqttClient(Link):
    """A link that says on the device's status topic whether the device is there.

    Args:
        config: the broker.
        device: device id.
        boot: id of this run of the agent.
        now: seconds since the epoch.
        backoff: delays between attempts; made from the settings by default.
    """

    def __init__(
        self,
        config: MqttConfig,
        device: str,
        boot: str,
        now: Callable[[], float] = time.time,
        backoff: Backoff | None = None,
    ) -> None:
        super().__init__(config, client_id(device), self._last_will, backoff)
        self._device = device
        self._boot = boot
        self._now = now
        self._topic = Topics(config.prefix, device).status
        self._state_lock = threading.Lock()
        self._state = ("", "")
        self.set_state("online")

    def set_state(self, state: str, reason: str = "") -> None:
        """Tell how the device is, if that is news: "online", "degraded" or "stopping", and why."""
        with self._state_lock:
            if (state, reason) == self._state:
                return
            self._state = (state, reason)
            self.set_retained(self._topic, self._status(state, reason), STATUS)

    def close(self, timeout_s: float) -> None:
        """Send what was taken, say "offline", and end; never raises.

        If there is no time to say it, the will does.
        """
        deadline = time.monotonic() + timeout_s
        if self.connected:
            self.flush(timeout_s * FLUSH_PART)
        self.set_state("offline")
        super().close(max(0.0, deadline - time.monotonic()))

    def _status(self, state: str, reason: str = "") -> bytes:
        return messages.encode_status(self._device, self._boot, state, reason, ts=self._now())

    def _last_will(self) -> Message:
        payload = self._status("offline", "the connection was lost")
        return Message(self._topic, payload, qos=1, retain=True, schema=STATUS)
