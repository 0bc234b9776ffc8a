"""Pulls bundles from the broker over a connection of their own, so that no block delays a message.

The connection exists while something is fetched only. Its thread takes messages into a bounded
queue; whoever called hashes and writes. A broker that is away is waited for, as long as it takes.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.errors import TransferError
from agent.mqtt import client_id
from agent.mqttlink import Link
from agent.update.fetchqueue import OVERHEAD_BYTES, FetchQueue
from agent.update.fetchrate import Rate
from agent.update.ports import UpdateCancelled
from agent.update.transfer import MAX_BAD, Transfer
from agent.wire.updaterequest import UpdateRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.bundle.index import BlockIndex
    from agent.config import MqttConfig
    from agent.update.blockfile import BlockFile
    from agent.update.staging import Staging
    from agent.update.transfer import Step
    from agent.wire.topics import FleetTopics

QOS = 1

LOOK_S = 0.2
"""How often it is looked whether to stop, and whether time is over."""

TELL_S = 0.5
"""Time between two calls that tell how it goes."""

ASK_AGAIN_S = 15.0
"""Without a manifest or index for so long, the controller is asked to publish it again."""

PACKET_BYTES = 1024
"""More than a PUBLISH has beside its payload: topic and properties."""

CLOSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Counts:
    """What a transfer took.

    Attributes:
        blocks, bytes: what was kept.
        duplicates: blocks that came although they were there.
        bad: blocks that were not what the index says.
        stray: other messages that nobody asked for.
        dropped: messages there was no room for.
        stalls: times that nothing came.
        connects: connections that were made.
    """

    blocks: int = 0
    bytes: int = 0
    duplicates: int = 0
    bad: int = 0
    stray: int = 0
    dropped: int = 0
    stalls: int = 0
    connects: int = 0


class Fetcher:
    """Fetches one thing at a time.

    Args:
        config: the broker.
        device: device id.
        topics: that all devices read.
        ask: asks the controller to publish something again; must not raise.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        config: MqttConfig,
        device: str,
        topics: FleetTopics,
        ask: Callable[[UpdateRequest], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._id = f"{client_id(device)}-bulk"
        self._topics = topics
        self._ask = ask
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
        bad = 0
        queue = FetchQueue(MAX_BAD * (max_bytes + OVERHEAD_BYTES))
        until = self._clock() + timeout_s
        with self._link(max_bytes) as link:
            link.subscribe(topic, queue.put, QOS)
            quiet_since = self._clock()
            while (now := self._clock()) < until:
                self._check(cancelled)
                for _, payload in queue.take(LOOK_S):
                    if len(payload) <= max_bytes and _hash(payload) == sha256:
                        return payload
                    # An empty message takes a retained one back.
                    if payload:
                        bad += 1
                        quiet_since = now - ASK_AGAIN_S
                if bad >= MAX_BAD:
                    raise TransferError(
                        f"{bad} messages on {topic} are not what is asked for: somebody publishes "
                        "wrong ones"
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
            transfer = Transfer(index, file.present, window, stall_timeout_s)
            tell(transfer.present, index.blocks, 0.0)
            if transfer.done:
                return Counts()
            queue = FetchQueue(2 * window * (index.block_bytes + OVERHEAD_BYTES))
            with self._link(index.block_bytes) as link:
                pull = _Pull(self._topics, bundle, transfer, file, queue, link, self._ask)
                rate = Rate(self._clock())
                pull.begin(self._clock())
                told, done = self._clock(), False
                while not done:
                    self._check(cancelled)
                    done = pull.turn(self._clock)
                    now = self._clock()
                    if done or now - told >= TELL_S:
                        told = now
                        speed = rate.note(now, transfer.counts["bytes"])
                        tell(transfer.present, index.blocks, speed)
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


class _Pull:
    """Carries out what a transfer decides."""

    def __init__(
        self,
        topics: FleetTopics,
        bundle: str,
        transfer: Transfer,
        file: BlockFile,
        queue: FetchQueue,
        link: Link,
        ask: Callable[[UpdateRequest], None],
    ) -> None:
        self._topics = topics
        self._bundle = bundle
        self._prefix = topics.block(bundle, "")
        self._transfer = transfer
        self._file = file
        self._queue = queue
        self._link = link
        self._ask = ask

    def begin(self, now: float) -> None:
        """Ask for the first blocks."""
        self._carry_out([self._transfer.reconnected(now)])

    def turn(self, clock: Callable[[], float]) -> bool:
        """Take what has come, or wait for it a little; whether nothing is missing any more."""
        arrived = self._queue.take(LOOK_S)
        now = clock()
        if arrived:
            self._carry_out([self._take(topic, payload, now) for topic, payload in arrived])
        if not self._link.connected:
            # The link asks for everything again as soon as it is connected.
            self._transfer.waiting(now)
        else:
            self._carry_out([self._transfer.tick(now)])
        return self._transfer.done

    def counts(self) -> Counts:
        """What it took so far."""
        counts = self._transfer.counts
        return Counts(
            blocks=counts["blocks"],
            bytes=counts["bytes"],
            duplicates=counts["duplicates"],
            bad=counts["bad"],
            stray=counts["unasked"] + counts["empty"],
            dropped=self._queue.dropped,
            stalls=counts["stalls"],
            connects=int(str(self._link.counters()["connects"])),
        )

    def _take(self, topic: str, payload: bytes, now: float) -> Step:
        number = int(topic.removeprefix(self._prefix))
        step = self._transfer.received(number, payload, now)
        if step.keep:
            self._file.keep(number, payload)
        return step

    def _carry_out(self, steps: list[Step]) -> None:
        """Several at once, so that their topics share packets."""
        left = [self._topic(number) for step in steps for number in step.unsubscribe]
        new = [self._topic(number) for step in steps for number in step.subscribe]
        if left:
            self._link.unsubscribe(left)
        if new:
            self._link.subscribe_all(new, self._queue.put, QOS)
        for step in steps:
            if step.request:
                self._ask(UpdateRequest(self._bundle, blocks=step.request))
            if step.failed:
                raise TransferError(step.failed)

    def _topic(self, number: int) -> str:
        return self._topics.block(self._bundle, number)


def _hash(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()


def _request(topic: str) -> UpdateRequest:
    """What asks for the piece of a topic: `<prefix>/bundles/<id>/manifest` or `.../index`."""
    _, bundle, kind = topic.rsplit("/", 2)
    return UpdateRequest(bundle, manifest=kind == "manifest", index=kind == "index")
