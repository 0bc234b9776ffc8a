"""Puts together what a command needs to drive a campaign."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sqlalchemy import select

from fleet.answering import Answers
from fleet.assigning import Assigner
from fleet.bundlefiles import BundleFiles
from fleet.campaign import Status
from fleet.campaigns import Campaigns, Offer
from fleet.errors import FleetError
from fleet.link import INBOX_MESSAGES, Inbox
from fleet.publishing import publish_bundle, publish_trust, withdraw_bundle
from fleet.rollout import Rollout, Router
from fleet.tables import Bundle, Campaign, Device
from fleet.watching import Board, Reports

if TYPE_CHECKING:
    from collections.abc import Callable

    from fleet.campaign import Campaign as RunningCampaign
    from fleet.fleetfolder import Fleet
    from fleet.link import Outlet

RETAINED_MESSAGES = 8
"""More than a device usually has retained: a report, and a state of each slot."""


def find_bundle(fleet: Fleet, family: str, version: str) -> Bundle:
    """A packed bundle.

    Raises:
        FleetError: there is none.
    """
    with fleet.database.reading() as session:
        wanted = select(Bundle).where(Bundle.family == family, Bundle.version == version)
        row = session.scalar(wanted)
    if row is None:
        raise FleetError(
            f"there is no bundle {family} {version}; pack it with `vigia fleet pack`, see all with "
            "`vigia fleet status`"
        )
    return row


def files_of(fleet: Fleet, row: Bundle) -> BundleFiles:
    """The files of a bundle."""
    return BundleFiles(fleet.layout.bundles / row.folder)


def library(fleet: Fleet) -> dict[str, BundleFiles]:
    """What may be sent to devices again: every bundle that was published, by id."""
    with fleet.database.reading() as session:
        rows = session.scalars(select(Bundle).where(Bundle.published_at.is_not(None)))
        found = [files_of(fleet, row) for row in rows]
    return {files.id: files for files in found}


def enrolled(fleet: Fleet) -> list[str]:
    """All devices that are not revoked, sorted."""
    with fleet.database.reading() as session:
        wanted = select(Device.id).where(Device.revoked_at.is_(None)).order_by(Device.id)
        return list(session.scalars(wanted))


def broker_of(fleet: Fleet) -> str:
    """How the broker is called where it is noted what it holds."""
    settings = fleet.settings
    return f"{settings.broker_host}:{settings.broker_port}/{settings.prefix}"


def publish(
    fleet: Fleet,
    outlet: Outlet,
    row: Bundle,
    tell: Callable[[int, int], None],
    *,
    anew: bool = False,
) -> int:
    """Have the broker hold the metadata and a bundle that they name.

    Returns:
        Blocks that were sent.

    Raises:
        FleetError: the release keys have not signed the bundle.
        BrokerError: the broker does not take it.
    """
    files = files_of(fleet, row)
    if not fleet.repository.has_target(files.manifest_bytes):
        missing = "; ".join(fleet.repository.missing())
        raise FleetError(
            f"{row.family} {row.version} is not released yet"
            + (f": {missing}" if missing else "; have it signed with `vigia fleet sign`")
        )
    sent = publish_bundle(outlet, fleet.topics, files, broker_of(fleet), tell, anew=anew)
    publish_metadata(fleet, outlet)
    with fleet.database.session() as session:
        session.get_one(Bundle, row.digest).published_at = int(fleet.now())
    return sent


def publish_metadata(fleet: Fleet, outlet: Outlet) -> None:
    """Have the broker hold the current metadata, renewed where it ends soon.

    Raises:
        FleetError: an offline role has ended, or a key is missing.
        BrokerError: the broker does not take it.
    """
    fleet.publish_metadata()
    publish_trust(outlet, fleet.topics, fleet.repository.message())


def withdraw_from_broker(
    fleet: Fleet, outlet: Outlet, row: Bundle, tell: Callable[[int, int], None]
) -> None:
    """Have the broker forget a bundle, and answer no more requests for it.

    Raises:
        FleetError: a campaign that goes on needs it.
        BrokerError: the broker does not take it.
    """
    with fleet.database.session() as session:
        going = select(Campaign.name).where(
            Campaign.digest == row.digest, Campaign.state == Status.RUNNING.value
        )
        name = session.scalar(going)
        if name is not None:
            raise FleetError(
                f"campaign {name!r} needs it; wait for its end or `vigia fleet stop` it"
            )
        session.get_one(Bundle, row.digest).published_at = None
    withdraw_bundle(outlet, fleet.topics, files_of(fleet, row), tell)


def open_rollout(fleet: Fleet, outlet: Outlet, name: str) -> Rollout:
    """Go on with a campaign.

    Args:
        fleet: where it is kept.
        outlet: to the broker.
        name: of the campaign.

    Raises:
        FleetError: there is no such campaign.
        KeyStoreError: keys cannot be opened.
        BrokerError: the broker is away.
    """
    campaigns = Campaigns(fleet.database, fleet.now)
    campaign, offer = campaigns.load(name)
    devices = enrolled(fleet)
    prefix = fleet.settings.prefix
    router = Router(
        prefix,
        offer.slot,
        Board(devices),
        Answers(fleet.topics, library(fleet), devices),
        Reports(),
    )
    rollout = Rollout(
        campaigns=campaigns,
        campaign=campaign,
        offer=offer,
        assigner=_assigner(fleet, campaigns, campaign, offer),
        sender=outlet,
        inbox=inbox_for(prefix, len(devices)),
        router=router,
        prefix=prefix,
        wall=fleet.now,
        monotonic=time.monotonic,
        ended=lambda session: fleet.audit.record(
            session,
            fleet.controller(),
            "campaign.end",
            {"campaign": name, "status": campaign.status.value, "reason": campaign.reason},
        ),
        renew=lambda: (
            (fleet.topics.trust, fleet.repository.message()) if fleet.publish_metadata() else None
        ),
    )
    if campaign.status is Status.RUNNING:
        # It may be long since it was published, and who published it may have been broken off.
        publish_metadata(fleet, outlet)
    outlet.hear(router.filters, rollout.inbox)
    rollout.begin()
    return rollout


def running_campaign(fleet: Fleet) -> str:
    """The one campaign that goes on.

    Raises:
        FleetError: there is none, or more than one.
    """
    names = Campaigns(fleet.database, fleet.now).running()
    if len(names) != 1:
        known = f"say which: {', '.join(names)}" if names else "no campaign goes on"
        raise FleetError(f"{known}; see `vigia fleet status`")
    return names[0]


def inbox_for(prefix: str, devices: int) -> Inbox:
    """An inbox with room for what the broker keeps of so many devices, which comes all at once."""
    return Inbox(prefix, max(INBOX_MESSAGES, RETAINED_MESSAGES * devices))


def _assigner(
    fleet: Fleet, campaigns: Campaigns, campaign: RunningCampaign, offer: Offer
) -> Assigner:
    with fleet.database.reading() as session:
        wrapped = session.get_one(Bundle, offer.digest).data_key
    return Assigner(
        database=fleet.database,
        signers=fleet.directors(),
        offer=offer,
        data_key=fleet.keys.unwrap(wrapped),
        deadline_s=campaign.plan.deadline_s,
        now=fleet.now,
        approvals=campaigns.approvals(offer.campaign),
    )
