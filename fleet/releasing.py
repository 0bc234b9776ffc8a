"""Releasing a bundle: staged, signed by enough release keys on whatever machines, completed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select
from tuf.api.metadata import Targets

from fleet.campaign import Status
from fleet.controlling import files_of
from fleet.errors import FleetError
from fleet.keyring import OFFLINE
from fleet.signing import add_signature, read_request
from fleet.tables import Campaign
from fleet.vault import Vault

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from securesystemslib.signer import Signer

    from fleet.auditchain import Actor
    from fleet.fleetfolder import Fleet
    from fleet.passphrases import Passphrases
    from fleet.tables import Bundle

KEY_SUFFIX = ".key"


@dataclass(frozen=True, slots=True)
class Signed:
    """How far a release is.

    Attributes:
        complete: enough have signed; it can be published.
        requests: files that others are to sign, if it is not.
        missing: whose signatures are wanted, in sentences.
    """

    complete: bool
    requests: tuple[Path, ...] = ()
    missing: tuple[str, ...] = ()


def stage(fleet: Fleet, row: Bundle) -> None:
    """Ask for the release of a bundle, if that was not done.

    Raises:
        FleetError: its version or counter is used.
    """
    files = files_of(fleet, row)
    if fleet.repository.has_target(files.manifest_bytes):
        return
    for path in fleet.repository.pending():
        request = read_request(path)
        if isinstance(request.signed, Targets):
            found = request.signed.targets.get(row.target)
            # Staging it again would undo the signatures that are there.
            if found is not None and found.hashes.get("sha256") == row.digest:
                return
    fleet.repository.stage_target(files.manifest_bytes)


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """What was asked for.

    Attributes:
        requests: files to be signed before it counts.
        campaigns: that go on with the bundle, by name.
    """

    requests: tuple[Path, ...]
    campaigns: tuple[str, ...]


def withdraw(fleet: Fleet, actor: Actor, row: Bundle, why: str) -> Withdrawn:
    """Ask that a bundle be released no longer; devices then do not begin with it any more.

    Raises:
        FleetError: it is not released.
        StoreError: the database refuses.
    """
    going = select(Campaign.name).where(
        Campaign.digest == row.digest, Campaign.state == Status.RUNNING.value
    )
    with fleet.database.session() as session:
        campaigns = tuple(session.scalars(going.order_by(Campaign.name)))
        fleet.repository.withdraw_target(row.target)
        details = {"bundle": f"{row.family} {row.version}", "digest": row.digest, "why": why}
        fleet.audit.record(session, actor, "release.withdraw", details)
    return Withdrawn(tuple(fleet.repository.pending()), campaigns)


def sign_pending(
    fleet: Fleet, names: Sequence[str], confirm: Callable[[Sequence[str]], None]
) -> None:
    """Sign what is pending with offline keys that lie in the fleet folder.

    Args:
        fleet: the fleet.
        names: of the keys.
        confirm: shown what is signed, in sentences; raises if it is not to be.

    Raises:
        FleetError: nothing is pending that a key is wanted for.
        KeyStoreError: a key cannot be opened.
    """
    for name in names:
        signer = fleet.keys.offline.signer(name, fleet.passphrases.get(OFFLINE))
        wanted = [path for path in fleet.repository.pending() if _wants(path, signer)]
        if not wanted:
            raise FleetError(f"nothing is pending that the key {name!r} is wanted for")
        for path in wanted:
            confirm(read_request(path).review(signer.public_key))
            add_signature(path, signer)


def complete(fleet: Fleet) -> Signed:
    """Accept what has enough signatures.

    Raises:
        FleetError: it does not fit together.
    """
    missing = tuple(fleet.repository.missing())
    if missing:
        return Signed(False, tuple(fleet.repository.pending()), missing)
    if fleet.repository.pending():
        fleet.repository.complete()
    return Signed(True)


def sign_file(
    path: Path, key_file: Path, passphrases: Passphrases, confirm: Callable[[Sequence[str]], None]
) -> Path:
    """Sign a request on a machine that has nothing but it and a key.

    Args:
        path: the signing request.
        key_file: of an offline key, e.g. "release-1.key".
        passphrases: gives the key's.
        confirm: as for `sign_pending`.

    Returns:
        The signature's file, which lies beside the request.

    Raises:
        FleetError: the request does not want this key, or shows what it is not.
        KeyStoreError: the key cannot be opened.
    """
    if key_file.suffix != KEY_SUFFIX:
        raise FleetError(f"{key_file} is no key file; they end in {KEY_SUFFIX}")
    vault = Vault(key_file.parent)
    signer = vault.signer(key_file.stem, passphrases.get(f"the key {key_file.stem}"))
    confirm(read_request(path).review(signer.public_key))
    return add_signature(path, signer)


def _wants(path: Path, signer: Signer) -> bool:
    asks = read_request(path).asks
    return any(signer.public_key == key for ask in asks for key in ask.wanted.keys)
