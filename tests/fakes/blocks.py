"""Payloads cut into blocks, with their index."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

from agent.bundle.index import BlockIndex


@dataclass(frozen=True)
class Blocks:
    """A payload.

    Attributes:
        index: as signed.
        blocks: content by number.
    """

    index: BlockIndex
    blocks: tuple[bytes, ...]

    @property
    def payload(self) -> bytes:
        return b"".join(self.blocks)


def make_blocks(count: int, block_bytes: int = 4096, last: int | None = None, seed: int = 0):
    """Random blocks, the last of them shorter if `last` says so."""
    data = random.Random(seed).randbytes(block_bytes * (count - 1) + (last or block_bytes))
    blocks = tuple(data[at : at + block_bytes] for at in range(0, len(data), block_bytes))
    hashes = b"".join(hashlib.sha256(block).digest() for block in blocks)
    return Blocks(BlockIndex(block_bytes, len(data), hashes), blocks)
