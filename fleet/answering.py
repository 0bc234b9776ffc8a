"""Publishes again what the broker does not hold any more and devices ask for.

Whoever reaches a device's request topic can ask for anything, so everything is bounded: requests
and pieces of each device, what waits, and how soon the same piece is sent again. Who gets less than
it asked for asks again; what one device got sent, all others that wait for it get too.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import TYPE_CHECKING

from agent.errors import WireError
from agent.wire.updaterequest import parse_update_request
from fleet.allowance import Allowances

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from agent.wire.topics import FleetTopics
    from fleet.bundlefiles import BundleFiles

REQUESTS_PER_S = 0.5
REQUESTS_BURST = 8
"""A device asks when nothing has come for many seconds."""

BLOCKS_PER_S = 256
BLOCKS_BURST = 4096
"""16 MiB a second and device, 256 MiB at once."""

MAX_WAITING = 16_384
"""Pieces that may wait to be sent, for all devices: 1 GiB of blocks."""

REPEAT_S = 5.0
"""A piece that was sent so recently is on its way."""

Piece = tuple[str, str, int]
"""Bundle id; "manifest", "index" or "block"; number of the block."""


class Answers:
    """Takes requests, gives messages to publish. For one thread.

    Args:
        topics: that all devices read.
        library: published bundles by id.
        devices: who may ask: enrolled and not revoked.

    Attributes:
        counts: what became of requests and pieces, by kind.
    """

    def __init__(
        self, topics: FleetTopics, library: Mapping[str, BundleFiles], devices: Collection[str]
    ) -> None:
        self._topics = topics
        self._library = library
        self._devices = frozenset(devices)
        self._requests = Allowances(REQUESTS_PER_S, REQUESTS_BURST)
        self._blocks = Allowances(BLOCKS_PER_S, BLOCKS_BURST)
        self._waiting: OrderedDict[Piece, None] = OrderedDict()
        self._sent: OrderedDict[Piece, float] = OrderedDict()
        self.counts: Counter[str] = Counter()

    @property
    def waiting(self) -> int:
        """Pieces that are still to be sent."""
        return len(self._waiting)

    def ask(self, device: str, payload: bytes, now: float) -> None:
        """Take a request; never raises for what it says.

        Args:
            device: whose topic it came on.
            payload: JSON, from outside.
            now: monotonic seconds.
        """
        if device not in self._devices:
            self.counts["of strangers"] += 1
            return
        if not self._requests.take(device, 1, now):
            self.counts["too soon"] += 1
            return
        try:
            said, request = parse_update_request(payload)
        except WireError:
            self.counts["garbage"] += 1
            return
        files = self._library.get(request.bundle)
        if files is None or said != device:
            self.counts["of no bundle here"] += 1
            return
        self.counts["taken"] += 1
        if request.manifest:
            self._want((request.bundle, "manifest", 0), now)
        if request.index:
            self._want((request.bundle, "index", 0), now)
        for first, last in request.blocks:
            end = min(last + 1, files.blocks)
            given = self._blocks.take(device, max(end - first, 0), now)
            for number in range(first, first + given):
                self._want((request.bundle, "block", number), now)

    def messages(self, most: int, now: float) -> Iterator[tuple[str, bytes]]:
        """What is to be published, retained: topic and payload.

        Raises:
            StoreError: a bundle of ours cannot be read.
        """
        for _ in range(min(most, len(self._waiting))):
            piece, _none = self._waiting.popitem(last=False)
            self._sent[piece] = now
            if len(self._sent) > MAX_WAITING:
                self._sent.popitem(last=False)
            self.counts["sent"] += 1
            yield self._message(piece)

    def _want(self, piece: Piece, now: float) -> None:
        if now - self._sent.get(piece, -REPEAT_S) < REPEAT_S or piece in self._waiting:
            self.counts["on its way"] += 1
        elif len(self._waiting) >= MAX_WAITING:
            self.counts["too many"] += 1
        else:
            self._sent.pop(piece, None)
            self._waiting[piece] = None

    def _message(self, piece: Piece) -> tuple[str, bytes]:
        bundle, kind, number = piece
        files = self._library[bundle]
        if kind == "manifest":
            return self._topics.manifest(bundle), files.manifest_bytes
        if kind == "index":
            return self._topics.index(bundle), files.index()
        return self._topics.block(bundle, number), files.block(number)
