"""What the broker lets this device do, and what it must not; and how long its certificate lasts."""

from __future__ import annotations

import secrets
import socket
import ssl
import time
from typing import TYPE_CHECKING

from agent.check import Finding
from agent.errors import AgentError
from agent.mqtt import client_id
from agent.mqttconnect import connect
from agent.mqttmessage import Handlers, Message
from agent.mqttreason import SessionLostError
from agent.tls import client_context
from agent.wire.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.config import MqttConfig
    from agent.mqttsession import Session

HOUR_S = 3_600.0
DAY_S = 24 * HOUR_S
SOON_S = 30 * DAY_S
ECHO_S = 1.5
"""Time for a message of a stranger's to come back."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def look(config: MqttConfig, device: str, timeout_s: float, *, updates: bool) -> Iterator[Finding]:
    """Certificate, then access list.

    Args:
        config: the broker.
        device: device id.
        timeout_s: for each step.
        updates: whether updates are configured, so that their topics must be readable.
    """
    if config.tls is not None:
        yield from certificate(config, timeout_s)
    try:
        yield from access(config, device, timeout_s, updates=updates)
    except SessionLostError as error:
        what = f"the broker hung up: {error.reason}"
        fix = error.hint or "see the broker's log: many hang up where their access list refuses"
        yield Finding("mqtt.acl", "fail", what, fix)
    except AgentError as error:
        what, _, fix = str(error).rpartition("; ")
        yield Finding("mqtt.acl", "fail", what or str(error), fix if what else "see `mqtt` above")


def certificate(config: MqttConfig, timeout_s: float) -> Iterator[Finding]:
    """How long the broker's certificate is valid; that it is trusted, `vigia check` has seen."""
    assert config.tls is not None
    port = config.port or 8883
    try:
        context = client_context(config.tls)
        with (
            socket.create_connection((config.host, port), timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=config.host) as link,
        ):
            seen = link.getpeercert() or {}
    except (OSError, AgentError) as error:
        what, _, fix = str(error).rpartition("; ")
        yield Finding("mqtt.certificate", "fail", what or str(error), fix if what else "see `mqtt`")
        return
    yield expiry(str(seen.get("notAfter", "")), time.time())


def expiry(not_after: str, now_s: float) -> Finding:
    """Pure: what an end of validity means."""
    try:
        left_s = ssl.cert_time_to_seconds(not_after) - now_s
    except ValueError:
        return Finding("mqtt.certificate", "warn", "the broker's certificate tells no end",
                       "make one with an end of validity")  # fmt: skip
    days = int(left_s / DAY_S)
    left = f"{days} more day{'s' * (days != 1)}" if days else f"{left_s / HOUR_S:.0f} more hours"
    what = f"the broker's certificate is valid until {not_after}: {left}"
    if left_s < SOON_S:
        return Finding("mqtt.certificate", "warn", what, "renew it before devices lose the broker")
    return Finding("mqtt.certificate", "ok", what)


def access(
    config: MqttConfig, device: str, timeout_s: float, *, updates: bool
) -> Iterator[Finding]:
    """Subscribe as the agent does, and try to speak for another device, on a topic nobody reads.

    Raises:
        ConnectError: the broker cannot be used.
        SessionLostError: it hung up.
    """
    topics = Topics(config.prefix, device)
    stranger = Topics(config.prefix, f"check-{secrets.token_hex(8)}").check
    heard = _Heard(stranger)
    limited = config.model_copy(update={"connect_timeout_s": timeout_s})
    session = connect(limited, f"{client_id(device)}-acl-{secrets.token_hex(4)}", heard.handlers())
    try:
        wanted = [topics.check, *([topics.assignment, topics.config_desired] if updates else [])]
        refused = heard.subscribe(session, wanted, timeout_s)
        for topic, why in refused.items():
            yield Finding("mqtt.acl", "fail", f"may not subscribe to {topic}: {why}",
                          "let this device read it in the broker's access list")  # fmt: skip
        if not refused:
            yield Finding("mqtt.acl", "ok", f"may subscribe to {', '.join(wanted)}")
        yield _speaks(config, heard.speaks_for(session, timeout_s))
    finally:
        session.close()


def _speaks(config: MqttConfig, through: bool) -> Finding:
    if not through:
        return Finding("mqtt.isolation", "ok", "this device cannot speak for another one")
    local = config.host in LOOPBACK
    what = "this device may publish and read as any other"
    fix = "give the broker an access list, in Mosquitto `pattern readwrite " + config.prefix
    fix += "/%u/#` with one user a device"
    return Finding("mqtt.isolation", "ok" if local else "warn", what + " (a broker of its own)"
                   if local else what, "" if local else fix)  # fmt: skip


class _Heard:
    """What a session answered."""

    def __init__(self, stranger: str) -> None:
        self._stranger = stranger
        self._token = secrets.token_hex(8).encode()
        self._answers: dict[int, tuple[str, ...]] = {}
        self._acknowledged = False
        self._refused = False
        self._came = False

    def handlers(self) -> Handlers:
        return Handlers(self._on_message, self._on_acknowledged, self._on_subscribed)

    def subscribe(self, session: Session, wanted: list[str], timeout_s: float) -> dict[str, str]:
        """Why each topic was refused that was; an answer that does not come is a refusal."""
        refused: dict[str, str] = {}
        deadline = time.monotonic() + timeout_s
        for topic in wanted:
            number = session.subscribe([(topic, 1)])
            while number not in self._answers and (left := deadline - time.monotonic()) > 0:
                session.step(left)
            why = self._answers.get(number, ("no answer",))
            if any(why):
                refused[topic] = why[0]
        return refused

    def speaks_for(self, session: Session, timeout_s: float) -> bool:
        """Whether a message on another device's topic came through."""
        if self.subscribe(session, [self._stranger], timeout_s):
            return False
        session.publish(Message(self._stranger, self._token, qos=1))
        deadline = time.monotonic() + timeout_s
        while not self._acknowledged and (left := deadline - time.monotonic()) > 0:
            session.step(left)
        end = time.monotonic() + ECHO_S
        while not (self._came or self._refused) and (left := end - time.monotonic()) > 0:
            session.step(left)
        return self._came

    def _on_message(self, topic: str, payload: bytes) -> None:
        self._came = self._came or (topic == self._stranger and payload == self._token)

    def _on_acknowledged(self, _number: int, refusal: str) -> None:
        self._acknowledged, self._refused = True, bool(refusal)

    def _on_subscribed(self, number: int, refusals: tuple[str, ...]) -> None:
        self._answers[number] = refusals
