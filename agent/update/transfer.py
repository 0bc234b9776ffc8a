"""Which blocks of a bundle are asked for, kept and given up: a transfer without any network. Pure.

A window of missing blocks is asked for at a time, and slides by an eighth of it when so many have
come, as each packet that asks costs both sides more than each block in it does; so
that no queue on the way can overflow and memory stays bounded however large a bundle is. A block is
kept only if it is what the signed index says. Bytes come from whoever can publish; nothing here
raises for what they are.

Where nothing comes for a while although there is a connection, the broker does not hold what is
missing: it is asked for again, and the controller is asked to publish it again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.wire.updaterequest import MAX_RANGES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from agent.bundle.index import BlockIndex

STALL_S = 60.0
"""Without a block for so long, what is missing is asked for anew."""

MAX_BAD = 3
"""Blocks that are not what the index says before the transfer is given up: whoever published them
will go on."""

SILENT_STALLS = 2
"""After so many stalls in a row without any block, the connection itself may be at fault."""

MAX_REQUESTED = 4096
"""Blocks that the controller is asked for at once."""

SLIDES = 8
"""The window slides by this part of it."""

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done now.

    Attributes:
        subscribe: blocks to ask the broker for.
        unsubscribe: blocks that need not come again.
        keep: the block just received is the right one: to be written before anything else.
        request: first and last of each range that the controller shall publish again.
        done: nothing is missing any more, once the block that is to be kept is written.
        reconnect: this connection gives nothing any more; another one may.
        failed: why the transfer is given up, or empty.
    """

    subscribe: tuple[int, ...] = ()
    unsubscribe: tuple[int, ...] = ()
    keep: bool = False
    request: Ranges = ()
    done: bool = False
    reconnect: bool = False
    failed: str = ""


NOTHING = Step()

MISSING, REQUESTED, PRESENT = range(3)


class Transfer:
    """One bundle on its way.

    Args:
        index: what its blocks must be.
        present: blocks that are there already.
        window: blocks that are asked for at a time, at least 1.
        stall_s: without a block for so long, what is missing is asked for anew; seconds.

    Attributes:
        counts: "blocks" and "bytes" that were kept; messages that were not, by cause:
            "duplicates", "unasked", "empty", "bad"; "stalls".
        failed: why it was given up, or empty.
    """

    def __init__(
        self, index: BlockIndex, present: Collection[int], window: int, stall_s: float = STALL_S
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.failed = ""
        self._index = index
        self._window = max(window, 1)
        self._slide = max(self._window // SLIDES, 1)
        self._stall_s = stall_s
        self._state = bytearray(index.blocks)
        for number in present:
            self._state[number] = PRESENT
        self._left = index.blocks - self._state.count(PRESENT)
        self._asked: set[int] = set()
        self._next = 0
        self._quiet_since: float | None = None
        self._fruitless = 0
        self._silent = 0

    @property
    def done(self) -> bool:
        """Whether nothing is missing."""
        return self._left == 0

    @property
    def present(self) -> int:
        """Blocks that are there."""
        return len(self._state) - self._left

    def reconnected(self, now: float) -> Step:
        """A connection has begun, the first or a later one, on which nothing was asked for yet."""
        self._quiet_since = now
        self._fill()
        return Step(subscribe=tuple(sorted(self._asked)), done=self.done, failed=self.failed)

    def waiting(self, now: float) -> None:
        """There is no connection; this time does not count."""
        self._quiet_since = now

    def received(self, number: int, block: bytes, now: float) -> Step:
        """A message has come on a block's topic."""
        if self.failed:
            return Step(failed=self.failed)
        if number not in self._asked:
            present = 0 <= number < len(self._state) and self._state[number] == PRESENT
            self.counts["duplicates" if present else "unasked"] += 1
            return NOTHING
        if not block:
            # What takes a retained message back.
            self.counts["empty"] += 1
            return NOTHING
        if not self._index.fits(number, block):
            return self._refuse(number)
        return self._accept(number, len(block), now)

    def tick(self, now: float) -> Step:
        """Time has passed with a connection; to be called about every second."""
        if self._quiet_since is None:
            self._quiet_since = now
        if self.done or self.failed or now - self._quiet_since < self._stall_s:
            return NOTHING
        self._quiet_since = now
        self.counts["stalls"] += 1
        news = any(self._state[number] == MISSING for number in self._asked)
        # The controller has published what was asked for, and what comes next is missing too: the
        # broker has lost more than a few.
        wanted = self._missing() if self._fruitless and news else sorted(self._asked)
        self._fruitless += 1
        self._silent += 1
        for number in wanted:
            self._state[number] = REQUESTED
        return Step(
            subscribe=tuple(sorted(self._asked)),
            request=ranges(wanted),
            reconnect=self._silent % SILENT_STALLS == 0,
        )

    def _accept(self, number: int, size: int, now: float) -> Step:
        if self._state[number] == MISSING:
            self._fruitless = 0
        self._silent = 0
        self._quiet_since = now
        self._state[number] = PRESENT
        self._left -= 1
        self._asked.discard(number)
        self.counts["blocks"] += 1
        self.counts["bytes"] += size
        return Step(subscribe=self._fill(), unsubscribe=(number,), keep=True, done=self.done)

    def _refuse(self, number: int) -> Step:
        self.counts["bad"] += 1
        if self.counts["bad"] < MAX_BAD:
            return Step(request=((number, number),))
        self.failed = (
            f"{MAX_BAD} blocks are not what the signed index says, the last is block {number}: "
            "somebody publishes wrong blocks, or the broker damages them"
        )
        return Step(failed=self.failed)

    def _fill(self) -> tuple[int, ...]:
        """Ask for as many more as the window has room for, once it is worth a packet."""
        added: list[int] = []
        if self._window - len(self._asked) < self._slide:
            return ()
        while len(self._asked) < self._window and self._next < len(self._state):
            if self._state[self._next] != PRESENT:
                self._asked.add(self._next)
                added.append(self._next)
            self._next += 1
        return tuple(added)

    def _missing(self) -> list[int]:
        missing = (n for n, state in enumerate(self._state) if state != PRESENT)
        return [number for number, _ in zip(missing, range(MAX_REQUESTED), strict=False)]


def ranges(numbers: Iterable[int]) -> Ranges:
    """First and last of each run of ascending numbers; no more than one request may carry."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        elif len(found) == MAX_RANGES:
            break
        else:
            found.append((number, number))
    return tuple(found)
