"""What controller, operators and devices sign: assignments, commands, reports, identities.

Each travels in a DSSE envelope (`agent.bundle.dsse`), whose payload type says which it is.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from agent.bundle.manifest import CanaryRules, GateRules, ShadowRules
from agent.bundle.strict import Counter, Document, Name, Sha256, Text, WallTime

ASSIGNMENT = "application/vnd.vigia.assignment.v1+json"
COMMAND = "application/vnd.vigia.command.v1+json"
REPORT = "application/vnd.vigia.report.v1+json"
APPROVAL = "application/vnd.vigia.approval.v1+json"
IDENTITY = "application/vnd.vigia.identity.v1+json"
SETTINGS = "application/vnd.vigia.settings.v1+json"

MAX_DOCUMENT_BYTES = 64 * 2**10
MAX_ENVELOPE_BYTES = 128 * 2**10
"""A document in base64 with its signatures."""

MAX_SETTINGS_BYTES = 24 * 2**10
"""Settings that one device is sent, as JSON text; a hundred cameras with all that differs. Quoted
in its document, and that in base64, it stays below the limits above."""

MAX_ENROLMENT_BYTES = 256 * 2**10
"""Has room for the largest root of trust, quoted."""

Kem = Literal["p256", "mlkem768-x25519"]
"""DHKEM(P-256, HKDF-SHA256), or the hybrid with ML-KEM-768."""

Outcome = Literal["COMMITTED", "REJECTED", "ROLLED_BACK"]

Nonce = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Base64Text = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{1,8000}={0,2}$")]


class Grant(Document):
    """The bundle's data key, for one device and one assignment.

    Attributes:
        kem: key encapsulation.
        key_id: SHA-256 of the device's public key, first 16 hexadecimal digits.
        sealed: base64 of HPKE's `enc || ciphertext`.
    """

    kem: Kem
    key_id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    sealed: Base64Text


class Assignment(Document):
    """What one device is to run in one slot, signed by a director key.

    Attributes:
        counter: above that of every earlier assignment of this device.
        campaign: the controller's name for the roll-out, for reports.
        target: TUF target path of the manifest.
        sha256: of the manifest.
        release_counter: of the manifest.
        not_before, deadline: when it may be begun, seconds since the epoch.
        gate, shadow, canary: rules that count where they are stricter than the manifest's.
        approvals: DSSE envelopes of type APPROVAL, as JSON texts.
    """

    schema_id: Literal["vigia.assignment/1"] = Field(default="vigia.assignment/1", alias="schema")
    device: Name
    slot: Name
    counter: Counter
    campaign: Name
    target: Text
    sha256: Sha256
    release_counter: Counter
    grant: Grant
    not_before: WallTime
    deadline: WallTime
    gate: GateRules | None = None
    shadow: ShadowRules | None = None
    canary: CanaryRules | None = None
    approvals: tuple[Annotated[str, Field(max_length=4096)], ...] = Field(default=(), max_length=16)


class Approval(Document):
    """An operator's agreement to a roll-out of a bundle."""

    schema_id: Literal["vigia.approval/1"] = Field(default="vigia.approval/1", alias="schema")
    campaign: Name
    sha256: Sha256
    at: WallTime


class Command(Document):
    """What an operator tells one device to do, once, before `expires`."""

    schema_id: Literal["vigia.command/1"] = Field(default="vigia.command/1", alias="schema")
    device: Name
    verb: Literal["rollback", "pause", "resume", "restart"]
    slot: Name
    nonce: Nonce
    expires: WallTime


class Settings(Document):
    """Settings that an operator wants one device to have over those of its own file.

    Attributes:
        counter: above that of every earlier one for this device.
        issued: when they were signed.
        expires: a device that hears of them later does not take them; what it took stays.
        settings: sections as in the configuration file, as JSON text; `{}` leaves the file alone.
    """

    schema_id: Literal["vigia.settings/1"] = Field(default="vigia.settings/1", alias="schema")
    device: Name
    counter: Counter
    issued: WallTime
    expires: WallTime
    settings: Annotated[str, Field(max_length=MAX_SETTINGS_BYTES)]


class Report(Document):
    """How an update ended, signed by the device; what a controller may count as success.

    Attributes:
        figures: of gate, shadow and canary, and times in seconds, as JSON text: they are for
            people, and a controller that does not know a figure passes it over.
        key_level: where the device keeps its keys, e.g. "L0".
    """

    schema_id: Literal["vigia.update-report/1"] = Field(
        default="vigia.update-report/1", alias="schema"
    )
    device: Name
    slot: Name
    campaign: Name
    counter: Counter
    sha256: Sha256
    release_counter: Counter
    outcome: Outcome
    reason: Annotated[str, Field(max_length=4000)] = ""
    figures: Annotated[str, Field(max_length=32_768)] = "{}"
    key_level: Literal["L0", "L1", "L2"]
    boot: Text
    at: WallTime


class Identity(Document):
    """What a device shows to be enrolled; signed by its signing key.

    Attributes:
        kem, kem_key: base64 of the public key: raw uncompressed point, or raw hybrid key.
        sign_key: PEM of the public signing key (ECDSA P-256).
        csr: PEM of the certificate request for its TLS key.
    """

    schema_id: Literal["vigia.identity/1"] = Field(default="vigia.identity/1", alias="schema")
    device: Name
    kem: Kem
    kem_key: Base64Text
    sign_key: Annotated[str, Field(max_length=2000)]
    csr: Annotated[str, Field(max_length=8000)]
    key_level: Literal["L0", "L1", "L2"]
    hw_class: Text


class Enrolment(Document):
    """What a device gets when it is enrolled. It is not signed: with it trust begins.

    Attributes:
        certificate: PEM, of the device's TLS key.
        authority: PEM of the certificate authority of broker and devices.
        root: TUF root metadata, exactly as it was signed.
        earlier: the roots before it, the oldest first, as far as there is room: a device that is
            enrolled already sees by them that the root is its own fleet's.
        host, port: where the broker is.
        prefix: first levels of all topics.
    """

    schema_id: Literal["vigia.enrolment/1"] = Field(default="vigia.enrolment/1", alias="schema")
    device: Name
    certificate: Annotated[str, Field(max_length=16_384)]
    authority: Annotated[str, Field(max_length=16_384)]
    root: Annotated[str, Field(max_length=2**17)]
    earlier: tuple[Annotated[str, Field(max_length=2**17)], ...] = Field(default=(), max_length=64)
    host: Text
    port: Annotated[int, Field(ge=1, le=65_535)]
    prefix: Text
