"""The block index: what each block of a payload must hash to before it is kept.

Big-endian, version 1:

    magic "VGIX" | version u8 = 1 | hash u8 = 1 (SHA-256) | u16 = 0 | bytes of a block u32
    | blocks u32 | bytes of the ciphertext u64 | u64 = 0 | SHA-256 of each block, 32 bytes

The manifest pins it by its SHA-256.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.errors import ManifestError

if TYPE_CHECKING:
    from cryptography.utils import Buffer

    from agent.bundle.manifest import Manifest

MAGIC = b"VGIX"
VERSION = 1
SHA_256 = 1
HEADER = struct.Struct(">4sBBHIIQQ")
HASH_BYTES = 32


@dataclass(frozen=True, slots=True)
class BlockIndex:
    """Lengths and hashes of a payload's blocks, which are numbered from 0.

    Attributes:
        block_bytes: of every block but the last, which has the rest.
        ciphertext_length: bytes of all blocks together.
        hashes: SHA-256 of each block, one after the other, 32 bytes each.
    """

    block_bytes: int
    ciphertext_length: int
    hashes: bytes

    def __post_init__(self) -> None:
        if self.block_bytes < 1 or self.ciphertext_length < 1:
            raise ManifestError("index: a payload has at least one block, of at least one byte")
        expected = -(-self.ciphertext_length // self.block_bytes) * HASH_BYTES
        if len(self.hashes) != expected:
            raise ManifestError(
                f"index: {len(self.hashes)} bytes of hashes, but its payload asks for {expected}"
            )

    @classmethod
    def parse(cls, data: bytes, manifest: Manifest) -> BlockIndex:
        """Read the index that a manifest pins; nothing is read before its hash has matched.

        Raises:
            ManifestError: it is another, or does not describe the manifest's payload.
        """
        expected = manifest.index
        if len(data) != expected.length:
            raise ManifestError(f"index: {len(data)} bytes, the manifest says {expected.length}")
        if not hmac.compare_digest(hashlib.sha256(data).hexdigest(), expected.sha256):
            raise ManifestError("index: its SHA-256 is not the manifest's")
        index = cls._decode(data)
        described = (index.block_bytes, index.blocks, index.ciphertext_length)
        pinned = (expected.block_bytes, expected.blocks, manifest.ciphertext.length)
        if described != pinned:
            raise ManifestError(
                f"index: block size, blocks and length are {described}, the manifest's {pinned}"
            )
        return index

    @classmethod
    def _decode(cls, data: bytes) -> BlockIndex:
        if len(data) < HEADER.size:
            raise ManifestError(f"index: {len(data)} bytes are less than its header")
        magic, version, kind, zero, block_bytes, blocks, length, zeros = HEADER.unpack_from(data)
        if magic != MAGIC:
            raise ManifestError("index: it does not begin as one")
        if (version, kind) != (VERSION, SHA_256):
            raise ManifestError(
                f"index: version {version} with hash {kind} is not known; update the agent"
            )
        if zero or zeros:
            raise ManifestError("index: reserved bytes are not 0")
        index = cls(block_bytes, length, data[HEADER.size :])
        if index.blocks != blocks:
            raise ManifestError(f"index: it says {blocks} blocks, its payload has {index.blocks}")
        return index

    def encode(self) -> bytes:
        """The index as bytes."""
        head = HEADER.pack(
            MAGIC, VERSION, SHA_256, 0, self.block_bytes, self.blocks, self.ciphertext_length, 0
        )
        return head + self.hashes

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return len(self.hashes) // HASH_BYTES

    def offset_of(self, number: int) -> int:
        """Where a block begins in the payload, in bytes."""
        return number * self.block_bytes

    def length_of(self, number: int) -> int:
        """Bytes of a block."""
        return min(self.block_bytes, self.ciphertext_length - self.offset_of(number))

    def fits(self, number: int, block: Buffer) -> bool:
        """Whether this is the block: right length, right SHA-256. False too for no such block."""
        if not 0 <= number < self.blocks or memoryview(block).nbytes != self.length_of(number):
            return False
        at = number * HASH_BYTES
        return hashlib.sha256(block).digest() == self.hashes[at : at + HASH_BYTES]
