"""What the controller knows of its fleet, for people: devices, bundles, campaigns, metadata."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from fleet.errors import FleetError
from fleet.groups import groups
from fleet.tables import Assignment, Bundle, Campaign, Device

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from fleet.fleetfolder import Fleet


@dataclass(frozen=True, slots=True)
class Inventory:
    """Rows as plain values.

    Attributes:
        devices, bundles, campaigns: see the functions below.
        expiries: when each role of the metadata ends, seconds since the epoch.
    """

    devices: list[dict[str, Any]]
    bundles: list[dict[str, Any]]
    campaigns: list[dict[str, Any]]
    expiries: dict[str, float]


def inventory(fleet: Fleet) -> Inventory:
    """All that is known; the broker is not asked."""
    with fleet.database.reading() as session:
        bundles = session.scalars(select(Bundle).order_by(Bundle.family, Bundle.release_counter))
        rows = list(bundles)
        names = {row.digest: f"{row.family} {row.version}" for row in rows}
        devices = _devices(session, names)
        campaigns = _campaigns(session, names)
    try:
        published = fleet.repository.published()
        expiries = fleet.repository.expiries()
        released = {target.hashes.get("sha256") for target in published.targets.targets.values()}
    except FleetError:
        # Nothing was published yet.
        expiries, released = {}, set()
    return Inventory(
        devices,
        [_bundle(row, released=row.digest in released) for row in rows],
        campaigns,
        expiries,
    )


def _devices(session: Session, names: dict[str, str]) -> list[dict[str, Any]]:
    last: dict[str, Assignment] = {}
    committed: dict[str, str] = {}
    for row in session.scalars(select(Assignment).order_by(Assignment.counter)):
        last[row.device] = row
        if row.outcome == "COMMITTED":
            committed[row.device] = names[row.digest]
    members: dict[str, list[str]] = {}
    for group, devices in groups(session).items():
        for device in devices:
            members.setdefault(device, []).append(group)
    return [
        {
            "device": row.id,
            "groups": members.get(row.id, []),
            "hw_class": row.hw_class,
            "key_level": row.key_level,
            "revoked": row.revoked_at is not None,
            "committed": committed.get(row.id, ""),
            "assigned": names[last[row.id].digest] if row.id in last else "",
            "outcome": (last[row.id].outcome or "WAITING") if row.id in last else "",
            "since": last[row.id].outcome_at or last[row.id].assigned_at
            if row.id in last
            else None,
        }
        for row in session.scalars(select(Device).order_by(Device.id))
    ]


def _campaigns(session: Session, names: dict[str, str]) -> list[dict[str, Any]]:
    counts: dict[str, dict[str, int]] = {}
    for campaign, outcome in session.execute(select(Assignment.campaign, Assignment.outcome)):
        tally = counts.setdefault(campaign, {})
        tally[outcome or "WAITING"] = tally.get(outcome or "WAITING", 0) + 1
    return [
        {
            "campaign": row.name,
            "bundle": names[row.digest],
            "slot": row.slot,
            "state": row.state,
            "reason": row.reason,
            "operator": row.operator,
            "outcomes": counts.get(row.name, {}),
            "created": row.created_at,
            "ended": row.ended_at,
        }
        for row in session.scalars(select(Campaign).order_by(Campaign.created_at, Campaign.name))
    ]


def _bundle(row: Bundle, *, released: bool) -> dict[str, Any]:
    return {
        "family": row.family,
        "version": row.version,
        "release_counter": row.release_counter,
        "digest": row.digest,
        "released": released,
        "published": row.published_at,
        "packed": row.packed_at,
    }
