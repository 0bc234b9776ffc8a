"""What the controller remembers: the tables of its database.

Times are whole seconds since the epoch, in UTC. Rows of devices, operators and bundles are never
deleted, only marked, so that the audit log and old reports keep their meaning.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

MAX_COUNTER = 2**63 - 1
"""The largest integer that SQLite and PostgreSQL keep; the protocol has room for 2^64 - 1."""


class Base(DeclarativeBase):
    """Base of all tables."""

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it at class creation
        int: BigInteger,
        str: Text,
        bytes: LargeBinary,
    }


class Device(Base):
    """An enrolled device.

    Attributes:
        kem, kem_key: what grants are sealed to, as in its identity.
        sign_key: PEM; its reports are signed with it.
        certificate: PEM of the certificate it shows the broker; `serial` in hexadecimal.
        counter: of the last assignment; the next one is above it, also after a new enrolment.
        revoked_at: since when it gets nothing any more.
    """

    __tablename__ = "devices"

    id: Mapped[str] = mapped_column(primary_key=True)
    kem: Mapped[str]
    kem_key: Mapped[str]
    sign_key: Mapped[str]
    key_level: Mapped[str]
    hw_class: Mapped[str]
    certificate: Mapped[str]
    serial: Mapped[str]
    fingerprint: Mapped[str]
    enrolled_at: Mapped[int]
    counter: Mapped[int] = mapped_column(default=0)
    revoked_at: Mapped[int | None] = mapped_column(default=None)
    revoked_why: Mapped[str] = mapped_column(default="")


class Group(Base):
    """A name for devices that are assigned together."""

    __tablename__ = "groups"

    name: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[int]


class Membership(Base):
    """A device in a group."""

    __tablename__ = "memberships"

    group: Mapped[str] = mapped_column(
        "group_name", ForeignKey("groups.name", ondelete="CASCADE"), primary_key=True
    )
    device: Mapped[str] = mapped_column(
        "device_id", ForeignKey("devices.id", ondelete="CASCADE"), primary_key=True
    )


class Bundle(Base):
    """A packed model.

    Attributes:
        digest: SHA-256 of the manifest, hexadecimal.
        target: its name as a TUF target.
        folder: where `manifest.json`, `index` and `payload` lie.
        data_key: wrapped by the vault; only there it can be opened.
        published_at: since when the broker holds it.
    """

    __tablename__ = "bundles"
    __table_args__ = (UniqueConstraint("family", "version"),)

    digest: Mapped[str] = mapped_column(primary_key=True)
    family: Mapped[str]
    version: Mapped[str]
    release_counter: Mapped[int]
    target: Mapped[str]
    folder: Mapped[str]
    data_key: Mapped[bytes]
    packed_at: Mapped[int]
    published_at: Mapped[int | None] = mapped_column(default=None)


class Campaign(Base):
    """A roll-out of one bundle.

    Attributes:
        state: as `fleet.campaign.Status` names them; SUCCEEDED and STOPPED are final.
        rules: JSON of the staging rules, with the operators' approvals.
        devices: JSON list of the device ids, in the order in which they get their turn.
        stage: how many stages were begun.
        operator: who ordered it.
        reason: why it ended as it did, for people.
    """

    __tablename__ = "campaigns"

    name: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(ForeignKey("bundles.digest"))
    slot: Mapped[str]
    state: Mapped[str]
    rules: Mapped[str]
    devices: Mapped[str]
    stage: Mapped[int] = mapped_column(default=0)
    operator: Mapped[str]
    created_at: Mapped[int]
    ended_at: Mapped[int | None] = mapped_column(default=None)
    reason: Mapped[str] = mapped_column(default="")


class Assignment(Base):
    """What one device was told to run.

    Attributes:
        counter: the device's own; see `Device.counter`.
        stage: of the campaign, from 1.
        envelope: the signed assignment as published.
        outcome: of the verified report: COMMITTED, REJECTED or ROLLED_BACK; TIMED_OUT or LEFT
            without one; None before. See `fleet.campaign.Outcome`.
    """

    __tablename__ = "assignments"
    __table_args__ = (Index("assignments_of_campaign", "campaign", "stage"),)

    device: Mapped[str] = mapped_column("device_id", ForeignKey("devices.id"), primary_key=True)
    counter: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    campaign: Mapped[str] = mapped_column(ForeignKey("campaigns.name"))
    slot: Mapped[str]
    digest: Mapped[str] = mapped_column(ForeignKey("bundles.digest"))
    stage: Mapped[int]
    envelope: Mapped[bytes]
    deadline: Mapped[int]
    assigned_at: Mapped[int]
    outcome: Mapped[str | None] = mapped_column(default=None)
    outcome_at: Mapped[int | None] = mapped_column(default=None)


class StoredReport(Base):
    """A verified report of a device; `Report` is the document in it.

    Attributes:
        figures: JSON as the device sent it.
        envelope: as signed by the device.
    """

    __tablename__ = "reports"
    __table_args__ = (UniqueConstraint("device_id", "slot", "counter", "outcome"),)

    # SQLite numbers rows by itself only where the column is exactly INTEGER.
    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    device: Mapped[str] = mapped_column("device_id", ForeignKey("devices.id"))
    slot: Mapped[str]
    counter: Mapped[int]
    campaign: Mapped[str]
    digest: Mapped[str]
    outcome: Mapped[str]
    reason: Mapped[str]
    figures: Mapped[str]
    envelope: Mapped[bytes]
    at: Mapped[int]
    received_at: Mapped[int]


class Operator(Base):
    """A person who works with the fleet.

    Attributes:
        role: see `fleet.roles`.
        key_id, public_key: of the key that the operator signs with; JSON as in TUF metadata.
        holds: JSON list of the offline keys, by name, that the operator keeps.
        certificate: PEM of a viewer's broker certificate.
        removed_at: since when the operator may do nothing any more.
    """

    __tablename__ = "operators"

    name: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str]
    key_id: Mapped[str | None] = mapped_column(default=None)
    public_key: Mapped[str | None] = mapped_column(default=None)
    holds: Mapped[str] = mapped_column(default="[]")
    certificate: Mapped[str | None] = mapped_column(default=None)
    serial: Mapped[str | None] = mapped_column(default=None)
    created_at: Mapped[int]
    removed_at: Mapped[int | None] = mapped_column(default=None)


class RevokedCertificate(Base):
    """A certificate that the broker is to refuse; `serial` in hexadecimal."""

    __tablename__ = "revoked_certificates"

    serial: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[int]


class Setting(Base):
    """One value of the controller's own, as JSON."""

    __tablename__ = "settings"

    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]
