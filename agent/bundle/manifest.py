"""The manifest of a bundle: what is in it, how it is encrypted, and what it must prove.

Its exact bytes are the TUF target, so they are parsed only after their hash has matched. Fields and
limits: docs/update-protocol.md.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Annotated, Final, Literal

from pydantic import Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from agent.bundle.cipher import COMMITMENT_BYTES, SALT_BYTES, ciphertext_bytes
from agent.bundle.index import HASH_BYTES, HEADER
from agent.bundle.strict import (
    Counter,
    Document,
    FileName,
    Fraction,
    Sha256,
    Text,
    Version,
    WallTime,
    decode,
)
from agent.errors import ManifestError

SCHEMA = "vigia.bundle/1"
MAX_MANIFEST_BYTES = 256 * 2**10
MAX_FILES = 4096
MAX_FILE_BYTES = 2**32
BLOCK_BYTES: Final = 65_536
"""Bytes of ciphertext in a block, but for the last, which has the rest."""

MAX_BLOCKS = 2**16
"""4 GiB: the plaintext lies in a device's memory while it is made an engine."""

BUNDLE_ID_DIGITS = 32

TARGET = re.compile(
    r"models/(?P<family>[a-z0-9][a-z0-9._-]{0,63})"
    r"/(?P<version>[A-Za-z0-9][A-Za-z0-9._-]{0,63})/manifest\.json"
)

ALGORITHM: Final = "c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM"

Role = Literal["model", "model-int8", "calibration", "golden", "truth", "labels", "card"]
"""`model` is the FP32 ONNX file and stands once. `golden`: pictures of the golden set; `truth`:
what is in them (schema vigia.ground-truth/1). `calibration`: pictures for int8."""

FOLDERS: dict[str, str] = {"calibration": "calibration", "golden": "golden"}
"""Roles whose files lie in a folder of their own when they are decrypted; others lie at the top."""

MODEL_ROLES: tuple[Role, ...] = ("model", "model-int8")
"""Roles whose files are ONNX."""

SINGLE_ROLES: tuple[Role, ...] = (*MODEL_ROLES, "truth", "labels")

Bytes = Annotated[int, Field(ge=0, le=MAX_FILE_BYTES)]
Base64 = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{2,128}={0,2}$")]


class BundleFile(Document):
    """One file of the payload's plaintext, which is the files one after the other."""

    name: FileName
    offset: Bytes
    length: Bytes
    sha256: Sha256
    role: Role

    @property
    def place(self) -> str:
        """Where it lies when it is decrypted, e.g. "golden/a.jpg"."""
        return place_of(self.name, self.role)


class Compat(Document):
    """Which devices a bundle is for; an absent field admits all."""

    hw_class: tuple[Text, ...] | None = Field(default=None, max_length=64)
    jetpack: tuple[Text, ...] | None = Field(default=None, max_length=64)
    tensorrt_min: Text | None = None
    tensorrt_max: Text | None = None
    agent_min: Text | None = None


class Encryption(Document):
    """How the payload is encrypted. `salt` and `commitment` are base64 of 24 and 32 bytes."""

    alg: Literal["c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM"]
    context: Text
    salt: Base64
    commitment: Base64

    @field_validator("salt", "commitment")
    @classmethod
    def _right_size(cls, value: str, info: ValidationInfo) -> str:
        expected = SALT_BYTES if info.field_name == "salt" else COMMITMENT_BYTES
        try:
            raw = base64.b64decode(value, validate=True)
        except binascii.Error:
            raise ValueError("is no base64") from None
        # Encoded again, because several texts decode to the same bytes.
        if len(raw) != expected or base64.b64encode(raw).decode() != value:
            raise ValueError(f"is not the base64 of {expected} bytes")
        return value

    @property
    def salt_bytes(self) -> bytes:
        """The salt, 24 bytes."""
        return base64.b64decode(self.salt)

    @property
    def commitment_bytes(self) -> bytes:
        """The key commitment, 32 bytes."""
        return base64.b64decode(self.commitment)


class IndexRef(Document):
    """The block index that belongs to the payload."""

    sha256: Sha256
    length: Bytes
    block_bytes: Literal[65_536]
    blocks: Annotated[int, Field(ge=1, le=MAX_BLOCKS)]


class CiphertextRef(Document):
    """The payload as it is stored and sent."""

    sha256: Sha256
    length: Bytes


class Build(Document):
    """How engines are to be made."""

    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "auto"
    names: tuple[Text, ...] | None = Field(default=None, max_length=10_000)
    confidence: Fraction | None = None


class GateRules(Document):
    """What a candidate must reach on the golden set, on the device; absent: not asked."""

    metric: Literal["map50_95", "top1", "agreement"] = "agreement"
    min_score: Fraction | None = None
    max_drop_vs_active: Fraction | None = None
    latency_p95_ms: Annotated[float, Field(gt=0, le=60_000)] | None = None
    max_latency_ratio: Annotated[float, Field(gt=0, le=1000)] | None = None
    memory_mb: Annotated[int, Field(ge=1, le=1_048_576)] | None = None


class ShadowRules(Document):
    """How long, on live frames beside the active model, and how alike they must answer."""

    seconds: Annotated[float, Field(ge=0, le=86_400)] = 10.0
    min_agreement: Fraction | None = None


