"""Campaigns as they are kept in the database, and made again from it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from agent.bundle.dsse import key_of_pem
from agent.bundle.manifest import target_path
from fleet.campaign import Campaign, Member, Outcome, Plan, Status
from fleet.errors import FleetError
from fleet.stricter import NOTHING_STRICTER, Stricter
from fleet.tables import Assignment, Bundle, Device, StoredReport
from fleet.tables import Campaign as Row
from fleet.watching import Expected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy.orm import Session

    from agent.bundle.documents import Report
    from fleet.database import Database


@dataclass(frozen=True, slots=True)
class Offer:
    """What a campaign brings to its devices.

    Attributes:
        campaign: name.
        slot: model slot on the devices.
        digest: SHA-256 of the manifest.
        family, version, release_counter: of the bundle.
        stricter: rules that count where they are stricter than the bundle's.
    """

    campaign: str
    slot: str
    digest: str
    family: str
    version: str
    release_counter: int
    stricter: Stricter = NOTHING_STRICTER

    @property
    def target(self) -> str:
        """The TUF path of the manifest."""
        return target_path(self.family, self.version)


class Campaigns:
    """The table of campaigns, with what hangs on it.

    Args:
        database: of the fleet.
        now: seconds since the epoch.
    """

    def __init__(self, database: Database, now: Callable[[], float]) -> None:
        self._database = database
        self._now = now

    def create(
        self,
        offer: Offer,
        plan: Plan,
        operator: str,
        approvals: Sequence[str] = (),
        record: Callable[[Session], object] = lambda _session: None,
    ) -> None:
        """Keep a new campaign.

        Args:
            offer: what it brings.
            plan: how it goes.
            operator: who ordered it.
            approvals: envelopes of operators' approvals, as JSON texts.
            record: called last in the transaction, e.g. to audit it.

        Raises:
            FleetError: the name is taken, or a device is in another campaign that goes on.
        """
        name = offer.campaign
        devices = [device for stage in plan.stages for device in stage]
        with self._database.session() as session:
            if session.get(Row, name) is not None:
                raise FleetError(f"there was a campaign {name!r} already; choose another name")
            _refuse_busy(session, devices)
            rules = {k: v for k, v in asdict(plan).items() if k != "stages"} | {
                "sizes": [len(stage) for stage in plan.stages],
                "approvals": list(approvals),
                "stricter": offer.stricter.model_dump(mode="json", exclude_none=True),
            }
            session.add(
                Row(
                    name=name,
                    digest=offer.digest,
                    slot=offer.slot,
                    state=Status.RUNNING.value,
                    rules=json.dumps(rules),
                    devices=json.dumps(devices),
                    operator=operator,
                    created_at=int(self._now()),
                )
            )
            record(session)

    def approvals(self, name: str) -> tuple[str, ...]:
        """The approvals that a campaign was created with."""
        with self._database.reading() as session:
            return tuple(json.loads(session.get_one(Row, name).rules)["approvals"])

    def load(self, name: str) -> tuple[Campaign, Offer]:
        """A campaign as it stands.

        Raises:
            FleetError: there is none of this name.
        """
        with self._database.reading() as session:
            row = session.get(Row, name)
            if row is None:
                raise FleetError(f"there is no campaign {name!r}; see `vigia fleet status`")
            bundle = session.get_one(Bundle, row.digest)
            assignments = session.scalars(select(Assignment).where(Assignment.campaign == name))
            members = {a.device: _member(a) for a in assignments}
        campaign = Campaign(_plan(row), members, Status(row.state), row.reason)
        offer = Offer(
            row.name,
            row.slot,
            row.digest,
            bundle.family,
            bundle.version,
            bundle.release_counter,
            Stricter(**json.loads(row.rules)["stricter"]),
        )
        return campaign, offer

    def expected(self, offer: Offer) -> list[Expected]:
        """The reports that the campaign's assignments call for, open or not."""
        with self._database.reading() as session:
            rows = session.execute(
                select(Assignment.device, Assignment.counter, Device.sign_key)
                .join(Device, Device.id == Assignment.device)
                .where(Assignment.campaign == offer.campaign)
            )
            return [
                expected(offer, device, counter, sign_key) for device, counter, sign_key in rows
            ]

    def envelopes(self, name: str) -> list[tuple[str, bytes]]:
        """The assignments that no outcome is known of: device and envelope."""
        with self._database.reading() as session:
            rows = session.execute(
                select(Assignment.device, Assignment.envelope).where(
                    Assignment.campaign == name, Assignment.outcome.is_(None)
                )
            )
            return [(device, envelope) for device, envelope in rows]

    def latest(self, devices: Iterable[str], slot: str) -> list[Expected]:
        """The reports that the last assignment of each of these devices' slots calls for."""
        wanted = set(devices)
        last = (
            select(Assignment.device, func.max(Assignment.counter).label("counter"))
            .where(Assignment.slot == slot)
            .group_by(Assignment.device)
            .subquery()
        )
        with self._database.reading() as session:
            rows = session.execute(
                select(Assignment, Bundle, Device.sign_key)
                .join(Bundle, Bundle.digest == Assignment.digest)
                .join(Device, Device.id == Assignment.device)
                .join(
                    last,
                    (last.c.device == Assignment.device) & (last.c.counter == Assignment.counter),
                )
            )
            return [
                expected(_offer(row, bundle), row.device, row.counter, sign_key)
                for row, bundle, sign_key in rows
                if row.device in wanted
            ]

    def reported(self, reports: Iterable[tuple[Report, bytes]]) -> None:
        """Keep verified reports with their envelopes, and the outcomes with them."""
        now = int(self._now())
        with self._database.session() as session:
            for report, envelope in reports:
                row = session.get_one(Assignment, (report.device, report.counter))
                if row.outcome == report.outcome:
                    continue
                row.outcome, row.outcome_at = report.outcome, now
                session.add(
                    StoredReport(
                        device=report.device,
                        slot=report.slot,
                        counter=report.counter,
                        campaign=report.campaign,
                        digest=report.sha256,
                        outcome=report.outcome,
                        reason=report.reason,
                        figures=report.figures,
                        envelope=envelope,
                        at=report.at,
                        received_at=now,
                    )
                )

    def closed(self, name: str, devices: Iterable[str], outcome: Outcome) -> list[str]:
        """Note that some devices' assignments ended without a report.

        Returns:
            Those that had one.
        """
        wanted = set(devices)
        ended = []
        with self._database.session() as session:
            rows = session.scalars(
                select(Assignment).where(Assignment.campaign == name, Assignment.outcome.is_(None))
            )
            for row in rows:
                if row.device in wanted:
                    row.outcome, row.outcome_at = outcome.value, int(self._now())
                    ended.append(row.device)
        return sorted(ended)

    def left(self, name: str, devices: Iterable[str]) -> list[str]:
        """As `closed`, for devices that nothing more is expected of."""
        return self.closed(name, devices, Outcome.LEFT)

    def taken_back(self, name: str) -> list[str]:
        """Devices whose last assignment is of this campaign and was taken back from them."""
        with self._database.reading() as session:
            rows = session.scalars(
                select(Assignment.device)
                .join(Device, Device.id == Assignment.device)
                .where(
                    Assignment.campaign == name,
                    Assignment.counter == Device.counter,
                    Assignment.outcome == Outcome.LEFT.value,
                )
                .order_by(Assignment.device)
            )
            return list(rows)

    def status(self, name: str) -> tuple[Status, str]:
        """How a campaign stands now, by whatever command, and why."""
        with self._database.reading() as session:
            row = session.get_one(Row, name)
            return Status(row.state), row.reason

    def running(self) -> list[str]:
        """Names of the campaigns that go on."""
        with self._database.reading() as session:
            wanted = select(Row.name).where(Row.state == Status.RUNNING.value).order_by(Row.name)
            return list(session.scalars(wanted))

    def save(
        self,
        name: str,
        campaign: Campaign,
        record: Callable[[Session], object] = lambda _session: None,
    ) -> bool:
        """Keep how a campaign stands; `record` is called last in the transaction.

        Returns:
            False if another command has ended it meanwhile: that stays as it is.
        """
        with self._database.session() as session:
            row = session.get_one(Row, name, with_for_update=True)
            if row.state != Status.RUNNING.value:
                return False
            row.state, row.reason, row.stage = (
                campaign.status.value,
                campaign.reason,
                campaign.opened,
            )
            if campaign.status is not Status.RUNNING and row.ended_at is None:
                row.ended_at = int(self._now())
            record(session)
            return True


