"""Replaces keys. What devices trust changes only when offline keys have signed it.

Each function makes the new key, stages what has to be signed (`fleet.repository`), and leaves the
old key in force until that is signed, completed and published.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from sqlalchemy import select

from fleet.brokerfolder import revoke_certificate
from fleet.database import (
    CONTROLLER_SERIAL,
    OFFLINE_KEYS,
    Operator,
    read_setting,
    write_setting,
)
from fleet.errors import FleetError
from fleet.keyring import OFFLINE, ONLINE
from fleet.roledata import role_keys
from fleet.signing import KeySet

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from securesystemslib.signer import Key
    from sqlalchemy.orm import Session

    from fleet.auditchain import Actor
    from fleet.fleetfolder import Fleet
    from fleet.vault import Vault


class Online(str, Enum):
    """Online keys that can be replaced."""

    DIRECTOR = "director"
    SNAPSHOT = "snapshot"
    TIMESTAMP = "timestamp"


class Offline(str, Enum):
    """Kinds of offline keys."""

    ROOT = "root"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class Rotated:
    """What was done.

    Attributes:
        made: names of the new keys.
        requests: files to be signed before it counts.
    """

    made: tuple[str, ...]
    requests: tuple[Path, ...] = ()


def rotate_director(fleet: Fleet, actor: Actor) -> Rotated:
    """Have another key assign; what the old one assigned counts no more once it is published.

    Raises:
        FleetError, KeyStoreError, StoreError: it cannot be done.
    """
    with fleet.database.session() as session:
        name, key = _new_online(fleet, Online.DIRECTOR)
        fleet.repository.set_directors([key])
        return _done(fleet, session, actor, {name: key})


def rotate_online(fleet: Fleet, actor: Actor) -> Rotated:
    """Have other keys say what is current, both: devices then forget what the old ones signed.

    Raises:
        FleetError, KeyStoreError, StoreError: it cannot be done.
    """
    with fleet.database.session() as session:
        snapshot = _new_online(fleet, Online.SNAPSHOT)
        timestamp = _new_online(fleet, Online.TIMESTAMP)
        fleet.repository.rotate_root(
            snapshot=KeySet((snapshot[1],)), timestamp=KeySet((timestamp[1],))
        )
        return _done(fleet, session, actor, dict((snapshot, timestamp)))


def replace_offline(
    fleet: Fleet, actor: Actor, kind: Offline, old: str, given: Key | None = None
) -> Rotated:
    """Replace a root or release key, e.g. one that was lost or whose holder left.

    Args:
        fleet: which.
        actor: who does it.
        kind: of the key.
        old: its name.
        given: the new public key, made elsewhere; None: a new one is made in the fleet folder.

    Raises:
        FleetError: there is no such key.
        KeyStoreError, StoreError: it cannot be done.
    """
    with fleet.database.session() as session:
        known: dict[str, str] = read_setting(session, OFFLINE_KEYS, {})
        role = "root" if kind is Offline.ROOT else "targets"
        # What waits to be signed counts: else a second change would undo the first.
        present = role_keys(fleet.repository.next_root(), role)
        kept = tuple(key for key in present.keys if key.keyid != known.get(old))
        if len(kept) == len(present.keys):
            names = [n for n, i in known.items() if i in {key.keyid for key in present.keys}]
            raise FleetError(
                f"{old!r} is no {kind.value} key in force; those are {', '.join(sorted(names))}"
            )
        name = _free_name(fleet.keys.offline, kind.value, known)
        key = given or fleet.keys.offline.create_key(name, fleet.passphrases.new(OFFLINE))
        if kind is Offline.ROOT:
            fleet.repository.rotate_root(root=KeySet((*kept, key), present.threshold))
        else:
            fleet.repository.revoke_release_key(known[old], key)
        write_setting(session, OFFLINE_KEYS, {**known, name: key.keyid})
        _hand_over(session, old, name)
        return _done(fleet, session, actor, {name: key}, replaced=old)


def rotate_server(fleet: Fleet, actor: Actor) -> Rotated:
    """Give the broker a new key and certificate, and write its configuration anew.

    Raises:
        FleetError, KeyStoreError, StoreError: it cannot be done.
    """
    with fleet.database.session() as session:
        fleet.broker.write_server(fleet.authority, fleet.keys.passphrase)
        fleet.broker.write_config(fleet.layout.broker.resolve())
        fleet.audit.record(session, actor, "keys.rotate", {"what": "server"})
    return Rotated(("server",))


def rotate_controller(fleet: Fleet, actor: Actor) -> Rotated:
    """Give the controller a new key and certificate, and revoke the old one.

    Raises:
        FleetError, KeyStoreError, StoreError: it cannot be done.
    """
    passphrase = fleet.keys.passphrase
    with fleet.database.session() as session:
        revoke_certificate(session, read_setting(session, CONTROLLER_SERIAL, ""), int(fleet.now()))
        serial = fleet.broker.write_controller(fleet.authority, passphrase)
        write_setting(session, CONTROLLER_SERIAL, serial)
        fleet.broker.write_revocations(session, fleet.authority, passphrase)
        fleet.audit.record(session, actor, "keys.rotate", {"what": "controller", "serial": serial})
    return Rotated(("controller",))


def renew(fleet: Fleet, actor: Actor) -> Rotated:
    """Stage root and targets with a new expiry and nothing else changed.

    Raises:
        FleetError, StoreError: it cannot be done.
    """
    with fleet.database.session() as session:
        fleet.repository.rotate_root()
        fleet.repository.renew_targets()
        fleet.audit.record(session, actor, "metadata.renew", {})
    return Rotated((), tuple(fleet.repository.pending()))


def _new_online(fleet: Fleet, kind: Online) -> tuple[str, Key]:
    name = _free_name(fleet.vault, kind.value, ())
    return name, fleet.vault.create_key(name, fleet.passphrases.get(ONLINE))


def _free_name(vault: Vault, kind: str, known: Iterable[str]) -> str:
    """The first that no key has or had: `director`, then `director-2`."""
    taken = {*vault.names(), *known}
    number = 1
    while f"{kind}-{number}" in taken or (number == 1 and kind in taken):
        number += 1
    return f"{kind}-{number}"


def _hand_over(session: Session, old: str, new: str) -> None:
    """Whoever kept the old key keeps the new one."""
    for operator in session.scalars(select(Operator)):
        holds = json.loads(operator.holds)
        if old in holds:
            operator.holds = json.dumps(sorted({*holds, new} - {old}))


def _done(
    fleet: Fleet, session: Session, actor: Actor, made: dict[str, Key], replaced: str = ""
) -> Rotated:
    details = {"keys": {name: key.keyid for name, key in made.items()}, "replaced": replaced}
    fleet.audit.record(session, actor, "keys.rotate", details)
    return Rotated(tuple(made), tuple(fleet.repository.pending()))
