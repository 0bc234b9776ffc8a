"""Puts pieces of bundles onto a broker, as a controller or as an enemy does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from typing_extensions import Self

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.wire.topics import FleetTopics
    from agent.wire.updaterequest import UpdateRequest
    from tests.fakes.blocks import Blocks

BUNDLE = "ab" * 16
WAIT_S = 30.0


class Pieces:
    """A connection that publishes retained messages and waits until the broker has them.

    Args:
        port: on loopback.
        topics: of the fleet.
        tls: for `Client.tls_set`.
    """

    def __init__(self, port: int, topics: FleetTopics, tls: dict[str, Any] | None = None) -> None:
        self._port = port
        self._topics = topics
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.max_inflight_messages_set(64)
        if tls:
            self._client.tls_set(**tls)

    def __enter__(self) -> Self:
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def put(self, messages: Iterable[tuple[str, bytes]]) -> None:
        sent = [self._client.publish(topic, payload, 1, True) for topic, payload in messages]
        for info in sent:
            info.wait_for_publish(WAIT_S)
            assert info.is_published()

    def blocks(self, source: Blocks, numbers: Iterable[int] | None = None) -> None:
        chosen = range(len(source.blocks)) if numbers is None else numbers
        self.put((self._topics.block(BUNDLE, n), source.blocks[n]) for n in chosen)

    def answer(self, source: Blocks, request: UpdateRequest) -> None:
        """What a controller does when it is asked."""
        assert request.bundle == BUNDLE
        for first, last in request.blocks:
            self.blocks(source, range(first, last + 1))