class CanaryRules(Document):
    """How long it serves on trial, and what then makes it go back."""

    seconds: Annotated[float, Field(ge=0, le=86_400)] = 30.0
    min_fps_ratio: Annotated[float, Field(ge=0, le=1)] = 0.8
    max_latency_ratio: Annotated[float, Field(gt=0, le=1000)] = 2.0
    max_error_rate: Fraction = 0.01
    max_detection_drift: Annotated[float, Field(gt=0, le=1000)] | None = None
    max_memory_growth_mb: Annotated[int, Field(ge=1, le=1_048_576)] | None = None


class Provenance(Document):
    """Where a model comes from, for people."""

    trainer: Text | None = None
    dataset: Text | None = None
    source: Text | None = None


class Manifest(Document):
    """A whole manifest."""

    schema_id: Literal["vigia.bundle/1"] = Field(default="vigia.bundle/1", alias="schema")
    family: FileName
    version: Version
    release_counter: Annotated[int, Counter.__metadata__[0], Field(ge=1)]
    min_release_counter: Counter = 0
    compat: Compat = Compat()
    files: tuple[BundleFile, ...] = Field(min_length=1, max_length=MAX_FILES)
    encryption: Encryption
    index: IndexRef
    ciphertext: CiphertextRef
    build: Build = Build()
    gate: GateRules = GateRules()
    shadow: ShadowRules = ShadowRules()
    canary: CanaryRules = CanaryRules()
    provenance: Provenance = Provenance()
    created: WallTime
    expires: WallTime

    _digest: str = PrivateAttr(default="")

    @property
    def digest(self) -> str:
        """SHA-256 of its exact bytes, hexadecimal: of those that it was read from, if it was."""
        return self._digest or digest_of(self.encode())

    @model_validator(mode="after")
    def _whole(self) -> Manifest:
        _check_files(self.files)
        if self.min_release_counter > self.release_counter:
            raise ValueError("min_release_counter is above the bundle's own counter")
        if self.created > self.expires:
            raise ValueError("it expires before it was created")
        if self.encryption.context != context_of(self.family, self.version):
            raise ValueError("the encryption's context is not of this family and version")
        self._check_lengths()
        return self

    def _check_lengths(self) -> None:
        length = ciphertext_bytes(self.plaintext_bytes)
        if self.ciphertext.length != length:
            raise ValueError(
                f"the files make {length} bytes of ciphertext, not {self.ciphertext.length}"
            )
        blocks = -(-length // BLOCK_BYTES)
        if blocks != self.index.blocks:
            raise ValueError(f"the payload has {blocks} blocks, the index {self.index.blocks}")
        if self.index.length != HEADER.size + blocks * HASH_BYTES:
            raise ValueError(f"an index of {blocks} blocks has not {self.index.length} bytes")

    @property
    def target(self) -> str:
        """The name of the manifest as a TUF target."""
        return target_path(self.family, self.version)

    @property
    def plaintext_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(file.length for file in self.files)


def _check_files(files: tuple[BundleFile, ...]) -> None:
    places = [file.place for file in files]
    if len(set(places)) != len(places):
        raise ValueError("a file name stands twice")
    if not set(FOLDERS.values()).isdisjoint(places):
        raise ValueError(f"no file may be called {' or '.join(FOLDERS.values())}")
    end = 0
    for file in files:
        if file.offset != end:
            raise ValueError(
                f"{file.name}: offset {file.offset}, but the file before ends at {end}"
            )
        end += file.length
    roles = [file.role for file in files]
    if "model" not in roles:
        raise ValueError("no file has the role `model`")
    if any(roles.count(role) > 1 for role in SINGLE_ROLES):
        raise ValueError(f"of {', '.join(SINGLE_ROLES)} there can be only one each")


def parse_manifest(data: bytes) -> Manifest:
    """Read a manifest whose hash has matched.

    Raises:
        ManifestError: it is not one.
    """
    manifest = decode(Manifest, data, "manifest", MAX_MANIFEST_BYTES)
    manifest._digest = digest_of(data)  # noqa: SLF001 - its own module; no field of the document
    return manifest


def place_of(name: str, role: str) -> str:
    """Where a file lies when it is decrypted, e.g. "golden/a.jpg"; names need only differ there."""
    folder = FOLDERS.get(role)
    return name if folder is None else f"{folder}/{name}"


def context_of(family: str, version: str) -> str:
    """The context that a payload is encrypted in; its UTF-8 bytes count."""
    return f"vigia/bundle/1 {family} {version}"


def target_path(family: str, version: str) -> str:
    """The name of a manifest as a TUF target."""
    return f"models/{family}/{version}/manifest.json"


def split_target(path: str) -> tuple[str, str]:
    """Family and version of a manifest's name as a TUF target.

    Raises:
        ManifestError: it is no such name.
    """
    found = TARGET.fullmatch(path)
    if found is None:
        raise ManifestError(f"{path!r} is not the name of a manifest")
    return found["family"], found["version"]


def digest_of(manifest: bytes) -> str:
    """SHA-256 of a manifest's exact bytes, hexadecimal: what identifies a bundle."""
    return hashlib.sha256(manifest).hexdigest()


def bundle_id(digest: str) -> str:
    """The topic level of a bundle: the first 32 digits of its manifest's SHA-256."""
    return digest[:BUNDLE_ID_DIGITS]
