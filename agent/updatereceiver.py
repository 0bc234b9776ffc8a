"""Receives updates for one run of the agent: the updater, and what it stands on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent import __version__
from agent.bundle.firstroot import read_root
from agent.bundle.trust import Trust
from agent.desiredapply import Applier
from agent.device import hardware_class, jetpack
from agent.statefolder import default_state_dir
from agent.update.course import Course
from agent.update.fetch import Fetcher
from agent.update.inbox import Inbox
from agent.update.preflight import Device
from agent.update.reporting import Reporter
from agent.update.telling import Teller
from agent.update.updater import Updater
from agent.versions import versions
from agent.wire.schema import COMMAND_REPLY, UPDATE_REQUEST
from agent.wire.topics import FleetTopics
from agent.wire.updaterequest import encode_update_request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from agent.builder import Builder
    from agent.bundle.keys import DeviceKeys
    from agent.config import MqttConfig, UpdatesConfig
    from agent.desiredapply import Site
    from agent.modelslot import ModelSlot
    from agent.mqtt import MqttClient
    from agent.pipeline.pipeline import Pipeline
    from agent.update.opening import Opener
    from agent.update.ports import Candidate
    from agent.update.proofs import PipelineProofs
    from agent.update.store import Store
    from agent.wire.topics import Topics
    from agent.wire.updaterequest import UpdateRequest

RECEIVE_QOS = 1


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
        settled: gives who brings operators' settings into force.
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
    settled: Callable[[], Site]

    @property
    def state(self) -> Path:
        """The state folder."""
        return self.settings.state_dir or default_state_dir()


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
        trust = Trust(read_root(settings.root_file, around.state), store.trust, time.time)
        self._fleet = FleetTopics(around.mqtt.prefix)
        self._fetcher = Fetcher(around.mqtt, around.device, self._fleet, self._ask)
        self._inbox = Inbox()
        self._applier = Applier(around.settled)
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
            settings=self._applier,
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
        self._applier.start()
        self._updater.start()
        client.subscribe(self._fleet.trust, self._inbox.trust, RECEIVE_QOS)
        client.subscribe(topics.assignment, self._inbox.assignment, RECEIVE_QOS)
        client.subscribe(topics.command("+"), self._inbox.command, RECEIVE_QOS)
        client.subscribe(topics.config_desired, self._inbox.settings, RECEIVE_QOS)

    def cancel(self) -> None:
        """Begin nothing more; returns at once."""
        self._updater.cancel()

    def close(self, timeout_s: float) -> None:
        """End; the store stays open if something still writes to it."""
        self._fetcher.close()
        self._applier.close(timeout_s)
        if self._updater.close(timeout_s):
            self._store.close()

    @property
    def turn_s(self) -> float | None:
        """How long the updater has been at its turn; None while it waits."""
        return self._updater.activity.age_s

    def under_way(self) -> list[str]:
        """Slots and what their update is at, for people."""
        return self._teller.under_way()

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
