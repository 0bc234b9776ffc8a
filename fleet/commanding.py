"""Sends signed commands to devices and hears what became of them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.errors import WireError
from agent.wire.reading import parse
from agent.wire.schema import COMMAND_REPLY
from agent.wire.topics import Topics
from fleet.ordering import COMMAND_LIFE_S, command
from fleet.watching import Reports

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fleet.auditchain import Actor
    from fleet.campaigns import Campaigns
    from fleet.fleetfolder import Fleet
    from fleet.link import Inbox, Outlet
    from fleet.ordering import Verb

LOOK_S = 0.5
REPORT_S = 5.0
"""A signed report follows its answer within this, if at all."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a command, by the device's own, unsigned word.

    Attributes:
        done: whether it was carried out; None: no answer came.
        reason: why not, or what must be known.
    """

    done: bool | None = None
    reason: str = ""


def send_commands(
    fleet: Fleet, actor: Actor, outlet: Outlet, devices: Sequence[str], slot: str, verb: Verb
) -> dict[str, str]:
    """Sign a command for each device and send it.

    It is retained, so that a device that is away hears it if it comes back in time; it obeys each
    once.

    Returns:
        The device of each nonce.

    Raises:
        BrokerError: the broker does not take them.
    """
    sent = {}
    for device in devices:
        nonce, envelope = command(fleet, actor, device, slot, verb)
        sent[nonce] = device
        topic = Topics(fleet.settings.prefix, device).command(verb)
        outlet.send(topic, envelope, expiry_s=COMMAND_LIFE_S)
    with fleet.database.session() as session:
        details = {"devices": list(devices), "slot": slot}
        fleet.audit.record(session, actor, f"command.{verb}", details)
    outlet.settle()
    return sent


class Hearing:
    """Hears what devices answer to a command, and their signed reports that follow from it.

    Args:
        campaigns: gets the reports that a model was rolled back.
        prefix: first levels of the topics.
        devices: that are commanded.
        slot: that the command is for.
        monotonic: seconds that never jump.
    """

    def __init__(
        self,
        campaigns: Campaigns,
        prefix: str,
        devices: Sequence[str],
        slot: str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._campaigns = campaigns
        self._prefix = prefix
        self._monotonic = monotonic
        self._reports = Reports()
        self._slot = slot
        self._reporters = {Topics(prefix, device).update_report(slot): device for device in devices}
        self._silent = set()
        for expected in campaigns.latest(devices, slot):
            self._reports.expect(expected)
            self._silent.add(expected.device)

    @property
    def filters(self) -> tuple[str, ...]:
        """Topics to be heard."""
        every = Topics(self._prefix, "+")
        return every.reply("+"), every.update_report(self._slot)

    def answers(self, inbox: Inbox, sent: dict[str, str], wait_s: float) -> dict[str, Answer]:
        """Wait for the answers.

        Args:
            inbox: hears `filters`.
            sent: as `send_commands` gave it.
            wait_s: at the most.

        Returns:
            One for each device.
        """
        topics = {
            Topics(self._prefix, device).reply(nonce): device for nonce, device in sent.items()
        }
        found: dict[str, Answer] = {}
        end = self._monotonic() + wait_s
        answered = False
        while not self._all(found, topics) and (left := end - self._monotonic()) > 0:
            for topic, payload in inbox.take(min(left, LOOK_S)):
                if topic in topics:
                    answer = _answer(payload)
                    found |= {} if answer is None else {topics[topic]: answer}
                elif topic in self._reporters:
                    self._hear_report(self._reporters[topic], payload)
            if len(found) == len(topics) and not answered:
                answered = True
                # A rollback of what was not assigned last has no report that we could place.
                end = min(end, self._monotonic() + REPORT_S)
        return {device: found.get(device, Answer()) for device in sent.values()}

    def _all(self, found: dict[str, Answer], topics: dict[str, str]) -> bool:
        """Whether all have answered, and those that rolled back have reported it."""
        done = {device for device, answer in found.items() if answer.done}
        return len(found) == len(topics) and not done & self._silent

    def _hear_report(self, device: str, payload: bytes) -> None:
        report = self._reports.judge(device, payload, self._monotonic())
        if report is not None and report.outcome == "ROLLED_BACK":
            self._silent.discard(device)
            self._campaigns.reported([(report, payload)])


def _answer(payload: bytes) -> Answer | None:
    try:
        message = parse(payload)
    except WireError:
        return None
    done, reason = message.get("done"), message.get("reason", "")
    if message["schema"] != COMMAND_REPLY or not isinstance(done, bool):
        return None
    return Answer(done, reason if isinstance(reason, str) else "")
