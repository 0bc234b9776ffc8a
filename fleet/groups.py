"""Groups of devices, and which devices a command means. Works within the caller's transaction."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sqlalchemy import select

from fleet.database import Device, Group, Membership
from fleet.errors import FleetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy.orm import Session

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def create_group(session: Session, name: str, now: int) -> None:
    """Make an empty group.

    Raises:
        FleetError: it is there already, or cannot be called so.
    """
    if not NAME.fullmatch(name):
        raise FleetError(
            f"a group cannot be called {name!r}; take letters, digits, - and _, at most 64"
        )
    if session.get(Group, name) is not None:
        raise FleetError(f"there is a group {name!r} already")
    session.add(Group(name=name, created_at=now))
    session.flush()


def remove_group(session: Session, name: str) -> None:
    """Remove a group; its devices stay.

    Raises:
        FleetError: there is none.
    """
    session.delete(_group(session, name))


def add_to_group(session: Session, name: str, devices: Iterable[str]) -> None:
    """Put devices into a group; those that are in it already stay.

    Raises:
        FleetError: there is no such group or device.
    """
    _group(session, name)
    for device in devices:
        _device(session, device)
        session.merge(Membership(group=name, device=device))


def take_from_group(session: Session, name: str, devices: Iterable[str]) -> None:
    """Take devices out of a group.

    Raises:
        FleetError: there is no such group, or a device is not in it.
    """
    _group(session, name)
    for device in devices:
        row = session.get(Membership, (name, device))
        if row is None:
            raise FleetError(f"device {device!r} is not in group {name!r}")
        session.delete(row)


def groups(session: Session) -> dict[str, list[str]]:
    """The devices of each group, sorted."""
    found: dict[str, list[str]] = {
        name: [] for name in session.scalars(select(Group.name).order_by(Group.name))
    }
    for row in session.scalars(select(Membership).order_by(Membership.device)):
        found[row.group].append(row.device)
    return found


def chosen_devices(
    session: Session, devices: Sequence[str], groups: Sequence[str] = ()
) -> list[Device]:
    """The devices that a command names, each once, sorted by id.

    Args:
        session: a look at the database.
        devices: named one by one; a revoked one is a mistake.
        groups: whose devices are meant; revoked ones are left out.

    Raises:
        FleetError: a name is unknown, a device revoked, or nothing is left.
    """
    found = {name: _device(session, name) for name in devices}
    revoked = sorted(name for name, device in found.items() if device.revoked_at is not None)
    if revoked:
        raise FleetError(f"device {revoked[0]!r} is revoked and gets nothing any more")
    for group in groups:
        _group(session, group)
        members = (
            select(Device)
            .join(Membership, Membership.device == Device.id)
            .where(Membership.group == group, Device.revoked_at.is_(None))
        )
        found |= {device.id: device for device in session.scalars(members)}
    if not found:
        raise FleetError("no device is meant: name devices, or a group that has some")
    return [found[name] for name in sorted(found)]


def _group(session: Session, name: str) -> Group:
    row = session.get(Group, name)
    if row is None:
        raise FleetError(
            f"there is no group {name!r}; make it with `vigia fleet group create`, see all with "
            "`vigia fleet group list`"
        )
    return row


def _device(session: Session, name: str) -> Device:
    row = session.get(Device, name)
    if row is None:
        raise FleetError(f"there is no device {name!r} in this fleet; enrol it first")
    return row
