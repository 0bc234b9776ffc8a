"""Keeps the files of broker and controller true to the database: who may connect, and to what.

Files change as a whole; Mosquitto takes them when it gets SIGHUP.
"""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

from sqlalchemy import select

from fleet.brokerfiles import (
    ACCESS_LIST,
    AUTHORITY,
    CERTIFICATE,
    CONFIG,
    DATA,
    KEY,
    REVOKED,
    VIEWER_PREFIX,
    access_list,
    broker_config,
)
from fleet.database import Device, Operator, RevokedCertificate
from fleet.errors import FleetError
from fleet.layout import CONTROLLER_CERTIFICATE, CONTROLLER_KEY
from fleet.metadatafolder import replace
from fleet.roles import Role

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.orm import Session

    from fleet.authority import Authority, Pair
    from fleet.layout import Layout, Settings


class BrokerFolder:
    """Writes the files. All methods raise `FleetError` where the disk refuses.

    Args:
        layout: of the fleet folder.
        settings: of the fleet.
    """

    def __init__(self, layout: Layout, settings: Settings) -> None:
        self._broker = layout.broker
        self._controller = layout.controller
        self._settings = settings

    def write_config(self, place: Path) -> None:
        """Write `mosquitto.conf`, and make the folder for the broker's data.

        Args:
            place: where the broker's folder will lie, absolute.
        """
        for folder in (self._broker, self._broker / DATA):
            try:
                folder.mkdir(mode=0o700, exist_ok=True)
            except OSError as error:
                raise FleetError(f"{folder} cannot be made: {error.strerror}") from error
        user = pwd.getpwuid(os.geteuid()).pw_name
        text = broker_config(place, self._settings.broker_port, user)
        replace(self._broker / CONFIG, text.encode())

    def write_server(self, authority: Authority, passphrase: str) -> None:
        """Give the broker a new key and certificate, beside the authority's own."""
        replace(self._broker / AUTHORITY, authority.certificate.encode())
        pair = authority.server(self._settings.broker_names, passphrase)
        _write_pair(pair, self._broker / CERTIFICATE, self._broker / KEY)

    def write_controller(self, authority: Authority, passphrase: str) -> str:
        """Give the controller a new key and certificate; its serial number comes back."""
        try:
            self._controller.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise FleetError(f"{self._controller} cannot be made: {error.strerror}") from error
        pair = authority.controller(passphrase)
        _write_pair(
            pair, self._controller / CONTROLLER_CERTIFICATE, self._controller / CONTROLLER_KEY
        )
        return pair.certificate.serial

    def write_access(self, session: Session) -> None:
        """Write the access list as the database has it in this transaction."""
        viewers = {
            row.name: row.removed_at
            for row in session.scalars(select(Operator).where(Operator.role == Role.VIEWER.value))
        }
        revoked = list(session.scalars(select(Device.id).where(Device.revoked_at.is_not(None))))
        gone = [f"{VIEWER_PREFIX}{name}" for name, removed in viewers.items() if removed]
        left = [name for name, removed in viewers.items() if not removed]
        text = access_list(self._settings.prefix, left, [*revoked, *gone])
        replace(self._broker / ACCESS_LIST, text.encode())

    def write_revocations(self, session: Session, authority: Authority, passphrase: str) -> None:
        """Write the list of revoked certificates as the database has it in this transaction."""
        revoked = {row.serial: row.at for row in session.scalars(select(RevokedCertificate))}
        replace(self._broker / REVOKED, authority.revocations(revoked, passphrase).encode())


def revoke_certificate(session: Session, serial: str, at: int) -> None:
    """Mark a certificate as revoked; the list has to be written afterwards."""
    session.merge(RevokedCertificate(serial=serial, at=at))
    session.flush()


def _write_pair(pair: Pair, certificate: Path, key: Path) -> None:
    # Killed in between, the two do not fit and nothing starts: the command can be given again.
    replace(key, pair.key)
    replace(certificate, pair.certificate.pem.encode())
