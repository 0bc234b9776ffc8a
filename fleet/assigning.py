"""Makes the signed assignments of a campaign, each with the bundle's key for one device."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy import select

from agent.bundle.documents import ASSIGNMENT, Assignment, Kem
from agent.bundle.dsse import sign
from agent.bundle.grant import grant_info, seal_grant
from fleet.campaign import Status
from fleet.campaigns import expected
from fleet.database import next_counter
from fleet.tables import Assignment as Row
from fleet.tables import Campaign, Device

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from securesystemslib.signer import Signer
    from sqlalchemy.orm import Session

    from fleet.campaigns import Offer
    from fleet.database import Database
    from fleet.watching import Expected

CHUNK_DEVICES = 200
"""Assignments made in one transaction."""

CLOCK_SLACK_S = 300
"""An assignment is valid from a little before it was made: the devices' clocks are not ours."""


@dataclass(frozen=True, slots=True)
class Assigned:
    """One signed assignment.

    Attributes:
        envelope: to be published.
        expected: the report that counts as its end.
    """

    envelope: bytes
    expected: Expected


@dataclass(frozen=True)
class Assigner:
    """Makes the assignments of one campaign; they are in the database before anyone sees them.

    Attributes:
        database: of the fleet.
        signers: of the director.
        offer: what is assigned.
        data_key: of the bundle.
        deadline_s: how long a device may take, seconds.
        now: seconds since the epoch.
        approvals: envelopes of operators' approvals.
    """

    database: Database
    signers: Sequence[Signer]
    offer: Offer
    data_key: bytes = field(repr=False)
    deadline_s: float
    now: Callable[[], float]
    approvals: tuple[str, ...] = ()

    def assign(self, devices: Sequence[str], stage: int) -> list[Assigned]:
        """Assign the bundle to devices, each once, whatever other commands drive the campaign.

        Those that were revoked meanwhile get nothing; nobody does once the campaign has ended.

        Args:
            devices: at most `CHUNK_DEVICES`.
            stage: of the campaign, from 1.

        Raises:
            StoreError: the database refuses; none is assigned then.
        """
        with self.database.session() as session:
            campaign = session.get_one(Campaign, self.offer.campaign, with_for_update=True)
            if campaign.state != Status.RUNNING.value:
                return []
            found = [session.get_one(Device, name) for name in devices]
            return [
                self._made(session, device) or self._one(session, device, stage)
                for device in found
                if device.revoked_at is None
            ]

    def _made(self, session: Session, device: Device) -> Assigned | None:
        """What another command has assigned to the device in this campaign."""
        made = select(Row).where(Row.device == device.id, Row.campaign == self.offer.campaign)
        row = session.scalar(made)
        if row is None:
            return None
        return Assigned(row.envelope, expected(self.offer, device.id, row.counter, device.sign_key))

    def _one(self, session: Session, device: Device, stage: int) -> Assigned:
        now = int(self.now())
        offer, name = self.offer, device.id
        counter = next_counter(session, name)
        kem: Kem = "p256" if device.kem == "p256" else "mlkem768-x25519"
        info = grant_info(offer.digest, name, counter)
        document = Assignment(
            device=name,
            slot=offer.slot,
            counter=counter,
            campaign=offer.campaign,
            target=offer.target,
            sha256=offer.digest,
            release_counter=offer.release_counter,
            grant=seal_grant(kem, public_key(device), self.data_key, info),
            not_before=now - CLOCK_SLACK_S,
            deadline=now + int(self.deadline_s),
            gate=offer.stricter.gate,
            shadow=offer.stricter.shadow,
            canary=offer.stricter.canary,
            approvals=self.approvals,
        )
        envelope = sign(ASSIGNMENT, document, self.signers)
        session.add(
            Row(
                device=name,
                counter=counter,
                campaign=offer.campaign,
                slot=offer.slot,
                digest=offer.digest,
                stage=stage,
                envelope=envelope,
                deadline=document.deadline,
                assigned_at=now,
            )
        )
        return Assigned(envelope, expected(offer, name, counter, device.sign_key))


def public_key(device: Device) -> bytes:
    """What grants of a device are sealed to."""
    return base64.b64decode(device.kem_key, validate=True)