def expected(offer: Offer, device: str, counter: int, sign_key: str) -> Expected:
    """The report that an assignment calls for; `sign_key` is PEM of the device's public key."""
    return Expected(
        key=key_of_pem(sign_key),
        device=device,
        slot=offer.slot,
        campaign=offer.campaign,
        counter=counter,
        sha256=offer.digest,
        release_counter=offer.release_counter,
    )


def _refuse_busy(session: Session, devices: Sequence[str]) -> None:
    """A device has one assignment at a time: a second would hide one it has not seen yet."""
    wanted = set(devices)
    for row in session.scalars(select(Row).where(Row.state == Status.RUNNING.value)):
        busy = wanted & set(json.loads(row.devices))
        if busy:
            raise FleetError(
                f"device {min(busy)} is in campaign {row.name!r}, which goes on; wait for its end "
                f"(`vigia fleet watch`) or stop it (`vigia fleet stop`)"
            )


def _plan(row: Row) -> Plan:
    rules = json.loads(row.rules)
    devices = iter(json.loads(row.devices))
    stages = tuple(tuple(next(devices) for _ in range(size)) for size in rules.pop("sizes"))
    del rules["approvals"], rules["stricter"]
    return Plan(stages, **rules)


def _offer(row: Assignment, bundle: Bundle) -> Offer:
    return Offer(
        row.campaign,
        row.slot,
        row.digest,
        bundle.family,
        bundle.version,
        bundle.release_counter,
    )


def _member(row: Assignment) -> Member:
    outcome = Outcome.WAITING if row.outcome is None else Outcome(row.outcome)
    return Member(row.stage - 1, float(row.assigned_at), outcome)
