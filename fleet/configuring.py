"""Sends signed settings to devices, and hears what became of them."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from agent.bundle.documents import MAX_SETTINGS_BYTES, SETTINGS, Settings
from agent.bundle.dsse import sign, unverified, verify
from agent.errors import BundleError, ManifestError, WireError
from agent.wire.reading import parse
from agent.wire.schema import CONFIG_STATE
from agent.wire.topics import Topics
from fleet.database import next_counter
from fleet.errors import FleetError
from fleet.groups import chosen_devices
from fleet.roledata import OPERATORS, delegated_keys
from fleet.tables import Operator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fleet.auditchain import Actor
    from fleet.fleetfolder import Fleet
    from fleet.link import Inbox, Outlet

DAY_S = 24 * 3600

LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class Sent:
    """Settings that were sent: their counter, and SHA-256 of their text."""

    counter: int
    digest: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the broker holds for a device.

    Attributes:
        document: as it was signed.
        operator: who signed it; None: nobody whom devices obey now.
    """

    document: Settings
    operator: str | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of settings, by the device's own, unsigned word.

    Attributes:
        taken: whether the device took them; None: no answer came.
        state: of its settings, as the device told it; empty without an answer.
        reason: why they were not taken, or what of them failed.
        restart: keys that come into force with a restart.
    """

    taken: bool | None = None
    state: str = ""
    reason: str = ""
    restart: tuple[str, ...] = ()


def send_settings(
    fleet: Fleet,
    actor: Actor,
    outlet: Outlet,
    device: str,
    settings: Mapping[str, Any],
    life_s: int,
) -> Sent:
    """Sign settings for a device, and have the broker keep them for it.

    Args:
        fleet: that the device is in.
        actor: who wants them.
        outlet: to the broker.
        device: whose.
        settings: sections, as in a configuration file; none: the device's own file alone counts.
        life_s: a device that is away for longer does not take them, seconds.

    Raises:
        FleetError: there is no such device, it is revoked, or the settings are too many.
        BrokerError: the broker does not take them.
    """
    text = json.dumps(settings, separators=(",", ":"))
    if len(text) > MAX_SETTINGS_BYTES:
        raise FleetError(
            f"the settings have {len(text)} bytes, a device takes {MAX_SETTINGS_BYTES}; write what "
            "seldom changes into the device's own file"
        )
    now = int(fleet.now())
    digest = hashlib.sha256(text.encode()).hexdigest()
    with fleet.database.session() as session:
        chosen_devices(session, [device])
        counter = next_counter(session, device)
        document = Settings(
            device=device, counter=counter, issued=now, expires=now + life_s, settings=text
        )
        envelope = sign(SETTINGS, document, [actor.signer])
        action = "config.push" if settings else "config.clear"
        details = {"device": device, "counter": counter, "sha256": digest}
        fleet.audit.record(session, actor, action, details)
    topic = Topics(fleet.settings.prefix, device).config_desired
    outlet.send(topic, envelope, expiry_s=life_s)
    outlet.settle()
    return Sent(counter, digest)


def read_wanted(fleet: Fleet, envelope: bytes) -> Wanted:
    """What an envelope that the broker holds says, and who signed it.

    Raises:
        FleetError: it holds no settings.
    """
    try:
        document = unverified(envelope, Settings)
    except ManifestError as error:
        raise FleetError(f"the broker holds what is no settings: {error}") from error
    for key in delegated_keys(fleet.repository.published().targets, OPERATORS):
        try:
            verify(envelope, SETTINGS, Settings, [key])
        except BundleError:
            continue
        with fleet.database.reading() as session:
            named = select(Operator.name).where(Operator.key_id == key.keyid)
            return Wanted(document, session.scalar(named) or key.keyid)
    return Wanted(document, None)


class Hearing:
    """Hears what the broker holds for one device, and what the device says of its settings.

    Args:
        prefix: first levels of the topics.
        device: whose.
        monotonic: seconds that never jump.

    Attributes:
        filters: topics to be heard.
        envelope: what the broker holds; None: nothing came yet.
        state: what the device said last; None: nothing came yet.
    """

    def __init__(
        self, prefix: str, device: str, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        topics = Topics(prefix, device)
        self.filters = (topics.config_desired, topics.config_state)
        self.envelope: bytes | None = None
        self.state: dict[str, Any] | None = None
        self._monotonic = monotonic

    def outcome(self, inbox: Inbox, sent: Sent, wait_s: float) -> Outcome:
        """Wait until the device has said what became of settings.

        Args:
            inbox: hears `filters`.
            sent: the settings.
            wait_s: at the most.
        """
        end = self._monotonic() + wait_s
        while (found := self._judged(sent)).taken is None:
            left = end - self._monotonic()
            if left <= 0:
                break
            self._hear(inbox, left)
        return found

    def wait(self, inbox: Inbox, wait_s: float) -> None:
        """Wait until there is something of both topics, or for so long."""
        end = self._monotonic() + wait_s
        while (self.envelope is None or self.state is None) and (
            left := end - self._monotonic()
        ) > 0:
            self._hear(inbox, left)

    def _hear(self, inbox: Inbox, left_s: float) -> None:
        for topic, payload in inbox.take(min(left_s, LOOK_S)):
            if topic == self.filters[0]:
                self.envelope = payload or None
            elif topic == self.filters[1]:
                self.state = _state(payload) or self.state

    def _judged(self, sent: Sent) -> Outcome:
        state = self.state or {}
        told = str(state.get("state", ""))
        if _counter(state.get("desired")) == sent.counter:
            restart = tuple(str(key) for key in state.get("restart", ()))
            return Outcome(True, told, str(state.get("reason", "")), restart)
        refused = state.get("not_taken")
        if isinstance(refused, dict):
            reason = str(refused.get("reason", ""))
            if _counter(refused) == sent.counter:
                return Outcome(False, told, reason)
            # Whose these were, the device could not tell; they may have been ours.
            return Outcome(None, told, "" if "counter" in refused else reason)
        return Outcome(None, told)


def _state(payload: bytes) -> dict[str, Any] | None:
    try:
        message = parse(payload)
    except WireError:
        return None
    return message if message["schema"] == CONFIG_STATE else None


def _counter(value: object) -> object:
    return value.get("counter") if isinstance(value, dict) else None
