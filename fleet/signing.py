"""Signing on another machine, by file.

A **signing request** is one JSON file with all that the signer's machine needs: the exact TUF
content, what is in force now, whose signatures are wanted, and `what`: sentences for people, which
are made anew from the content before anything is signed, so that a file cannot show one thing and
have another signed. A **signature** comes back as another file. Neither is secret.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Key, Signature
from tuf.api.metadata import Metadata, Root, Targets

from agent.bundle.strict import Document, Sha256, decode
from agent.bundle.trustset import bundle_errors
from engines.durable import read_bounded
from fleet.errors import FleetError
from fleet.metadatafolder import replace
from fleet.metadatatext import describe

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from securesystemslib.signer import Signer

MAX_REQUEST_BYTES = 4 * 2**20
MAX_SIGNATURE_BYTES = 16 * 2**10

SIGNATURE_SUFFIX = ".sig.json"

RoleName = Literal["root", "targets"]


@dataclass(frozen=True, slots=True)
class KeySet:
    """Keys, of which `threshold` must sign together.

    Raises:
        FleetError: there are too few keys for the threshold, or one stands twice.
    """

    keys: tuple[Key, ...]
    threshold: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.threshold <= len(self.keys):
            raise FleetError(
                f"{self.threshold} of {len(self.keys)} keys cannot be; give more keys, or a "
                "threshold from 1 to their number"
            )
        # The same key under two names would count as two people.
        if len({str(sorted(key.keyval.items())) for key in self.keys}) != len(self.keys):
            raise FleetError("a key stands twice; each signer needs a key of their own")


@dataclass(frozen=True, slots=True)
class Ask:
    """Whose signatures are wanted: `who` names the set, e.g. "release keys"."""

    who: str
    wanted: KeySet

    def missing(self, content: bytes, signatures: dict[str, Signature]) -> int:
        """How many more of its keys must sign."""
        signed = sum(verifies(key, signatures.get(key.keyid), content) for key in self.wanted.keys)
        return max(0, self.wanted.threshold - signed)


@dataclass(frozen=True, slots=True)
class SigningRequest:
    """What is to be signed.

    Attributes:
        signed: the content.
        previous: what is in force, with its signatures; None at the beginning.
        asks: all of them must be met.
    """

    signed: Root | Targets
    previous: Metadata[Any] | None
    asks: tuple[Ask, ...]

    @property
    def role(self) -> str:
        """Of which role the content is."""
        return self.signed.type

    @property
    def content(self) -> bytes:
        """The bytes that are signed: canonical JSON."""
        return Metadata[Any](self.signed).signed_bytes

    @property
    def digest(self) -> str:
        """SHA-256 of `content`, hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def what(self) -> list[str]:
        """All that would be signed and how it differs from what is in force, for people."""
        return describe(self.signed, self.previous.signed if self.previous else None)

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"{self.role} version {self.signed.version}"

    def review(self, key: Key) -> list[str]:
        """What the holder of `key` should read before signing.

        Only what this very key signed before counts as in force; otherwise the machine that made
        the request could pass off anything as known.
        """
        previous = self.previous
        if previous and not verifies(key, previous.signatures.get(key.keyid), _content(previous)):
            previous = None
        return describe(self.signed, previous.signed if previous else None)

    def missing(self, signatures: dict[str, Signature]) -> list[str]:
        """Sentences on what is still wanted; none if it is wholly signed."""
        texts = []
        for ask in self.asks:
            count = ask.missing(self.content, signatures)
            if count:
                ids = ", ".join(
                    key.keyid[:16]
                    for key in ask.wanted.keys
                    if not verifies(key, signatures.get(key.keyid), self.content)
                )
                texts.append(f"{self.name} needs {count} more of the {ask.who}: {ids}")
        return texts

    def encode(self) -> bytes:
        """The request as a file."""
        return (
            _RequestFile(
                what=self.what,
                role=_role_name(self.role),
                digest=self.digest,
                asks=tuple(
                    _AskFile(
                        who=ask.who,
                        threshold=ask.wanted.threshold,
                        keys={key.keyid: key.to_dict() for key in ask.wanted.keys},
                    )
                    for ask in self.asks
                ),
                signed=self.signed.to_dict(),
                previous=self.previous.to_dict() if self.previous else None,
            )
            .model_dump_json(by_alias=True, exclude_none=True, indent=1)
            .encode()
        )


class SignatureFile(Document):
    """One signature over one request.

    Attributes:
        digest: of the content that was signed.
        key_id: whose.
        sig: hexadecimal.
    """

    schema_id: Literal["vigia.signature/1"] = Field(default="vigia.signature/1", alias="schema")
    role: RoleName
    digest: Sha256
    key_id: Annotated[str, Field(pattern=r"^[0-9a-f]{1,128}$")]
    sig: Annotated[str, Field(pattern=r"^[0-9a-f]{2,4096}$")]

    @property
    def signature(self) -> Signature:
        """As TUF metadata has it."""
        return Signature(self.key_id, self.sig)


