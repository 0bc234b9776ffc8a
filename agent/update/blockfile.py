"""A payload that is written block by block, and the map of what was written.

The map is a hint, the index is the truth: what the map marks is hashed when the file is opened
again, and what does not fit is missing. So neither a crash in the middle of a write nor a torn map
can do harm. Nothing is synced block by block: what the kernel has not written when the power goes
is found missing and pulled again.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from agent.errors import StoreError
from agent.update.failpoints import hit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

    from agent.bundle.index import BlockIndex

FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
BITS = 8
STOP_EVERY = 256
"""Blocks (16 MiB) that are hashed before it is asked whether to stop."""


@contextlib.contextmanager
def open_rw(path: Path) -> Iterator[int]:
    """A descriptor for reading and writing; the file is made, 0600, where there is none.

    Raises:
        OSError: the disk refuses, or it is a link.
    """
    descriptor = os.open(path, FLAGS, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class BlockFile:
    """A context manager; for one thread.

    Args:
        payload: the ciphertext, with all its room.
        have: the map: one bit for each block, lowest first.
        index: what the blocks must be.
        stop: asked now and then; true ends the reading early.

    Attributes:
        present: blocks that are there, as the index wants them.

    Raises:
        OSError: the disk refuses.
    """

    def __init__(
        self, payload: Path, have: Path, index: BlockIndex, stop: Callable[[], bool]
    ) -> None:
        self._path = payload
        self._index = index
        with contextlib.ExitStack() as opened:
            new = not have.exists()
            self._payload = opened.enter_context(open_rw(payload))
            self._have = opened.enter_context(open_rw(have))
            self._marks = bytearray(self._read_marks(new=new))
            self.present = frozenset(self._checked(stop))
            os.ftruncate(self._have, len(self._marks))
            _write_at(self._have, [self._marks], 0)
            self._opened = opened.pop_all()

    def keep(self, blocks: Sequence[tuple[int, bytes]]) -> None:
        """Write blocks that fit, then mark them.

        Args:
            blocks: number and content of each; neighbours that follow each other are one write.

        Raises:
            StoreError: the disk refuses.
        """
        try:
            for first, run in _runs(blocks):
                _write_at(self._payload, run, self._index.offset_of(first))
            for _ in blocks:
                hit("C1.block")
            for number, _ in blocks:
                self._marks[number // BITS] |= 1 << number % BITS
            if blocks:
                low = min(number for number, _ in blocks) // BITS
                high = max(number for number, _ in blocks) // BITS + 1
                _write_at(self._have, [self._marks[low:high]], low)
        except OSError as error:
            raise StoreError(
                f"{self._path} cannot be written: {error.strerror or error}; check the disk"
            ) from error

    def close(self) -> None:
        """Give everything back."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def _read_marks(self, *, new: bool) -> bytes:
        size = -(-self._index.blocks // BITS)
        if new:
            return bytes(size)
        if os.fstat(self._have).st_size == size:
            marks = os.pread(self._have, size, 0)
            if len(marks) == size:
                return marks
        # A torn map says nothing: everything may be there.
        return b"\xff" * size

    def _checked(self, stop: Callable[[], bool]) -> Iterator[int]:
        """Blocks that are marked and fit; those that do not fit are marked no more."""
        for number in range(self._index.blocks):
            if number % STOP_EVERY == 0 and stop():
                return
            at, bit = number // BITS, 1 << number % BITS
            if not self._marks[at] & bit:
                continue
            length, offset = self._index.length_of(number), self._index.offset_of(number)
            if self._index.fits(number, os.pread(self._payload, length, offset)):
                yield number
            else:
                self._marks[at] &= ~bit


def _runs(blocks: Sequence[tuple[int, bytes]]) -> Iterator[tuple[int, list[bytes]]]:
    """First number and contents of each run of blocks that follow each other."""
    run: list[bytes] = []
    first = 0
    for number, block in blocks:
        if run and number == first + len(run):
            run.append(block)
            continue
        if run:
            yield first, run
        first, run = number, [block]
    if run:
        yield first, run


def _write_at(descriptor: int, parts: Sequence[bytes | bytearray], offset: int) -> None:
    """Write all of it: one call may write less."""
    rest = [memoryview(part) for part in parts]
    while rest:
        written = os.pwritev(descriptor, rest, offset)
        offset += written
        while rest and written >= len(rest[0]):
            written -= len(rest.pop(0))
        if rest:
            rest[0] = rest[0][written:]
