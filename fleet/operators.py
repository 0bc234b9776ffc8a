"""Who works with the fleet, and whether they may. Works within the caller's transaction."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from securesystemslib.signer import Key
from sqlalchemy import select

from fleet.audit import CONTROLLER
from fleet.database import Operator
from fleet.errors import FleetError, NotPermittedError
from fleet.groups import NAME
from fleet.roles import LEAST_ROLE, Permission, Role

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import Session


def acting(session: Session, name: str | None, permission: Permission) -> Operator:
    """Who acts, if they may.

    Args:
        session: a look at the database.
        name: as given; None: the only one who could.
        permission: what is to be done.

    Raises:
        FleetError: nobody is called so, or it is not clear who acts.
        NotPermittedError: their role does not allow it.
    """
    operator = _only(session) if name is None else find_operator(session, name)
    role = Role(operator.role)
    if not role.allows(permission):
        raise NotPermittedError(
            f"{operator.name} is {_article(role)} and may not {permission.value}; "
            f"that takes {_article(LEAST_ROLE[permission])}"
        )
    if operator.key_id is None:
        raise NotPermittedError(f"{operator.name} has no key and can only look, at the broker")
    return operator


def find_operator(session: Session, name: str) -> Operator:
    """The operator of this name.

    Raises:
        FleetError: there is none, or not any more.
    """
    operator = session.get(Operator, name)
    if operator is None or operator.removed_at is not None:
        gone = "was removed" if operator else "is no operator of this fleet"
        raise FleetError(f"{name!r} {gone}; see `vigia fleet operator list`")
    return operator


def add_operator(
    session: Session,
    name: str,
    role: Role,
    now: int,
    *,
    key: Key | None = None,
    holds: Sequence[str] = (),
) -> Operator:
    """Enter an operator.

    Args:
        session: the caller's transaction.
        name: never used before, also by nobody who was removed: the audit log names them.
        role: what they may do.
        now: seconds since the epoch.
        key: what they sign with; viewers have none.
        holds: names of the offline keys that they keep.

    Raises:
        FleetError: the name is taken or cannot be, or key and role do not fit.
    """
    check_free(session, name)
    if (key is not None) is not role.has_key:
        raise FleetError(f"{_article(role)} {'needs a' if role.has_key else 'has no'} key")
    if key is not None and key.keyid in {row.key_id for row in session.scalars(select(Operator))}:
        raise FleetError("this key is another operator's; everybody needs a key of their own")
    operator = Operator(
        name=name,
        role=role.value,
        key_id=None if key is None else key.keyid,
        public_key=None if key is None else json.dumps(key.to_dict()),
        holds=json.dumps(sorted(holds)),
        created_at=now,
    )
    session.add(operator)
    session.flush()
    return operator


def check_name(name: str) -> None:
    """See that an operator can be called so.

    Raises:
        FleetError: not so.
    """
    if not NAME.fullmatch(name) or name == CONTROLLER:
        raise FleetError(
            f"an operator cannot be called {name!r}; take letters, digits, - and _, at most 64"
        )


def check_free(session: Session, name: str) -> None:
    """See that a new operator can be called so.

    Raises:
        FleetError: nobody can, or somebody is or was.
    """
    check_name(name)
    if session.get(Operator, name) is not None:
        raise FleetError(f"there is or was an operator {name!r}; names are used once")


def remove_operator(session: Session, name: str, now: int) -> Operator:
    """Mark an operator as removed.

    Raises:
        FleetError: there is none, or nobody could administer the fleet any more.
    """
    operator = find_operator(session, name)
    admins = [row.name for row in active(session) if row.role == Role.ADMIN.value]
    if admins == [name]:
        raise FleetError(f"{name} is the only admin; add another one first")
    operator.removed_at = now
    return operator


def active(session: Session) -> list[Operator]:
    """All who were not removed, by name."""
    wanted = select(Operator).where(Operator.removed_at.is_(None)).order_by(Operator.name)
    return list(session.scalars(wanted))


def operator_key(operator: Operator) -> Key:
    """What an operator signs with; not for viewers."""
    assert operator.key_id is not None
    assert operator.public_key is not None
    return Key.from_dict(operator.key_id, json.loads(operator.public_key))


def signing_keys(session: Session) -> list[Key]:
    """The keys that devices are to obey and count as approvals."""
    return [operator_key(row) for row in active(session) if row.key_id is not None]


def all_keys(session: Session) -> dict[str, list[Key]]:
    """The keys of everybody who ever was an operator, by name, for the audit log."""
    rows = session.scalars(select(Operator).where(Operator.key_id.is_not(None)))
    return {row.name: [operator_key(row)] for row in rows}


def _only(session: Session) -> Operator:
    able = [row for row in active(session) if row.key_id is not None]
    if len(able) != 1:
        names = ", ".join(row.name for row in able)
        raise FleetError(f"who are you? Say --as NAME (or set VIGIA_FLEET_OPERATOR): {names}")
    return able[0]


def _article(role: Role) -> str:
    return f"{'an' if role.value[0] in 'ao' else 'a'} {role.value}"
