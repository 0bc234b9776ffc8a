"""What passes through a connection to the broker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Message:
    """A message to publish.

    Attributes:
        topic: without wildcards.
        payload: JSON, or a piece of a bundle.
        qos: 0 or 1.
        retain: the broker keeps it for those who subscribe later.
        schema: id of the payload's schema, told as a user property with MQTT 5; may be empty.
        expiry_s: the broker may forget it after this, with MQTT 5; None: never.
        acknowledged: called, in the link's thread, when the broker has it (QoS 1), if given.
    """

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    schema: str = ""
    expiry_s: int | None = None
    acknowledged: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class Handlers:
    """What a session reports, from within `Session.step`.

    Attributes:
        received: topic and payload of a message of a subscription.
        acknowledged: packet id of a QoS 1 message, and why the broker refused it, or empty.
        subscribed: packet id of a subscription, and for each of its filters why the broker refused
            it, or empty.
    """

    received: Callable[[str, bytes], None]
    acknowledged: Callable[[int, str], None]
    subscribed: Callable[[int, tuple[str, ...]], None]
