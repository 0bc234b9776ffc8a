"""A public key in a file of its own, to be carried to whoever is to trust it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import Field
from securesystemslib.signer import SSlibKey

from agent.bundle.strict import Document, decode
from agent.errors import ManifestError
from engines.durable import read_bounded
from fleet.errors import FleetError

if TYPE_CHECKING:
    from pathlib import Path

    from securesystemslib.signer import Key

MAX_FILE_BYTES = 1024
PUBLIC_SUFFIX = ".pub.json"


class PublicKey(Document):
    """The content of the file: an Ed25519 key (RFC 8032), hexadecimal."""

    schema_id: Literal["vigia.public-key/1"] = Field(default="vigia.public-key/1", alias="schema")
    ed25519: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def public_key_text(key: Key) -> bytes:
    """The file of an Ed25519 key."""
    return PublicKey(ed25519=key.keyval["public"]).encode() + b"\n"


def read_public_key(path: Path) -> Key:
    """Read a public key.

    Raises:
        FleetError: the file holds none, or cannot be read.
    """
    try:
        data = read_bounded(path, MAX_FILE_BYTES)
        file = decode(PublicKey, data or b"", str(path), MAX_FILE_BYTES)
    except OSError as error:
        raise FleetError(f"{path} cannot be read: {error.strerror or error}") from error
    except ManifestError as error:
        raise FleetError(f"{error}; give a file that `vigia fleet make-key` wrote") from None
    # The key's id follows from the key: nobody can choose another's.
    return SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(bytes.fromhex(file.ed25519)))
