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

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fleet.auditchain import Actor
    from fleet.fleetfolder import Fleet
    from fleet.link import Inbox, Outlet
    from fleet.ordering import Verb

LOOK_S = 0.5


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


def answers(inbox: Inbox, prefix: str, sent: dict[str, str], wait_s: float) -> dict[str, Answer]:
    """Wait for the answers.

    Args:
        inbox: hears the topics of `reply_filter`.
        prefix: first levels of the topics.
        sent: as `send_commands` gave it.
        wait_s: at the most.

    Returns:
        One for each device.
    """
    found: dict[str, Answer] = {}
    topics = {Topics(prefix, device).reply(nonce): device for nonce, device in sent.items()}
    end = time.monotonic() + wait_s
    while len(found) < len(topics) and (left := end - time.monotonic()) > 0:
        for topic, payload in inbox.take(min(left, LOOK_S)):
            answer = _answer(payload) if topic in topics else None
            if answer is not None:
                found[topics[topic]] = answer
    return {device: found.get(device, Answer()) for device in sent.values()}


def reply_filter(prefix: str) -> str:
    """Where devices answer."""
    return Topics(prefix, "+").reply("+")


def _answer(payload: bytes) -> Answer | None:
    try:
        message = parse(payload)
    except WireError:
        return None
    done, reason = message.get("done"), message.get("reason", "")
    if message["schema"] != COMMAND_REPLY or not isinstance(done, bool):
        return None
    return Answer(done, reason if isinstance(reason, str) else "")