class _AskFile(Document):
    who: str
    threshold: int
    keys: dict[str, dict[str, Any]]


class _RequestFile(Document):
    schema_id: Literal["vigia.signing-request/1"] = Field(
        default="vigia.signing-request/1", alias="schema"
    )
    what: list[str]
    role: RoleName
    digest: Sha256
    asks: tuple[_AskFile, ...]
    signed: dict[str, Any]
    previous: dict[str, Any] | None = None


def parse_request(data: bytes) -> SigningRequest:
    """Read a request.

    Raises:
        ManifestError: it is none.
        FleetError: it does not show what it would have signed.
    """
    file = decode(_RequestFile, data, "signing request", MAX_REQUEST_BYTES)
    with bundle_errors():
        try:
            request = SigningRequest(
                signed=_metadata({"signed": file.signed, "signatures": []}).signed,
                previous=_metadata(file.previous) if file.previous else None,
                asks=tuple(_ask(ask) for ask in file.asks),
            )
            shows_itself = (file.role, file.digest, file.what) == (
                request.role,
                request.digest,
                request.what,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"the signing request is damaged ({error!r})") from error
    if not shows_itself:
        raise FleetError(
            "the signing request does not show what it would have signed; do not sign it, and find "
            "out who altered it"
        )
    return request


def read_request(path: Path) -> SigningRequest:
    """Read a request from a file; raises as `parse_request`."""
    return parse_request(_read(path, MAX_REQUEST_BYTES))


def sign_request(request: SigningRequest, signer: Signer) -> SignatureFile:
    """Sign; show `request.review(signer.public_key)` to the signer first.

    Raises:
        FleetError: this key's signature is not wanted.
    """
    key = signer.public_key
    if not any(key == wanted for ask in request.asks for wanted in ask.wanted.keys):
        raise FleetError(
            f"{request.name} does not need the key {key.keyid[:16]}; it needs "
            + " and ".join(
                f"{ask.wanted.threshold} of the {ask.who} "
                f"({', '.join(wanted.keyid[:16] for wanted in ask.wanted.keys)})"
                for ask in request.asks
            )
        )
    signature = signer.sign(request.content)
    return SignatureFile(
        role=_role_name(request.role),
        digest=request.digest,
        key_id=signature.keyid,
        sig=signature.signature,
    )


def add_signature(path: Path, signer: Signer) -> Path:
    """Sign the request in a file; the signature lies beside it, in a file of its own.

    Returns:
        The signature's file, to be taken back to the controller.

    Raises:
        FleetError, ManifestError: see `read_request` and `sign_request`, or the file cannot be
            read or written.
    """
    request = read_request(path)
    signature = sign_request(request, signer)
    beside = path.with_name(f"{request.role}.{signature.key_id[:16]}{SIGNATURE_SUFFIX}")
    replace(beside, signature.encode())
    return beside


def read_signature(path: Path) -> SignatureFile:
    """Read a signature from a file.

    Raises:
        ManifestError: it is none.
        FleetError: it cannot be read.
    """
    data = _read(path, MAX_SIGNATURE_BYTES)
    return decode(SignatureFile, data, "signature", MAX_SIGNATURE_BYTES)


def verifies(key: Key, signature: Signature | None, content: bytes) -> bool:
    """Whether that is a signature of this key."""
    if signature is None:
        return False
    try:
        key.verify_signature(signature, content)
    except UnverifiedSignatureError:
        return False
    return True


def signed_by(files: Sequence[SignatureFile], request: SigningRequest) -> dict[str, Signature]:
    """The signatures over this very content."""
    return {file.key_id: file.signature for file in files if file.digest == request.digest}


def _metadata(value: dict[str, Any]) -> Metadata[Any]:
    metadata: Metadata[Any] = Metadata.from_dict(value)
    if not isinstance(metadata.signed, (Root, Targets)):
        raise ValueError("only root and targets are signed on request")  # noqa: TRY004 - a damaged file, not a wrong call
    return metadata


def _content(metadata: Metadata[Any]) -> bytes:
    return metadata.signed_bytes


def _ask(file: _AskFile) -> Ask:
    keys = tuple(Key.from_dict(key_id, dict(value)) for key_id, value in file.keys.items())
    return Ask(file.who, KeySet(keys, file.threshold))


def _role_name(role: str) -> RoleName:
    return "root" if role == Root.type else "targets"


def _read(path: Path, limit: int) -> bytes:
    try:
        data = read_bounded(path, limit)
    except OSError as error:
        raise FleetError(f"{path} cannot be read: {error}") from error
    if data is None:
        raise FleetError(f"{path} is larger than the {limit} bytes allowed")
    return data
