"""Takes operators on and lets them go: in the database, at the broker, and for the devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleet.brokerfolder import revoke_certificate
from fleet.keyring import operators_own
from fleet.operators import add_operator, check_free, remove_operator, signing_keys
from fleet.roles import Role

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from securesystemslib.signer import Key

    from fleet.auditchain import Actor
    from fleet.authority import Pair
    from fleet.database import Operator
    from fleet.fleetfolder import Fleet


@dataclass(frozen=True, slots=True)
class Staffed:
    """What was done.

    Attributes:
        operator: as entered.
        viewer: certificate and key of a viewer, to be handed over.
        requests: files to be signed before devices know of it.
    """

    operator: Operator
    viewer: Pair | None = None
    requests: tuple[Path, ...] = ()


def take_on(
    fleet: Fleet,
    actor: Actor,
    name: str,
    role: Role,
    *,
    given: Key | None = None,
    holds: Sequence[str] = (),
) -> Staffed:
    """Enter an operator.

    Args:
        fleet: which.
        actor: who does it.
        name: of the new operator.
        role: what they may do.
        given: their public key, made elsewhere; None: the one of their name in the fleet folder,
            where one is made if there is none.
        holds: names of the offline keys that they keep.

    Raises:
        FleetError: the name is taken, or key and role do not fit.
        KeyStoreError, StoreError: it cannot be done.
    """
    now = int(fleet.now())
    with fleet.database.session() as session:
        check_free(session, name)
        key = given
        if role.has_key and key is None:
            key = _own_key(fleet, name)
        operator = add_operator(session, name, role, now, key=key, holds=holds)
        viewer = None
        if role is Role.VIEWER:
            viewer = fleet.authority.viewer(name, fleet.keys.passphrase)
            operator.certificate = viewer.certificate.pem
            operator.serial = viewer.certificate.serial
            session.flush()
            fleet.broker.write_access(session)
        else:
            fleet.repository.set_operators(signing_keys(session))
        details = {"operator": name, "role": role.value, "key_id": operator.key_id or ""}
        fleet.audit.record(session, actor, "operator.add", {**details, "holds": sorted(holds)})
    return Staffed(operator, viewer, tuple(fleet.repository.pending()))


def let_go(fleet: Fleet, actor: Actor, name: str) -> Staffed:
    """Remove an operator.

    Raises:
        FleetError: there is none of this name, or it is the only admin.
        KeyStoreError, StoreError: it cannot be done.
    """
    now = int(fleet.now())
    with fleet.database.session() as session:
        operator = remove_operator(session, name, now)
        session.flush()
        if operator.serial is not None:
            revoke_certificate(session, operator.serial, now)
            fleet.broker.write_access(session)
            fleet.broker.write_revocations(session, fleet.authority, fleet.keys.passphrase)
        else:
            fleet.repository.set_operators(signing_keys(session))
        fleet.audit.record(session, actor, "operator.remove", {"operator": name})
    return Staffed(operator, None, tuple(fleet.repository.pending()))


def ask_approvals(fleet: Fleet, actor: Actor, approvals: int) -> tuple[Path, ...]:
    """Have devices ask for so many operators' approvals of each roll-out.

    Returns:
        The files to be signed before it counts.

    Raises:
        FleetError: there are not so many operators with a key.
    """
    with fleet.database.session() as session:
        fleet.repository.set_policy(approvals)
        fleet.audit.record(session, actor, "policy.set", {"approvals": approvals})
    return tuple(fleet.repository.pending())


def _own_key(fleet: Fleet, name: str) -> Key:
    """The key that lies there under this name, e.g. of a command that failed; else a new one."""
    vault = fleet.keys.operators
    if name in vault.names():
        return vault.public_key(name)
    return vault.create_key(name, fleet.passphrases.new(operators_own(name)))
