"""Drives a campaign to its end: assigns stage by stage, hears devices, answers them.

One thread does everything but the link's own work; what comes in between is bounded. Everything
that must outlive it is in the database, so a roll-out that was broken off goes on where it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.wire.topics import Topics
from fleet.assigning import CHUNK_DEVICES
from fleet.campaign import Campaign, Outcome, Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from agent.bundle.documents import Report
    from fleet.answering import Answers
    from fleet.assigning import Assigner
    from fleet.campaigns import Campaigns, Offer
    from fleet.link import Inbox
    from fleet.publishing import Sender
    from fleet.watching import Board, Reports

LOOK_S = 0.5
"""How often it is drawn, and seen whether a time is over."""

RENEW_LOOK_S = 3600.0
"""How often it is seen whether the trust metadata ends soon; it is renewed days before."""

ANSWER_PIECES = 64
"""Pieces sent again between two looks at what has come."""


class Router:
    """Gives what was heard to whom it concerns.

    Args:
        prefix: first levels of the topics.
        slot: whose reports are heard.
        board: takes states.
        answers: takes requests.
        reports: takes reports.
    """

    def __init__(
        self, prefix: str, slot: str, board: Board, answers: Answers, reports: Reports
    ) -> None:
        self._levels = prefix.split("/")
        self._slot = slot
        self.board = board
        self.answers = answers
        self.reports = reports
        self.foreign = 0
        any_device = Topics(prefix, "+")
        self.filters = (
            any_device.update_state("+"),
            any_device.update_request,
            any_device.update_report(slot),
        )

    def take(self, topic: str, payload: bytes, now: float) -> Report | None:
        """Take a message; a report that counts comes back."""
        levels = topic.split("/")
        own = len(self._levels)
        if levels[:own] != self._levels:
            self.foreign += 1
            return None
        match levels[own:]:
            case [device, "update", "state", slot]:
                self.board.take(device, slot, payload, now)
            case [device, "update", "request"]:
                self.answers.ask(device, payload, now)
            case [device, "update", "report", slot] if slot == self._slot:
                return self.reports.judge(device, payload, now)
            case _:
                self.foreign += 1
        return None


class Rollout:
    """One campaign while a command drives it.

    Args:
        campaigns: where it is kept.
        campaign, offer: as loaded.
        assigner: makes assignments.
        sender: to the broker.
        inbox: what was heard.
        router: of what was heard.
        prefix: first levels of the topics.
        wall: seconds since the epoch.
        monotonic: seconds that never jump.
        ended: called in the transaction that ends the campaign, to audit it.
        renew: has the trust metadata renewed where it ends soon, and gives the new message, if
            there is one.
    """

    def __init__(
        self,
        *,
        campaigns: Campaigns,
        campaign: Campaign,
        offer: Offer,
        assigner: Assigner,
        sender: Sender,
        inbox: Inbox,
        router: Router,
        prefix: str,
        wall: Callable[[], float],
        monotonic: Callable[[], float],
        ended: Callable[[Session], object] = lambda _session: None,
        renew: Callable[[], tuple[str, bytes] | None] = lambda: None,
    ) -> None:
        self.campaign = campaign
        self.offer = offer
        self.router = router
        self.inbox = inbox
        self._campaigns = campaigns
        self._assigner = assigner
        self._sender = sender
        self._prefix = prefix
        self._wall = wall
        self._monotonic = monotonic
        self._ended = ended
        self._renew = renew
        self._renewed_at = monotonic()

    def begin(self) -> None:
        """Expect the reports that are still open, and tell their devices once more.

        A command that ended between making an assignment and publishing it is made good so.

        Raises:
            BrokerError, StoreError: it cannot be done.
        """
        for expected in self._campaigns.expected(self.offer):
            self.router.reports.expect(expected)
        if self.campaign.status is Status.RUNNING:
            for device, envelope in self._campaigns.envelopes(self.offer.campaign):
                self._sender.send(Topics(self._prefix, device).assignment, envelope)
        if self.campaign.status is Status.STOPPED:
            for device in self._campaigns.taken_back(self.offer.campaign):
                self._sender.send(Topics(self._prefix, device).assignment, b"")

    def advance(self, wait_s: float = LOOK_S) -> bool:
        """Hear what comes for up to `wait_s`, and do what follows from it.

        Returns:
            True as long as the campaign goes on.

        Raises:
            BrokerError, StoreError: it cannot be done; what was done is kept.
        """
        reports = []
        for topic, payload in self.inbox.take(0 if self.router.answers.waiting else wait_s):
            report = self.router.take(topic, payload, self._monotonic())
            if report and self.campaign.finished(report.device, Outcome(report.outcome)):
                reports.append((report, payload))
        if reports:
            self._campaigns.reported(reports)
        self.act()
        for topic, payload in self.router.answers.messages(ANSWER_PIECES, self._monotonic()):
            self._sender.send(topic, payload)
        return self.campaign.status is Status.RUNNING

    def act(self) -> None:
        """Do what the campaign asks for now: time out, assign, stop, end.

        Raises:
            BrokerError, StoreError: it cannot be done.
        """
        self._see_whether_stopped()
        self._keep_trust_alive()
        before = (self.campaign.status, self.campaign.opened)
        step = self.campaign.step(self._wall())
        if step.timed_out:
            self._campaigns.closed(self.offer.campaign, step.timed_out, Outcome.TIMED_OUT)
        for begin in range(0, len(step.assign), CHUNK_DEVICES):
            self._assign(step.assign[begin : begin + CHUNK_DEVICES])
        for device in self._campaigns.left(self.offer.campaign, step.left):
            # Who has not begun yet shall not begin any more.
            self._sender.send(Topics(self._prefix, device).assignment, b"")
        if (self.campaign.status, self.campaign.opened) != before:
            ends = before[0] is Status.RUNNING is not self.campaign.status
            record = self._ended if ends else lambda _session: None
            self._campaigns.save(self.offer.campaign, self.campaign, record)

    def _see_whether_stopped(self) -> None:
        """Another command may have stopped it."""
        status, reason = self._campaigns.status(self.offer.campaign)
        if status is Status.STOPPED:
            self.campaign.stop(reason)

    def _keep_trust_alive(self) -> None:
        """A roll-out may be long, and devices begin nothing with metadata that has ended."""
        if self.campaign.status is not Status.RUNNING:
            return
        if self._monotonic() - self._renewed_at >= RENEW_LOOK_S:
            self._renewed_at = self._monotonic()
            message = self._renew()
            if message is not None:
                self._sender.send(*message)

    def _assign(self, devices: tuple[str, ...]) -> None:
        by_stage: dict[int, list[str]] = {}
        for device in devices:
            by_stage.setdefault(self.campaign.members[device].stage, []).append(device)
        for stage, members in by_stage.items():
            made = {a.expected.device: a for a in self._assigner.assign(members, stage + 1)}
            for device in members:
                if device not in made:
                    self.campaign.leave(device)
                    continue
                self.router.reports.expect(made[device].expected)
                self.campaign.assigned(device, self._wall())
                self._sender.send(Topics(self._prefix, device).assignment, made[device].envelope)
