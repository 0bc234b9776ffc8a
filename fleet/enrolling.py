"""Takes devices into the fleet, and puts them out of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select

from agent.bundle.documents import MAX_ENVELOPE_BYTES, Enrolment
from agent.bundle.identity import fingerprint, read_identity
from engines.durable import read_bounded
from fleet.brokerfolder import revoke_certificate
from fleet.database import Device, Group
from fleet.errors import FleetError
from fleet.groups import add_to_group, create_group

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sqlalchemy.orm import Session

    from agent.bundle.documents import Identity
    from fleet.auditchain import Actor
    from fleet.authority import Certificate
    from fleet.fleetfolder import Fleet


EARLIER_BYTES = 96 * 2**10
MAX_EARLIER = 64
"""Of the roots before the present one that an answer repeats."""


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What came of an enrolment.

    Attributes:
        answer: for the device.
        new_groups: that did not exist before.
    """

    answer: Enrolment
    new_groups: tuple[str, ...]


def read_identity_file(path: Path) -> Identity:
    """Read what a device shows, and check that it holds the keys.

    Raises:
        FleetError: the file cannot be read.
        BundleError: it is no identity, or was altered.
    """
    try:
        data = read_bounded(path, MAX_ENVELOPE_BYTES)
    except OSError as error:
        raise FleetError(f"{path} cannot be read: {error.strerror or error}") from error
    if data is None:
        raise FleetError(f"{path} is no identity: it is larger than {MAX_ENVELOPE_BYTES} bytes")
    return read_identity(data)


def enroll(
    fleet: Fleet,
    actor: Actor,
    identity: Identity,
    groups: Sequence[str] = (),
    *,
    again: bool = False,
) -> Enrolled:
    """Take a device into the fleet.

    Args:
        fleet: which.
        actor: who does it.
        identity: as the device has signed it, and whose fingerprint a person has compared.
        groups: it gets into; those that do not exist are made.
        again: it may be enrolled already; then its old certificate is revoked.

    Raises:
        FleetError: it is enrolled already, was revoked with these keys, or its request is not what
            it should be.
        KeyStoreError: the online keys do not open.
        StoreError: the database refuses.
    """
    passphrase = fleet.keys.passphrase
    now = int(fleet.now())
    with fleet.database.session() as session:
        old = session.get(Device, identity.device)
        _check_new(session, identity, old, again=again)
        certificate = fleet.authority.device(identity.device, identity.csr, passphrase)
        if old is not None:
            revoke_certificate(session, old.serial, now)
        device = _entered(session, identity, certificate, old, now)
        made = _put_into(session, device.id, groups, now)
        if old is not None:
            fleet.broker.write_access(session)
            fleet.broker.write_revocations(session, fleet.authority, passphrase)
        fleet.audit.record(
            session,
            actor,
            "device.enroll",
            {
                "device": device.id,
                "fingerprint": device.fingerprint,
                "serial": device.serial,
                "groups": sorted(groups),
                "again": old is not None,
            },
        )
    return Enrolled(_answer(fleet, device), made)


def revoke(fleet: Fleet, actor: Actor, name: str, why: str) -> Device:
    """Put a device out of the fleet: no connection, no assignment, no key from now on.

    Raises:
        FleetError: there is no such device, or it is revoked already.
        KeyStoreError: the online keys do not open.
        StoreError: the database refuses.
    """
    passphrase = fleet.keys.passphrase
    now = int(fleet.now())
    with fleet.database.session() as session:
        device = session.get(Device, name)
        if device is None:
            raise FleetError(f"there is no device {name!r} in this fleet")
        if device.revoked_at is not None:
            raise FleetError(f"device {name!r} is revoked already")
        device.revoked_at = now
        device.revoked_why = why
        revoke_certificate(session, device.serial, now)
        fleet.broker.write_access(session)
        fleet.broker.write_revocations(session, fleet.authority, passphrase)
        fleet.audit.record(
            session, actor, "device.revoke", {"device": name, "serial": device.serial, "why": why}
        )
    return device


def _check_new(session: Session, identity: Identity, old: Device | None, *, again: bool) -> None:
    name = identity.device
    if old is not None:
        if not again:
            raise FleetError(
                f"device {name!r} is enrolled already, with the fingerprint {old.fingerprint}; if "
                "it is to get another certificate or has new keys, say --again"
            )
        if old.revoked_at is not None and _shares_key(old, identity):
            raise FleetError(
                f"device {name!r} was revoked with these keys, which somebody else may have; make "
                "new ones on the device"
            )
    same = (Device.kem_key == identity.kem_key) | (Device.sign_key == identity.sign_key)
    twin = session.scalar(select(Device.id).where(same, Device.id != name))
    if twin is not None:
        raise FleetError(
            f"device {twin!r} is enrolled with the keys of {name!r}; a copied disk? Make new keys "
            "on the device"
        )


def _shares_key(old: Device, identity: Identity) -> bool:
    return old.kem_key == identity.kem_key or old.sign_key == identity.sign_key


def _entered(
    session: Session, identity: Identity, certificate: Certificate, old: Device | None, now: int
) -> Device:
    device = Device(
        id=identity.device,
        kem=identity.kem,
        kem_key=identity.kem_key,
        sign_key=identity.sign_key,
        key_level=identity.key_level,
        hw_class=identity.hw_class,
        certificate=certificate.pem,
        serial=certificate.serial,
        fingerprint=fingerprint(identity),
        enrolled_at=now,
        # What was assigned to the old keys stays used up.
        counter=0 if old is None else old.counter,
        revoked_at=None,
        revoked_why="",
    )
    kept = session.merge(device)
    session.flush()
    return kept


def _put_into(session: Session, device: str, groups: Sequence[str], now: int) -> tuple[str, ...]:
    made = tuple(name for name in sorted(set(groups)) if session.get(Group, name) is None)
    for name in made:
        create_group(session, name, now)
    for name in groups:
        add_to_group(session, name, [device])
    return made


def _answer(fleet: Fleet, device: Device) -> Enrolment:
    settings = fleet.settings
    return Enrolment(
        device=device.id,
        certificate=device.certificate,
        authority=fleet.authority.certificate,
        root=fleet.repository.anchor().decode(),
        earlier=_earlier_roots(fleet),
        host=settings.broker_host,
        port=settings.broker_port,
        prefix=settings.prefix,
    )


def _earlier_roots(fleet: Fleet) -> tuple[str, ...]:
    """Those before the present one, the oldest left out where there is no room for all."""
    found: list[str] = []
    room = EARLIER_BYTES
    for root in reversed(fleet.repository.earlier_roots()[-MAX_EARLIER:]):
        # As JSON every quotation mark takes two bytes.
        room -= len(json.dumps(root.decode()))
        if room < 0:
            break
        found.insert(0, root.decode())
    return tuple(found)
