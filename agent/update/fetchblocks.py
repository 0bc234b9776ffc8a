"""Carries out what a transfer decides: pulls a payload's blocks over a connection, and writes them.

The connection's thread takes messages into a bounded queue; this side hashes and writes, so that
neither waits for the other.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.errors import TransferError
from agent.update.fetchqueue import OVERHEAD_BYTES, FetchQueue
from agent.update.fetchrate import Rate
from agent.wire.updaterequest import UpdateRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.bundle.index import BlockIndex
    from agent.mqttlink import Link
    from agent.update.blockfile import BlockFile
    from agent.update.transfer import Step, Transfer
    from agent.wire.topics import FleetTopics

QOS = 1

LOOK_S = 0.2
"""How often it is looked whether to stop, and whether time is over."""

TELL_S = 0.5
"""Time between two calls that tell how it goes."""

BATCH = 16
"""Blocks that are looked at together, so that their topics share packets."""

BESIDE_CAMERAS = 0.1
"""Part of the time that looking at blocks may take while cameras are analysed: inference comes
first. What still arrives, some 30 MB/s, is more than most networks bring."""

PACED_BATCH = 4
"""Blocks that are looked at together where time is left to others: short bursts delay no frame by
much."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What a transfer took.

    Attributes:
        blocks, bytes: what was kept.
        duplicates: blocks that came although they were there.
        bad: blocks that were not what the index says.
        stray: other messages that nobody asked for.
        dropped: messages that were not looked at, as a newer one of their topic came.
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


class Pull:
    """One payload on its way.

    Args:
        topics: that all devices read.
        bundle: id of the bundle.
        index: what its blocks must be.
        transfer: decides.
        file: where blocks go.
        window: blocks that are asked for at a time.
        ask: asks the controller to publish something again.
        tell: takes blocks there, blocks in all, bytes a second.
        duty: part of the time, above 0 and up to 1, that looking at blocks may take.
        clock: monotonic seconds.
        pause: waits so many seconds.
    """

    def __init__(
        self,
        *,
        topics: FleetTopics,
        bundle: str,
        index: BlockIndex,
        transfer: Transfer,
        file: BlockFile,
        window: int,
        ask: Callable[[UpdateRequest], None],
        tell: Callable[[int, int, float], None],
        duty: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._topics = topics
        self._bundle = bundle
        self._prefix = topics.block(bundle, "")
        self._index = index
        self._transfer = transfer
        self._file = file
        self._ask = ask
        self._tell_to = tell
        self._clock = clock
        self._pause = pause
        self._idle_per_busy = 1 / duty - 1
        self._batch = BATCH if duty == 1 else PACED_BATCH
        # A window's messages and those of what was asked for meanwhile.
        self._queue = FetchQueue(2 * window * (index.block_bytes + OVERHEAD_BYTES))
        self._rate = Rate(clock())
        self._told = clock()
        self._connects = 0
        self.tell()

    @property
    def done(self) -> bool:
        """Whether nothing is missing."""
        return self._transfer.done

    def over(self, link: Link, check: Callable[[], None]) -> None:
        """Pull until nothing is missing, or this link had better be made anew.

        Args:
            link: nothing was asked for over it yet.
            check: called now and then; may raise.

        Raises:
            TransferError: what comes is not what the index says.
            StoreError: the disk refuses.
        """
        self._carry_out(link, [self._transfer.reconnected(self._clock())])
        anew = False
        while not (anew or self.done):
            check()
            arrived = self._queue.take(self._batch, LOOK_S)
            now = self._clock()
            self._carry_out(link, self._take(arrived, now))
            if arrived and self._idle_per_busy:
                # The window is small: whoever sends waits too.
                self._pause(min(LOOK_S, self._idle_per_busy * (self._clock() - now)))
            if link.connected:
                step = self._transfer.tick(now)
                self._carry_out(link, [step])
                anew = step.reconnect
            else:
                # The link asks for everything again as soon as it is connected.
                self._transfer.waiting(now)
            if now - self._told >= TELL_S:
                self.tell()
        self._connects += int(str(link.counters()["connects"]))

    def tell(self) -> None:
        """Tell how it goes."""
        self._told = self._clock()
        speed = self._rate.note(self._told, self._transfer.counts["bytes"])
        self._tell_to(self._transfer.present, self._index.blocks, speed)

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
            connects=self._connects,
        )

    def _take(self, arrived: list[tuple[str, bytes]], now: float) -> list[Step]:
        steps, kept = [], []
        for topic, payload in arrived:
            # Only topics that were subscribed to come here.
            number = int(topic.removeprefix(self._prefix))
            step = self._transfer.received(number, payload, now)
            if step.keep:
                kept.append((number, payload))
            steps.append(step)
        # Before anything that was decided with them is carried out.
        self._file.keep(kept)
        return steps

    def _carry_out(self, link: Link, steps: list[Step]) -> None:
        left = [self._topic(number) for step in steps for number in step.unsubscribe]
        new = [self._topic(number) for step in steps for number in step.subscribe]
        if left:
            link.unsubscribe(left)
        if new:
            link.subscribe_all(new, self._queue.put, QOS)
        for step in steps:
            if step.request:
                self._ask(UpdateRequest(self._bundle, blocks=step.request))
            if step.failed:
                raise TransferError(step.failed)

    def _topic(self, number: int) -> str:
        return self._topics.block(self._bundle, number)
