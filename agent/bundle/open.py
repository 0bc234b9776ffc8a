"""Opens a sealed bundle: checks every block, decrypts as a stream, checks every file.

Nothing is decrypted before its block has matched the index, and what was matched is what is
decrypted, however the file changes meanwhile.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.bundle.cipher import Decryptor, room_for
from agent.bundle.content import check_model
from agent.bundle.manifest import FOLDERS, MODEL_ROLES
from agent.bundle.payload import READ_BYTES
from agent.bundle.unpack import FileWriter
from agent.errors import BundleError, DamageError, StoreError
from engines.durable import open_regular

if TYPE_CHECKING:
    from collections.abc import Generator
    from io import FileIO
    from pathlib import Path

    from agent.bundle.index import BlockIndex
    from agent.bundle.manifest import Manifest, Role
    from agent.bundle.seal import Tell


@dataclass(frozen=True, slots=True)
class ModelBundle:
    """An opened bundle. Only `open_bundle` makes one, so all of it was checked.

    Attributes:
        manifest: as signed.
        folder: where the plaintext lies: models, truth, labels and cards at its top.
    """

    manifest: Manifest
    folder: Path

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest, hexadecimal."""
        return self.manifest.digest

    @property
    def model(self) -> Path:
        """The FP32 ONNX file."""
        return self.folder / next(f.name for f in self.manifest.files if f.role == "model")

    @property
    def model_int8(self) -> Path | None:
        """The ONNX file with Q/DQ nodes, if there is one."""
        return self._only("model-int8")

    @property
    def truth(self) -> Path | None:
        """What is in the golden set, if that is said."""
        return self._only("truth")

    @property
    def labels(self) -> Path | None:
        """Class names, if there are any."""
        return self._only("labels")

    @property
    def golden(self) -> Path | None:
        """Folder of the golden set, if there is one."""
        return self._folder("golden")

    @property
    def calibration(self) -> Path | None:
        """Folder of the calibration pictures, if there are any."""
        return self._folder("calibration")

    def _only(self, role: Role) -> Path | None:
        name = next((f.name for f in self.manifest.files if f.role == role), None)
        return None if name is None else self.folder / name

    def _folder(self, role: Role) -> Path | None:
        there = any(f.role == role for f in self.manifest.files)
        return self.folder / FOLDERS[role] if there else None


def verify_payload(manifest: Manifest, index: BlockIndex, payload: Path) -> None:
    """See that a payload is the one that manifest and index describe; needs no key.

    Raises:
        DamageError: a block of it is not.
        BundleError: its blocks are, but not the whole.
        StoreError: it cannot be read.
    """
    with closing(_verified(manifest, index, payload)) as pieces:
        for _ in pieces:
            pass


def open_bundle(
    manifest: Manifest,
    index: BlockIndex,
    payload: Path,
    data_key: bytes,
    folder: Path,
    tell: Tell,
) -> ModelBundle:
    """Decrypt a payload into a folder; in constant memory, but for what the folder takes.

    If it fails, or `tell` raises, nothing of the plaintext stays.

    Args:
        manifest: as signed.
        index: the manifest's.
        payload: the file.
        data_key: 32 bytes.
        folder: empty, mode 0700, and in memory: the caller sees to that.
        tell: takes bytes done and in all.

    Raises:
        DamageError: a block of the payload is not what the index says.
        BundleError: key or files are not what the manifest says, or a model holds what no model
            may.
        StoreError: the payload cannot be read, or the folder not written.
    """
    encryption = manifest.encryption
    cipher = Decryptor(
        data_key,
        encryption.context.encode(),
        encryption.salt_bytes,
        encryption.commitment_bytes,
    )
    room = memoryview(bytearray(room_for(READ_BYTES)))
    total = manifest.plaintext_bytes
    with (
        closing(_verified(manifest, index, payload)) as pieces,
        FileWriter(folder, manifest.files) as files,
    ):
        for piece in pieces:
            files.write(room[: cipher.update_into(piece, room)])
            tell(files.done, total)
        files.write(memoryview(cipher.finish()))
        files.finish()
        tell(files.done, total)
        bundle = ModelBundle(manifest, folder)
        for file in manifest.files:
            if file.role in MODEL_ROLES:
                check_model(folder / file.name, manifest)
    return bundle


def _verified(
    manifest: Manifest, index: BlockIndex, payload: Path
) -> Generator[memoryview, None, None]:
    """The payload in pieces of at most `READ_BYTES`, each valid until the next is asked for."""
    if hashlib.sha256(index.encode()).hexdigest() != manifest.index.sha256:
        raise BundleError("the block index is not the manifest's")
    whole = hashlib.sha256()
    room = memoryview(bytearray(READ_BYTES))
    number = 0
    try:
        with os.fdopen(open_regular(payload), "rb", buffering=0) as file:
            length = os.fstat(file.fileno()).st_size
            if length != index.ciphertext_length:
                raise DamageError(
                    f"the payload has {length} bytes, the manifest says {index.ciphertext_length}"
                )
            while number < index.blocks:
                end = min(index.offset_of(number) + READ_BYTES, length)
                piece = _filled(file, room[: end - index.offset_of(number)])
                for at in range(0, len(piece), index.block_bytes):
                    if not index.fits(number, piece[at : at + index.block_bytes]):
                        raise DamageError(f"block {number} of the payload is damaged")
                    number += 1
                whole.update(piece)
                yield piece
    except OSError as error:
        raise StoreError(f"cannot read the payload {payload}: {error.strerror}") from error
    if whole.hexdigest() != manifest.ciphertext.sha256:
        raise BundleError("the payload's SHA-256 is not the manifest's, though its blocks' are")


def _filled(file: FileIO, room: memoryview) -> memoryview:
    """Read until `room` is full, or the file ends."""
    count = 0
    while count < len(room) and (got := file.readinto(room[count:])):
        count += got
    return room[:count]
