"""What an operator orders: a campaign, the end of one, a command to a device."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from agent.bundle.documents import COMMAND, Command
from agent.bundle.dsse import sign
from fleet.approvals import gather
from fleet.campaign import Plan, Status, stages_of
from fleet.campaigns import Campaigns, Offer
from fleet.controlling import files_of
from fleet.errors import FleetError
from fleet.groups import chosen_devices
from fleet.stricter import NOTHING_STRICTER, Stricter, completed
from fleet.tables import Bundle

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fleet.auditchain import Actor
    from fleet.fleetfolder import Fleet

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")
NAME_TOKEN_BYTES = 3
LONGEST_STEM = 50

COMMAND_LIFE_S = 3600
"""A device that is away for longer does not obey a command any more."""

NONCE_BYTES = 16

Verb = Literal["rollback", "pause", "resume", "restart"]


@dataclass(frozen=True, slots=True)
class Targets:
    """Whom a campaign is for, and how it goes.

    Attributes:
        devices, groups: named by the operator.
        percents: of all of them once each stage is open; see `fleet.campaign.stages_of`.
        success, max_errors, min_sample, deadline_s: as `fleet.campaign.Plan`.
        stricter: what the devices' proofs must reach beyond the bundle's own rules.
    """

    devices: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    percents: tuple[float, ...] = (100.0,)
    success: float = 0.9
    max_errors: float = 0.2
    min_sample: int = 1
    deadline_s: float = 3600.0
    stricter: Stricter = NOTHING_STRICTER


def campaign_name(row: Bundle) -> str:
    """A name that no other campaign has."""
    stem = NOT_IN_NAMES.sub("-", f"{row.family}-{row.version}").strip("-_")[:LONGEST_STEM]
    return f"{stem}-{secrets.token_hex(NAME_TOKEN_BYTES)}"


def order_campaign(
    fleet: Fleet,
    actor: Actor,
    row: Bundle,
    targets: Targets,
    *,
    slot: str,
    name: str,
    approvals: Sequence[Path] = (),
) -> Plan:
    """Create a campaign, approved by whoever orders it; nobody is assigned anything yet.

    Args:
        fleet: the fleet.
        actor: who orders it.
        row: the bundle.
        targets: whom it is for.
        slot: model slot on the devices.
        name: of the campaign.
        approvals: files with the approvals of others.

    Raises:
        FleetError: the bundle is not published, devices, groups or rules are not possible, or
            approvals are missing.
    """
    if not NAME.fullmatch(name):
        raise FleetError(
            f"a campaign cannot be called {name!r}; take letters, digits, - and _, at most 64"
        )
    _check_offered(fleet, row)
    with fleet.database.reading() as session:
        found = chosen_devices(session, targets.devices, targets.groups)
    plan = Plan(
        stages_of([device.id for device in found], targets.percents, name),
        targets.success,
        targets.max_errors,
        targets.min_sample,
        targets.deadline_s,
    )
    envelopes = gather(fleet, actor, row, name, approvals)
    stricter = completed(targets.stricter, files_of(fleet, row).manifest)
    offer = Offer(name, slot, row.digest, row.family, row.version, row.release_counter, stricter)
    details = {
        "campaign": name,
        "bundle": f"{row.family} {row.version}",
        "devices": [device.id for device in found],
        "stages": [len(stage) for stage in plan.stages],
        "stricter": targets.stricter.model_dump(mode="json", exclude_unset=True),
    }
    Campaigns(fleet.database, fleet.now).create(
        offer,
        plan,
        actor.name,
        envelopes,
        lambda session: fleet.audit.record(session, actor, "campaign.begin", details),
    )
    return plan


def stop_campaign(fleet: Fleet, actor: Actor, name: str, reason: str) -> list[str]:
    """Stop a campaign by hand.

    Returns:
        Devices whose assignments nothing is known of, to be taken back from the broker. If it was
        stopped before, the same once more: the broker may have been away.

    Raises:
        FleetError: it has succeeded, or there is none of this name.
    """
    campaigns = Campaigns(fleet.database, fleet.now)
    campaign, _offer = campaigns.load(name)
    if campaign.status is Status.RUNNING:
        campaign.stop(reason)
        # First that it has ended: then no other command assigns anything any more.
        campaigns.save(
            name,
            campaign,
            lambda session: fleet.audit.record(
                session, actor, "campaign.stop", {"campaign": name, "reason": reason}
            ),
        )
    status, _reason = campaigns.status(name)
    if status is Status.SUCCEEDED:
        raise FleetError(f"campaign {name!r} has ended: {status.value}")
    campaigns.left(name, campaign.step(fleet.now()).left)
    return campaigns.taken_back(name)


def command(fleet: Fleet, actor: Actor, device: str, slot: str, verb: Verb) -> tuple[str, bytes]:
    """A signed command to one device.

    Returns:
        Its nonce, which the answer will name, and the envelope.
    """
    document = Command(
        device=device,
        verb=verb,
        slot=slot,
        nonce=secrets.token_hex(NONCE_BYTES),
        expires=int(fleet.now()) + COMMAND_LIFE_S,
    )
    return document.nonce, sign(COMMAND, document, [actor.signer])


def _check_offered(fleet: Fleet, row: Bundle) -> None:
    """Devices would wait for what the broker does not hold, or refuse what is not released."""
    targets = fleet.repository.published().targets.targets
    released = row.target in targets and targets[row.target].hashes.get("sha256") == row.digest
    with fleet.database.reading() as session:
        published = session.get_one(Bundle, row.digest).published_at is not None
    if not released or not published:
        raise FleetError(
            f"{row.family} {row.version} is not published; say `vigia fleet publish` first"
        )
