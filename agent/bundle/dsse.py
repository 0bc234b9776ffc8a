"""DSSE envelopes: who signed a document, and that the bytes are what they signed.

    {"payload": base64, "payloadType": ..., "signatures": [{"keyid": ..., "sig": base64}, ...]}

Format and what is signed: https://github.com/secure-systems-lab/dsse (v1). Envelopes are read more
strictly than that asks: standard base64, no unknown fields, each key id at most once, sizes and
numbers bounded before anything is decoded. The payload type is signed too, so that a document of
one kind never passes for one of another.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Annotated, NoReturn

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from pydantic import Field
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Key, Signature, Signer, SSlibKey

from agent.bundle.documents import MAX_DOCUMENT_BYTES, MAX_ENVELOPE_BYTES
from agent.bundle.strict import Document, DocumentT, decode
from agent.errors import ManifestError, SignatureError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

MAX_SIGNATURES = 16
MAX_PAYLOAD_TEXT = 4 * -(-MAX_DOCUMENT_BYTES // 3)
"""Characters of the largest document in base64."""

MAX_PEM_CHARACTERS = 2000


class _Signature(Document):
    keyid: Annotated[str, Field(pattern=r"^[0-9a-f]{1,128}$")]
    sig: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{2,8000}={0,2}$")]


class _Envelope(Document):
    payload: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]*={0,2}$", max_length=MAX_PAYLOAD_TEXT)]
    payload_type: Annotated[str, Field(alias="payloadType", max_length=200)]
    signatures: Annotated[tuple[_Signature, ...], Field(max_length=MAX_SIGNATURES)]


class KeySigner(Signer):
    """Lets a key that is kept elsewhere sign, e.g. in a device's token.

    Args:
        key: the public key.
        sign: gives the signature of bytes, in the form that `key` verifies.
    """

    def __init__(self, key: Key, sign: Callable[[bytes], bytes]) -> None:
        self._key = key
        self._sign = sign

    @property
    def public_key(self) -> Key:
        """The public key."""
        return self._key

    def sign(self, payload: bytes) -> Signature:
        """Sign bytes."""
        return Signature(self._key.keyid, self._sign(payload).hex())

    @classmethod
    def from_priv_key_uri(cls, *_args: object, **_kwargs: object) -> NoReturn:
        """Such keys have no address."""
        raise NotImplementedError("keys of this kind are not found by an address")


def sign(payload_type: str, document: Document, signers: Sequence[Signer]) -> bytes:
    """Put a document into an envelope.

    Args:
        payload_type: one of those in `agent.bundle.documents`.
        document: what is signed.
        signers: all of them sign.

    Raises:
        ManifestError: the document is too large for any reader, or there are too many signers.
        KeyStoreError: a key of a token cannot be used.
    """
    payload = document.encode()
    if len(payload) > MAX_DOCUMENT_BYTES:
        raise ManifestError(
            f"a document of {len(payload)} bytes is larger than the {MAX_DOCUMENT_BYTES} allowed"
        )
    envelope = Envelope(payload, payload_type, {})
    for signer in signers:
        envelope.sign(signer)
    data = json.dumps(envelope.to_dict(), separators=(",", ":")).encode()
    # What no reader would take is found out here, not on a thousand devices.
    _parse(data)
    return data


def verify(
    data: bytes,
    payload_type: str,
    kind: type[DocumentT],
    keys: Collection[Key],
    threshold: int = 1,
) -> DocumentT:
    """Read a document that enough of the keys have signed.

    Args:
        data: an envelope, from outside.
        payload_type: the only one that is taken.
        kind: of the document.
        keys: whose signatures count; each counts once, also if it stands there under two ids.
        threshold: how many must have signed.

    Raises:
        SignatureError: too few have, or the payload is of another type.
        ManifestError: it is no envelope, or holds no such document.
    """
    envelope = _parse(data)
    if envelope.payload_type != payload_type:
        raise SignatureError(f"the envelope holds {envelope.payload_type!a}, not {payload_type}")
    if threshold < 1:
        raise SignatureError("a document that nobody needs to sign is signed by nobody")
    signed = {_identity(key) for key in keys if _has_signed(key, envelope)}
    if len(signed) < threshold:
        raise SignatureError(
            f"{kind.__name__.lower()}: {len(signed)} of the {len(keys)} keys that may sign it have "
            f"done so, {threshold} must"
        )
    return _document(kind, envelope)


def unverified(data: bytes, kind: type[DocumentT]) -> DocumentT:
    """Read a document whose signatures were verified before, or tell who claims to have signed.

    Raises:
        ManifestError: it is no envelope, or holds no such document.
    """
    return _document(kind, _parse(data))


def key_of_pem(pem: str) -> Key:
    """The key of a device: ECDSA P-256.

    Raises:
        ManifestError: the text is not the PEM of one.
    """
    try:
        public = load_pem_public_key(pem[: MAX_PEM_CHARACTERS + 1].encode())
    except ValueError:
        raise ManifestError("the signing key is no public key in PEM form") from None
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(
        public.curve, ec.SECP256R1
    ):
        raise ManifestError("the signing key is not of the kind that devices have: ECDSA P-256")
    return SSlibKey.from_crypto(public)


def _parse(data: bytes) -> Envelope:
    read = decode(_Envelope, data, "envelope", MAX_ENVELOPE_BYTES)
    signatures = {s.keyid: Signature(s.keyid, _raw(s.sig).hex()) for s in read.signatures}
    if len(signatures) != len(read.signatures):
        raise ManifestError("envelope: a key has signed twice")
    return Envelope(_raw(read.payload), read.payload_type, signatures)


def _document(kind: type[DocumentT], envelope: Envelope) -> DocumentT:
    return decode(kind, envelope.payload, kind.__name__.lower(), MAX_DOCUMENT_BYTES)


def _has_signed(key: Key, envelope: Envelope) -> bool:
    signature = envelope.signatures.get(key.keyid)
    # Keys of other kinds would start programs, or ask the network.
    if signature is None or not isinstance(key, SSlibKey):
        return False
    try:
        key.verify_signature(signature, envelope.pae())
    except UnverifiedSignatureError:
        return False
    return True


def _identity(key: Key) -> bytes:
    """What a key that has verified something is, whatever it is called and however written."""
    public = key.keyval["public"]
    if key.keytype == "ed25519":
        return bytes.fromhex(public)
    return load_pem_public_key(public.encode()).public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )


def _raw(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ManifestError("envelope: a field is no base64") from None
