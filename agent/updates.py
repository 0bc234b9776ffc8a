"""Everything of updates, put together for one run of the agent.

Where the state of updates cannot be used, what was active last is served from its read-only copy
and updates are refused; where the device is not enrolled, the configured models serve. Neither ever
keeps the agent from running.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent import __version__
from agent.bundle.keys import default_state_dir, open_keys
from agent.bundle.trust import Trust
from agent.bundle.trustmessage import ROLE_BYTES
from agent.device import hardware_class, jetpack
from agent.errors import AgentError, BundleError, KeyStoreError, SignatureError, StoreError
from agent.memory import no_core_dumps
from agent.update import fallback
from agent.update.course import Course
from agent.update.fetch import Fetcher
from agent.update.inbox import Inbox
from agent.update.memoryfolder import MemoryFolder
from agent.update.opening import Opener
from agent.update.preflight import BYTES_PER_MB, Device
from agent.update.proofs import PipelineProofs
from agent.update.reporting import Reporter
from agent.update.staging import FOLDER
from agent.update.store import Store
from agent.update.telling import Teller
from agent.update.updater import Updater
from agent.versions import versions
from agent.wire.schema import COMMAND_REPLY, UPDATE_REQUEST
from agent.wire.topics import FleetTopics
from agent.wire.updaterequest import encode_update_request
from engines.durable import read_bounded
from engines.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from agent.builder import Builder
    from agent.bundle.keys import DeviceKeys
    from agent.config import MqttConfig, UpdatesConfig
    from agent.modelslot import ModelSlot
    from agent.mqtt import MqttClient
    from agent.pipeline.pipeline import Pipeline
    from agent.update.ports import Candidate
    from agent.update.record import Installed
    from agent.wire.topics import Topics
    from agent.wire.updaterequest import UpdateRequest

log = logging.getLogger(__name__)

RECEIVE_QOS = 1

ROOT_FILE = "root.json"
"""The first root of trust, in the state folder: `vigia enroll install` puts it there."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What updates need of the agent.

    Attributes:
        settings: of updates.
        mqtt: the broker, for the connection that bundles come by.
        client: the link to the broker.
        topics: of this device.
        device: device id.
        boot: id of this run of the agent.
        pipeline, slots, builder: where models take over.
        restart: ends the agent, for its service manager to start it anew.
        changed: to be called when `Updates.reason` has changed.
    """

    settings: UpdatesConfig
    mqtt: MqttConfig
    client: MqttClient
    topics: Topics
    device: str
    boot: str
    pipeline: Pipeline
    slots: Mapping[str, ModelSlot]
    builder: Builder
    restart: Callable[[], None]
    changed: Callable[[], None]

    @property
    def state(self) -> Path:
        """The state folder."""
        return self.settings.state_dir or default_state_dir()


class Updates:
    """Serves what updates have brought, and receives new ones.

    Args:
        around: the agent.
    """

    def __init__(self, around: Surroundings) -> None:
        self._refused: str | None = None
        self._trouble: str | None = None
        self._unopened: dict[str, str] = {}
        self._active: dict[str, Candidate] = {}
        self._told: str | None = None
        self._around = around
        self._memory: MemoryFolder | None = None
        self._receiver: Receiver | None = None

    @property
    def reason(self) -> str | None:
        """Why updates are refused or stand still, or what serves is not what was committed."""
        # What was brought anew since is whole.
        unopened = [why for slot, why in self._unopened.items() if slot not in self._active]
        reasons = [self._refused, *unopened, self._trouble]
        return "; ".join(reason for reason in reasons if reason) or None

    def restore(self) -> None:
        """Have what was committed be each slot's model, before models are loaded.

        Never raises for the state of updates, which is told by `reason`.
        """
        around = self._around
        try:
            no_core_dumps()
            keys = open_keys(around.settings.keys, around.state)
            self._memory = MemoryFolder(max_bytes=around.settings.max_bundle_mb * BYTES_PER_MB)
            opener = Opener(around.device, keys, self._memory, around.state / FOLDER)
            proofs = PipelineProofs(around.pipeline, around.slots, around.builder, self._memory)
        except (KeyStoreError, StoreError) as error:
            self._refuse(error)
            return
        store = self._open_store()
        self._install(self._installed(store), opener, proofs)
        self._told = self.reason
        if store is None:
            return
        try:
            self._receiver = Receiver(
                around, store, keys, opener, proofs, self._active, self._note_turn
            )
        except (BundleError, StoreError) as error:
            self._refuse(error)
            store.close()

    def start(self) -> None:
        """Receive updates."""
        if self._receiver is not None:
            self._receiver.start()

    def cancel(self) -> None:
        """Begin nothing more; returns at once."""
        if self._receiver is not None:
            self._receiver.cancel()

    def close(self, timeout_s: float) -> None:
        """End, and remove what lies in memory."""
        try:
            if self._receiver is not None:
                self._receiver.close(timeout_s)
        finally:
            if self._memory is not None:
                self._memory.close()

    def counters(self) -> dict[str, object] | None:
        """Plain values for telemetry; None while updates are refused."""
        return None if self._receiver is None else self._receiver.counters()

    def _refuse(self, error: Exception) -> None:
        self._refused = f"updates are refused: {error}"
        log.error("%s", self._refused)

    def _note_turn(self, error: str | None) -> None:
        self._trouble = None if error is None else f"updates stand still: {error}"
        if self.reason != self._told:
            self._told = self.reason
            self._around.changed()

    def _open_store(self) -> Store | None:
        try:
            return Store(self._around.state, time.time)
        except StoreError as error:
            self._refuse(error)
            return None

    def _installed(self, store: Store | None) -> Iterable[Installed]:
        try:
            if store is None:
                return fallback.read(self._around.state)
            found = (store.active(slot) for slot in self._around.slots)
            return [installed for installed in found if installed is not None]
        except StoreError as error:
            self._refuse(error)
            return ()

    def _install(
        self, installed: Iterable[Installed], opener: Opener, proofs: PipelineProofs
    ) -> None:
        """Open what is active; a slot whose bundle cannot be opened runs its configured model."""
        for item in installed:
            if item.slot not in self._around.slots:
                continue
            try:
                candidate = opener.installed(item)
                proofs.install(candidate)
            except (AgentError, EngineError) as error:
                why = f"slot {item.slot}: {item.version} cannot be opened: {error}"
                log.error("%s; the configured model serves", why)  # noqa: TRY400 - told
                self._unopened[item.slot] = why
            else:
                self._active[item.slot] = candidate


class Receiver:
    """The updater and what it stands on.

    Args:
        around: the agent.
        store: what is remembered; closed here.
        keys: of the device.
        opener: opens sealed bundles.
        proofs: builds, judges, switches.
        active: what was opened, by slot.
        trouble: told why updates stand still, or None once they do not.

    Raises:
        BundleError: the device has no root of trust, or a damaged one.
        StoreError: what was trusted cannot be read.
    """

    def __init__(
        self,
        around: Surroundings,
        store: Store,
        keys: DeviceKeys,
        opener: Opener,
        proofs: PipelineProofs,
        active: dict[str, Candidate],
        trouble: Callable[[str | None], None],
    ) -> None:
        self._around = around
        self._store = store
        client, topics, settings = around.client, around.topics, around.settings
        trust = Trust(_root(around), store.trust, time.time)
        self._fleet = FleetTopics(around.mqtt.prefix)
        self._fetcher = Fetcher(around.mqtt, around.device, self._fleet, self._ask)
        self._inbox = Inbox()
        self._teller = Teller(
            client.set_retained,
            topics,
            device=around.device,
            boot=around.boot,
            key_level=keys.level,
            clock=time.monotonic,
            wall=time.time,
        )
        course = Course(
            settings=settings,
            store=store,
            trust=trust,
            opener=opener,
            fetcher=self._fetcher,
            topics=self._fleet,
            proofs=proofs,
            teller=self._teller,
            device=Device(
                settings.hw_class or hardware_class(),
                __version__,
                jetpack(),
                versions()["tensorrt"],
            ),
            active=active,
            now=trust.now,
        )
        reporter = Reporter(
            store=store,
            keys=keys,
            send=self._send_report,
            topics=topics,
            device=around.device,
            boot=around.boot,
            clock=time.monotonic,
        )
        self._updater = Updater(
            device=around.device,
            slots=around.slots,
            store=store,
            trust=trust,
            course=course,
            proofs=proofs,
            teller=self._teller,
            reporter=reporter,
            inbox=self._inbox,
            reply=self._reply,
            restart=around.restart,
            state=around.state,
            active=active,
            now=trust.now,
            trouble=trouble,
        )

    def start(self) -> None:
        """Go on with what was under way, and listen."""
        client, topics = self._around.client, self._around.topics
        self._updater.start()
        client.subscribe(self._fleet.trust, self._inbox.trust, RECEIVE_QOS)
        client.subscribe(topics.assignment, self._inbox.assignment, RECEIVE_QOS)
        client.subscribe(topics.command("+"), self._inbox.command, RECEIVE_QOS)

    def cancel(self) -> None:
        """Begin nothing more; returns at once."""
        self._updater.cancel()

    def close(self, timeout_s: float) -> None:
        """End; the store stays open if something still writes to it."""
        self._fetcher.close()
        if self._updater.close(timeout_s):
            self._store.close()

    def counters(self) -> dict[str, object]:
        """Plain values for telemetry."""
        return {**self._teller.counters(), "not_taken": dict(self._inbox.refused)}

    def _ask(self, request: UpdateRequest) -> None:
        payload = encode_update_request(request, device=self._around.device)
        self._around.client.publish(
            self._around.topics.update_request, payload, qos=1, schema=UPDATE_REQUEST
        )

    def _send_report(self, topic: str, payload: bytes, told: Callable[[], None]) -> bool:
        # Retained: no controller may be there to hear it now.
        return self._around.client.publish(topic, payload, qos=1, retain=True, acknowledged=told)

    def _reply(self, nonce: str, payload: bytes) -> None:
        self._around.client.publish(
            self._around.topics.reply(nonce), payload, qos=1, schema=COMMAND_REPLY
        )


def _root(around: Surroundings) -> bytes:
    path = around.settings.root_file or around.state / ROOT_FILE
    try:
        root = read_bounded(path, ROLE_BYTES["root"])
    except OSError as error:
        raise SignatureError(
            f"there is no root of trust: {path}: {error.strerror or error}; enrol the device "
            "(`vigia enroll`, then `vigia enroll install` with the controller's answer)"
        ) from error
    if root is None:
        raise SignatureError(f"{path} is larger than any root of trust")
    return root
