"""Packs files into a bundle: one pass over them, in constant memory.

What a device would refuse is refused here already, before anything is encrypted.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from pydantic import ValidationError

from agent.bundle.cipher import (
    COMMITMENT_BYTES,
    KEY_BYTES,
    SALT_BYTES,
    ciphertext_bytes,
)
from agent.bundle.content import check_onnx
from agent.bundle.index import HASH_BYTES, BlockIndex
from agent.bundle.manifest import (
    BLOCK_BYTES,
    FOLDERS,
    MAX_BLOCKS,
    MAX_MANIFEST_BYTES,
    MODEL_ROLES,
    Build,
    BundleFile,
    CanaryRules,
    CiphertextRef,
    Compat,
    Encryption,
    GateRules,
    IndexRef,
    Manifest,
    Provenance,
    ShadowRules,
    context_of,
    digest_of,
    parse_manifest,
)
from agent.bundle.payload import READ_BYTES, PayloadWriter, encryption_of
from agent.bundle.strict import first_fault
from agent.errors import BundleError
from engines.durable import sync_folder, write_new

if TYPE_CHECKING:
    from collections.abc import Sequence
    from io import FileIO
    from pathlib import Path

    from agent.bundle.manifest import Role

MANIFEST = "manifest.json"
INDEX = "index"
PAYLOAD = "payload"

NO_HASH = bytes(HASH_BYTES).hex()
"""Stands for hashes in a manifest that is only made to see whether one can be."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file to be packed.

    Attributes:
        name: in the bundle, see `agent.bundle.strict.FileName`.
        role: what it is for.
        path: where it lies.
    """

    name: str
    role: Role
    path: Path


@dataclass(frozen=True, slots=True)
class Facts:
    """What a manifest says that does not come from the files; see `agent.bundle.manifest`."""

    family: str
    version: str
    release_counter: int
    created: int
    expires: int
    min_release_counter: int = 0
    compat: Compat = field(default_factory=Compat)
    build: Build = field(default_factory=Build)
    gate: GateRules = field(default_factory=GateRules)
    shadow: ShadowRules = field(default_factory=ShadowRules)
    canary: CanaryRules = field(default_factory=CanaryRules)
    provenance: Provenance = field(default_factory=Provenance)


@dataclass(frozen=True, slots=True)
class Packed:
    """A sealed bundle.

    Attributes:
        manifest: the exact bytes of the manifest, which release keys sign.
        digest: their SHA-256, hexadecimal.
        data_key: what decrypts the payload, 32 bytes; it stands nowhere else.
    """

    manifest: bytes
    digest: str
    data_key: bytes = field(repr=False)


class Tell(Protocol):
    """Takes bytes done and bytes in all, both of plaintext."""

    def __call__(self, done: int, total: int, /) -> None:
        """Say how far it has come."""


def pack(files: Sequence[Source], facts: Facts, out: Path, tell: Tell) -> Packed:
    """Encrypt files under a new data key, and write manifest, index and payload.

    Args:
        files: in the order in which they are to stand in the payload.
        facts: the rest of the manifest.
        out: folder to write `manifest.json`, `index` and `payload` into; none may be there yet.
        tell: takes bytes done and in all.

    Raises:
        BundleError: a file or a fact is none that a device would accept, or a file cannot be read
            or written.
    """
    beside = {source.name: _size(source) for source in files if source.role not in FOLDERS}
    for source in files:
        if source.role in MODEL_ROLES:
            check_onnx(source.path, beside)
    return seal(files, facts, out, tell)


def seal(files: Sequence[Source], facts: Facts, out: Path, tell: Tell) -> Packed:
    """As `pack`, without a look at what the models are made of.

    Raises:
        BundleError: a file or a fact is none that a device would accept, or a file cannot be read
            or written.
    """
    _check(files, facts)
    key = secrets.token_bytes(KEY_BYTES)
    try:
        out.mkdir(parents=True, exist_ok=True, mode=0o700)
        with PayloadWriter(out / PAYLOAD, key, context_of(facts.family, facts.version)) as payload:
            entries = _stream(files, payload, tell)
            index = payload.finish()
            data = _manifest(facts, entries, payload.encryption, payload.ciphertext, index)
            # A bundle is whole if its manifest is there, so that comes last.
            _write(out / INDEX, index.encode(), out / MANIFEST, data)
        sync_folder(out)
    except FileExistsError:
        raise BundleError(f"{out} holds a bundle already; give an empty folder") from None
    except OSError as error:
        raise BundleError(f"the bundle cannot be written: {error}") from error
    return Packed(data, digest_of(data), key)


def _check(files: Sequence[Source], facts: Facts) -> None:
    """See whether a manifest can be made of this, with the right sizes but no hashes yet."""
    end, entries = 0, []
    for source in files:
        size = _size(source)
        entries.append((source, end, size, NO_HASH))
        end += size
    length = ciphertext_bytes(end)
    blocks = -(-length // BLOCK_BYTES)
    if blocks > MAX_BLOCKS:
        raise BundleError(
            f"{end} bytes are too much for a bundle, which has at most "
            f"{MAX_BLOCKS * BLOCK_BYTES}; leave pictures out"
        )
    _manifest(
        facts,
        entries,
        encryption_of(
            context_of(facts.family, facts.version), bytes(SALT_BYTES), bytes(COMMITMENT_BYTES)
        ),
        CiphertextRef(sha256=NO_HASH, length=length),
        BlockIndex(BLOCK_BYTES, length, bytes(blocks * HASH_BYTES)),
    )


def _stream(
    files: Sequence[Source], payload: PayloadWriter, tell: Tell
) -> list[tuple[Source, int, int, str]]:
    """Encrypt all files; gives offset, length and SHA-256 of each."""
    total = sum(_size(source) for source in files)
    room = memoryview(bytearray(READ_BYTES))
    entries, end = [], 0
    for source in files:
        digest, begin = hashlib.sha256(), end
        with _open(source) as file:
            while count := file.readinto(room):
                end += count
                if end > total:
                    raise BundleError(f"{source.path} grew while it was packed; pack it again")
                digest.update(room[:count])
                payload.write(room[:count])
                tell(end, total)
        entries.append((source, begin, end - begin, digest.hexdigest()))
    return entries


def _manifest(
    facts: Facts,
    entries: Sequence[tuple[Source, int, int, str]],
    encryption: Encryption,
    ciphertext: CiphertextRef,
    index: BlockIndex,
) -> bytes:
    encoded = index.encode()
    try:
        manifest = Manifest(
            family=facts.family,
            version=facts.version,
            release_counter=facts.release_counter,
            min_release_counter=facts.min_release_counter,
            compat=facts.compat,
            files=tuple(
                BundleFile(
                    name=source.name, offset=offset, length=length, sha256=sha256, role=source.role
                )
                for source, offset, length, sha256 in entries
            ),
            encryption=encryption,
            index=IndexRef(
                sha256=hashlib.sha256(encoded).hexdigest(),
                length=len(encoded),
                block_bytes=BLOCK_BYTES,
                blocks=index.blocks,
            ),
            ciphertext=ciphertext,
            build=facts.build,
            gate=facts.gate,
            shadow=facts.shadow,
            canary=facts.canary,
            provenance=facts.provenance,
            created=facts.created,
            expires=facts.expires,
        )
    except ValidationError as error:
        raise BundleError(f"no bundle can be made of this: {first_fault(error)}") from None
    data = manifest.encode()
    if len(data) > MAX_MANIFEST_BYTES:
        raise BundleError(
            f"the manifest has {len(data)} bytes, at most {MAX_MANIFEST_BYTES} are allowed; "
            "pack fewer files"
        )
    parse_manifest(data)
    return data


def _write(index: Path, index_data: bytes, manifest: Path, manifest_data: bytes) -> None:
    """Both or none."""
    write_new(index, index_data)
    try:
        write_new(manifest, manifest_data)
    except OSError:
        with contextlib.suppress(OSError):
            index.unlink()
        raise


def _size(source: Source) -> int:
    try:
        facts = source.path.stat()
    except OSError as error:
        raise BundleError(f"cannot read {source.path}: {error.strerror}") from error
    if not stat.S_ISREG(facts.st_mode):
        raise BundleError(f"{source.path} is no ordinary file")
    return facts.st_size


def _open(source: Source) -> FileIO:
    try:
        return source.path.open("rb", buffering=0)
    except OSError as error:
        raise BundleError(f"cannot read {source.path}: {error.strerror}") from error
