"""Pulls bundles from the broker over a connection of their own, so that no block delays a message.

The connection exists only while something is fetched. A broker that is away is waited for, as long
as it takes.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from typing import TYPE_CHECKING

from agent.errors import TransferError
from agent.mqtt import client_id
from agent.mqttlink import Link
from agent.update.fetchblocks import LOOK_S, QOS, Counts, Pull
from agent.update.fetchqueue import OVERHEAD_BYTES, FetchQueue
from agent.update.ports import UpdateCancelled
from agent.update.transfer import MAX_BAD, Transfer
from agent.wire.updaterequest import UpdateRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.bundle.index import BlockIndex
    from agent.config import MqttConfig
    from agent.update.staging import Staging
    from agent.wire.topics import FleetTopics

ASK_AGAIN_S = 15.0
"""Without a manifest or index for so long, the controller is asked to publish it again."""

PACKET_BYTES = 1024
"""More than a PUBLISH has beside its payload: topic and properties."""

CLOSE_S = 1.0


class Fetcher:
    """Fetches one thing at a time.

    Args:
        config: the broker.
        device: device id.
        topics: that all devices read.
        ask: asks the controller to publish something again; must not raise.
        duty: part of the time that looking at blocks may take; see `agent.update.fetchblocks`.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        config: MqttConfig,
        device: str,
        topics: FleetTopics,
        ask: Callable[[UpdateRequest], None],
        duty: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._id = f"{client_id(device)}-bulk"
        self._topics = topics
        self._ask = ask
        self._duty = duty
        self._clock = clock
        self._closed = threading.Event()

    def close(self) -> None:
        """Have what is being fetched end as if it were cancelled, and nothing begin."""
        self._closed.set()

    def piece(
        self,
        topic: str,
        max_bytes: int,
        sha256: str,
        timeout_s: float,
        cancelled: threading.Event,
    ) -> bytes:
        """Fetch a manifest or an index.

        Args:
            topic: as `FleetTopics.manifest` or `FleetTopics.index` gives it.
            max_bytes: larger ones are not looked at.
            sha256: what it must hash to, hexadecimal.
            timeout_s: longest wait.
            cancelled: set when it is to be broken off.

        Raises:
            TransferError: it did not come in time, or something else came again and again.
            UpdateCancelled: `cancelled` was set.
        """
        queue = FetchQueue(MAX_BAD * (max_bytes + PACKET_BYTES + OVERHEAD_BYTES))
        bad = 0
        quiet_since = self._clock()
        until = quiet_since + timeout_s
        with self._link(max_bytes) as link:
            link.subscribe(topic, queue.put, QOS)
            while (now := self._clock()) < until:
                self._check(cancelled)
                for _, payload in queue.take(1, LOOK_S):
                    if len(payload) <= max_bytes and _sha256(payload) == sha256:
                        return payload
                    # An empty message is no wrong one: it takes a retained one back.
                    if payload:
                        bad += 1
                        quiet_since = now - ASK_AGAIN_S
                if bad >= MAX_BAD:
                    raise TransferError(
                        f"{bad} messages on {topic} are not what was asked for: somebody "
                        "publishes wrong ones, or the broker damages them"
                    )
                if not link.connected:
                    quiet_since = now
                elif now - quiet_since >= ASK_AGAIN_S:
                    quiet_since = now
                    self._ask(_request(topic))
                    link.subscribe(topic, queue.put, QOS)
        raise TransferError(f"nothing came on {topic} within {timeout_s:g} s")

    def blocks(
        self,
        bundle: str,
        index: BlockIndex,
        staging: Staging,
        window: int,
        stall_timeout_s: float,
        tell: Callable[[int, int, float], None],
        cancelled: threading.Event,
    ) -> Counts:
        """Fetch what is missing of a payload.

        Args:
            bundle: its id.
            index: what its blocks must be.
            staging: where they go.
            window: blocks that are asked for at a time.
            stall_timeout_s: without a block for so long, missing ones are asked for anew.
            tell: takes blocks there, blocks in all, bytes a second.
            cancelled: set when it is to be broken off.

        Raises:
            TransferError: what comes is not what the index says.
            StoreError: the disk refuses.
            UpdateCancelled: `cancelled` was set.
        """
        with staging.blocks(index, cancelled.is_set) as file:
            self._check(cancelled)
            pull = Pull(
                topics=self._topics,
                bundle=bundle,
                index=index,
                transfer=Transfer(index, file.present, window, stall_timeout_s),
                file=file,
                window=window,
                ask=self._ask,
                tell=tell,
                duty=self._duty,
                clock=self._clock,
            )
            while not pull.done:
                with self._link(index.block_bytes) as link:
                    pull.over(link, lambda: self._check(cancelled))
            pull.tell()
            return pull.counts()

    def _check(self, cancelled: threading.Event) -> None:
        if cancelled.is_set() or self._closed.is_set():
            raise UpdateCancelled

    @contextlib.contextmanager
    def _link(self, payload_bytes: int) -> Iterator[Link]:
        link = Link(self._config, self._id, max_incoming_bytes=payload_bytes + PACKET_BYTES)
        link.start()
        try:
            yield link
        finally:
            link.close(CLOSE_S)


def _sha256(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()


def _request(topic: str) -> UpdateRequest:
    """What asks for the piece of a topic: `<prefix>/bundles/<id>/manifest` or `.../index`."""
    _, bundle, kind = topic.rsplit("/", 2)
    return UpdateRequest(bundle, manifest=kind == "manifest", index=kind == "index")
