"""Tries a broker once: resolve, connect, TLS, login, and a message to ourselves."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from agent.mqtt import client_id
from agent.mqttconnect import connect
from agent.mqttmessage import Handlers, Message
from agent.mqttreason import ConnectError, SessionLostError
from agent.wire.topics import Topics

if TYPE_CHECKING:
    from agent.config import MqttConfig
    from agent.mqttsession import Session

ECHO_S = 2.0
"""Time for a message to come back once the broker has acknowledged it."""


@dataclass(frozen=True, slots=True)
class BrokerReport:
    """A broker that can be used.

    Attributes:
        where: "host:port".
        protocol: MQTT version, "5" or "3.1.1".
        tls: TLS version such as "TLSv1.3", or None without TLS.
        connect_ms: time from nothing to a session, milliseconds.
        round_trip_ms: time for a message to come back, or None if it did not.
        warning: what may be wrong all the same, and what to do; may be empty.
    """

    where: str
    protocol: str
    tls: str | None
    connect_ms: float
    round_trip_ms: float | None
    warning: str = ""

    def text(self) -> str:
        """One line for people."""
        secured = self.tls or "no TLS"
        line = f"{self.where}: MQTT {self.protocol}, {secured}, in {self.connect_ms:.0f} ms"
        if self.round_trip_ms is None:
            return line
        return f"{line}, a message came back in {self.round_trip_ms:.1f} ms"


def check_broker(config: MqttConfig, device: str, timeout_s: float) -> BrokerReport:
    """Connect under an id of its own, publish a message below the device's topics, end.

    Args:
        config: the broker.
        device: device id; a running agent of this id is not disturbed.
        timeout_s: for connecting, and again for the message.

    Raises:
        ConnectError: with stage, reason and hint.
        ConfigError: a TLS file cannot be used.
    """
    limited = config.model_copy(update={"connect_timeout_s": timeout_s})
    echo = _Echo(Topics(config.prefix, device).check)
    name = f"{client_id(device)}-check-{secrets.token_hex(4)}"
    began = time.monotonic()
    # With a will, as the agent: what a broker does not do without one does not help the agent.
    session = connect(limited, name, echo.handlers(), Message(echo.topic, b"{}", qos=1))
    connected = time.monotonic()
    try:
        round_trip_s = echo.run(session, connected + timeout_s)
    except SessionLostError as error:
        raise ConnectError(session.where, "publish", error.reason, error.hint) from error
    finally:
        session.close()
    warning = (
        ""
        if round_trip_s is not None
        else f"a message on {echo.topic} did not come back; the broker's access list may keep this "
        "device from publishing or reading there"
    )
    return BrokerReport(
        where=session.where,
        protocol=session.version,
        tls=session.tls_version,
        connect_ms=(connected - began) * 1e3,
        round_trip_ms=None if round_trip_s is None else round_trip_s * 1e3,
        warning=warning,
    )


class _Echo:
    """Sends itself a message through the broker."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self._token = secrets.token_hex(8).encode()
        self._subscribed = False
        self._acknowledged: str | None = None
        self._came_back = False

    def handlers(self) -> Handlers:
        """For the session."""
        return Handlers(self._on_message, self._on_acknowledged, self._on_subscribed)

    def run(self, session: Session, deadline: float) -> float | None:
        """Send the message and wait for it.

        Returns:
            Seconds until it came back, or None if it was acknowledged and did not.

        Raises:
            ConnectError: it was refused, or not acknowledged in time.
            SessionLostError: the connection ended.
        """
        # A device that may only write is none the worse for a refused subscription.
        session.subscribe([(self.topic, 0)])
        while not self._subscribed:
            self._step(session, deadline, "subscribe")
        sent = time.monotonic()
        session.publish(Message(self.topic, self._token, qos=1))
        while self._acknowledged is None:
            self._step(session, deadline, "publish")
        if self._acknowledged:
            raise ConnectError(
                session.where,
                "publish",
                f"refuses a message on {self.topic}: {self._acknowledged}",
                "let this user write there in the broker's access list",
            )
        end = time.monotonic() + ECHO_S
        while not self._came_back and (left := end - time.monotonic()) > 0:
            session.step(left)
        return time.monotonic() - sent if self._came_back else None

    def _step(
        self, session: Session, deadline: float, stage: Literal["subscribe", "publish"]
    ) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise ConnectError(session.where, stage, f"does not answer a {stage} request")
        session.step(left)

    def _on_message(self, _topic: str, payload: bytes) -> None:
        self._came_back = self._came_back or payload == self._token

    def _on_acknowledged(self, _mid: int, refusal: str) -> None:
        self._acknowledged = refusal

    def _on_subscribed(self, _mid: int, _refusals: tuple[str, ...]) -> None:
        self._subscribed = True
