"""The ports of the agent: what the parts ask of each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.detection import Result


class Sink(Protocol):
    """Takes results away. Never blocks on a network and never raises for one."""

    def publish(self, result: Result) -> None:
        """Take one result; called in order for each camera, from several threads."""


class Broker(Protocol):
    """Publishes bytes on topics; reconnects by itself for ever."""

    @property
    def connected(self) -> bool:
        """True while a session with the broker is up."""

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int,
        retain: bool = False,
        schema: str = "",
        expiry_s: int | None = None,
        acknowledged: Callable[[], None] | None = None,
    ) -> bool:
        """Hand one message to the client without waiting.

        Args:
            topic: without wildcards.
            payload: JSON.
            qos: 0 or 1.
            retain: the broker keeps it for those who subscribe later.
            schema: id of the payload's schema.
            expiry_s: the broker may forget it after this many seconds; None: never.
            acknowledged: called, from any thread, when the broker has a message of QoS 1.

        Returns:
            False if the message was not taken (not connected, or too many in flight); the caller
            decides whether to keep or drop it.
        """

    def on_ready(self, callback: Callable[[], None]) -> None:
        """Have `callback` called, from any thread, when messages are taken again after a refusal.

        It must be quick and must not raise.
        """
