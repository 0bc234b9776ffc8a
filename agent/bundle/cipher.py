"""The payload's cipher: C2SP chunked encryption, "Cobblestone-256", as a stream.

    salt, 24 bytes | commitment to the key, 32 bytes | chunks of 16,384 bytes, each + tag, 16 bytes

Only the last chunk is shorter, and it may be empty; so a stream that was cut does not open. The
format is https://c2sp.org/chunked-encryption with AEAD_AES_256_GCM. Decrypting gives out what was
authenticated, nothing else, but everybody who holds the key could have made it: what may be
decrypted is for the block index to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag

from agent.errors import BundleError

if TYPE_CHECKING:
    from cryptography.utils import Buffer

KEY_BYTES = 32
SALT_BYTES = 24
COMMITMENT_BYTES = 32
HEADER_BYTES = SALT_BYTES + COMMITMENT_BYTES
CHUNK_BYTES = 16_384
TAG_BYTES = 16
SLACK_BYTES = 2 * (CHUNK_BYTES + TAG_BYTES) + HEADER_BYTES
"""By how much a call can give out more than it was given: what earlier calls held back."""


def ciphertext_bytes(plaintext_bytes: int) -> int:
    """How long the payload of a plaintext is."""
    chunks = plaintext_bytes // CHUNK_BYTES + 1
    return HEADER_BYTES + plaintext_bytes + chunks * TAG_BYTES


def room_for(input_bytes: int) -> int:
    """Bytes of a buffer that the output of one call with so much input always fits into."""
    return input_bytes + (input_bytes // CHUNK_BYTES + 1) * TAG_BYTES + SLACK_BYTES


class Encryptor:
    """Encrypts one plaintext, piece by piece.

    Args:
        key: 32 bytes, never used for another plaintext.
        context: what the plaintext is; the same is needed to decrypt.

    Attributes:
        header: the first 56 bytes of the payload; they are not given out again.

    Raises:
        BundleError: the key has another length.
    """

    def __init__(self, key: bytes, context: bytes) -> None:
        _check_key(key)
        self._stream = Cobblestone256Encryptor(key, context)
        self.header = self._stream.update(b"")

    @property
    def salt(self) -> bytes:
        """The 24 random bytes of this payload."""
        return self.header[:SALT_BYTES]

    @property
    def commitment(self) -> bytes:
        """The 32 bytes that no other key has with this salt and context."""
        return self.header[SALT_BYTES:]

    def update_into(self, data: Buffer, out: Buffer) -> int:
        """Encrypt the next piece into `out`, of `room_for` bytes; how many were written."""
        return self._stream.update_into(data, out)

    def finish(self) -> bytes:
        """The last chunk; nothing may follow."""
        return self._stream.finalize()


class Decryptor:
    """Decrypts one payload, piece by piece, the header first.

    Args:
        key: 32 bytes.
        context: as it was encrypted with.
        salt: 24 bytes that the payload must begin with.
        commitment: 32 bytes that must follow, and must be the key's.

    Raises:
        BundleError: the key has another length, or another commitment.
    """

    def __init__(self, key: bytes, context: bytes, salt: bytes, commitment: bytes) -> None:
        _check_key(key)
        if (len(salt), len(commitment)) != (SALT_BYTES, COMMITMENT_BYTES):
            raise BundleError("salt or key commitment has the wrong length")
        self._header = salt + commitment
        self._ahead = b""
        self._stream = Cobblestone256Decryptor(key, context)
        try:
            self._stream.update(self._header)
        except InvalidTag:
            raise BundleError(
                "the data key is not the one that this bundle was encrypted with; "
                "have the controller assign it again"
            ) from None

    def update_into(self, data: Buffer, out: Buffer) -> int:
        """Decrypt the next piece into `out`, of `room_for` bytes; how many were written.

        Raises:
            BundleError: the payload is not what was encrypted with this key.
        """
        data = self._past_header(memoryview(data))
        try:
            return self._stream.update_into(data, out)
        except InvalidTag:
            raise _altered() from None

    def finish(self) -> bytes:
        """What is left of the plaintext; only now is it known to be whole.

        Raises:
            BundleError: the payload was cut, or altered at its end.
        """
        try:
            return self._stream.finalize()
        except InvalidTag:
            raise _altered() from None

    def _past_header(self, data: memoryview) -> memoryview:
        missing = HEADER_BYTES - len(self._ahead)
        if missing:
            self._ahead += data[:missing]
            if not self._header.startswith(self._ahead):
                raise BundleError("the payload begins with another salt or key commitment")
        return data[missing:]


def _check_key(key: bytes) -> None:
    if len(key) != KEY_BYTES:
        raise BundleError(f"a data key has {KEY_BYTES} bytes, not {len(key)}")


def _altered() -> BundleError:
    return BundleError("the payload was altered or cut: it does not decrypt with its data key")
