"""Finds the MQTT version that a broker knows, by connecting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.mqttpaho import MAX_INCOMING_BYTES
from agent.mqttreason import ConnectError
from agent.mqttsession import Session

if TYPE_CHECKING:
    from agent.config import MqttConfig
    from agent.mqttmessage import Handlers, Message

DOUBT_S = 3.0
"""After so long without an answer to MQTT 5 the broker may be one that knows 3.1.1 only: some take
what they do not understand for the beginning of a longer packet, and wait for the rest."""


def connect(
    config: MqttConfig,
    client_id: str,
    handlers: Handlers,
    will: Message | None = None,
    *,
    guess: bool = True,
    max_incoming_bytes: int = MAX_INCOMING_BYTES,
) -> Session:
    """Connect with MQTT 5, or 3.1.1 if the broker knows no better or the settings say so.

    Args:
        config: the broker.
        client_id: unique at the broker.
        handlers: where events go.
        will: what the broker publishes when we vanish.
        guess: take a broker that hangs up or stays silent for one that knows 3.1.1 only; one that
            refuses MQTT 5 in words always is.
        max_incoming_bytes: a larger packet ends the connection.

    Raises:
        ConnectError: the broker cannot be reached or refuses us.
        ConfigError: a TLS file cannot be used.
    """
    versions = {"auto": (5, 4), "5": (5,), "3.1.1": (4,)}[config.protocol]
    for version in versions:
        last = version == versions[-1]
        session = Session(config, client_id, handlers, version, will, max_incoming_bytes)
        try:
            session.open(config.connect_timeout_s if last or not guess else DOUBT_S)
        except ConnectError as error:
            session.close()
            too_new = error.version == "refused" or (guess and error.version == "doubtful")
            if last or not too_new:
                raise
        except BaseException:
            session.close()
            raise
        else:
            return session
    raise AssertionError("every version either connects or raises")
