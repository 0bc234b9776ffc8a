"""A fleet without a broker: devices, one released bundle, a campaign, all driven by hand.

`Air` stands for the broker: it keeps what is retained and carries messages when it is told to.
"""

from __future__ import annotations

import atexit
import base64
import shutil
from collections import deque
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from agent.bundle.seal import Packed
from agent.bundle.softkeys import SoftKeys
from agent.bundle.trust import Trust
from agent.wire.topics import FleetTopics
from fleet.answering import Answers
from fleet.assigning import Assigner
from fleet.bundlefiles import BundleFiles
from fleet.campaign import Plan
from fleet.campaigns import Campaigns, Offer
from fleet.database import Database
from fleet.link import Inbox
from fleet.publishing import publish_bundle, publish_trust
from fleet.rollout import Rollout, Router
from fleet.simulatedevice import SimulatedDevice
from fleet.tables import Bundle, Device
from fleet.watching import Board, Reports
from tests.fakes.tufhouse import House
from tests.fakes.tufrepository import MemoryStore
from tests.vectors.bundles import make_bundle

PREFIX = "vigia/v1"
SLOT = "main"
PLAINTEXT_BYTES = 200_000


class Air:
    """Retained messages and subscribers; a `fleet.publishing.Sender`."""

    def __init__(self):
        self.retained = {}
        self.inboxes = []
        self.clients = {}

    def send(self, topic, payload, *, retain=True, schema=""):
        self.publish(topic, payload, retain=retain)

    def settle(self):
        pass

    def publish(self, topic, payload, *, retain):
        if retain and payload:
            self.retained[topic] = payload
        elif retain:
            self.retained.pop(topic, None)
        for inbox in self.inboxes:
            if "/update/" in topic and not topic.endswith("/assignment"):
                inbox.put(topic, payload)
        for device, topics in self.clients.items():
            if topic in topics:
                device.inbox.append((topic, payload))


class FlyingDevice:
    """A simulated device that is carried by `Air`."""

    def __init__(self, air, device):
        self.air = air
        self.device = device
        self.inbox = deque()
        air.clients[self] = set()
        self.obey(device.connected())

    def obey(self, orders):
        topics = self.air.clients[self]
        topics -= set(orders.unsubscribe)
        topics |= set(orders.subscribe)
        for topic in orders.subscribe:
            if topic in self.air.retained:
                self.inbox.append((topic, self.air.retained[topic]))
        for topic, payload, retain in orders.publish:
            self.air.publish(topic, payload, retain=retain)
            self.device.reported = self.device.reported or topic == self.device.report_topic

    def run(self):
        """Everything that has come, and what follows from it."""
        while self.inbox:
            self.obey(self.device.received(*self.inbox.popleft()))


class SmallFleet:
    """See the module.

    Args:
        folder: an empty one.
        count: of devices, `d0` and so on.
    """

    def __init__(self, folder: Path, count: int = 3) -> None:
        template, packed = _template()
        shutil.copytree(template, folder, dirs_exist_ok=True)
        self.house = House(folder)
        self.air = Air()
        self.topics = FleetTopics(PREFIX)
        self.database = Database(f"sqlite:///{folder / 'fleet.db'}")
        self.database.create()
        self.keys = {f"d{n}": SoftKeys.generate() for n in range(count)}
        self.campaigns = Campaigns(self.database, self.now)
        self.files = BundleFiles(folder / "bundle")
        self.data_key = packed.data_key
        self.offer = Offer("c", SLOT, packed.digest, "line", "1", 1)
        with self.database.session() as session:
            for name, keys in self.keys.items():
                session.add(device_row(name, keys))
            session.add(
                Bundle(
                    digest=packed.digest,
                    family="line",
                    version="1",
                    release_counter=1,
                    target=self.files.manifest.target,
                    folder="bundle",
                    data_key=b"wrapped",
                    packed_at=0,
                )
            )

    def now(self) -> float:
        return self.house.now

    def publish(self) -> None:
        publish_bundle(self.air, self.topics, self.files, "air", lambda *_: None)
        publish_trust(self.air, self.topics, self.house.repository.message())

    def create(self, *stages, **rules) -> None:
        self.campaigns.create(self.offer, Plan(stages or (tuple(self.keys),), **rules), "ann")

    def rollout(self, *, signers=None, renew=lambda: None) -> Rollout:
        """A command that drives the campaign, as if it were started now."""
        campaign, offer = self.campaigns.load("c")
        inbox = Inbox(PREFIX)
        self.air.inboxes = [inbox]
        assigner = Assigner(
            self.database,
            signers or [self.house.director],
            offer,
            self.data_key,
            campaign.plan.deadline_s,
            self.now,
        )
        rollout = Rollout(
            campaigns=self.campaigns,
            campaign=campaign,
            offer=offer,
            assigner=assigner,
            sender=self.air,
            inbox=inbox,
            router=Router(
                PREFIX,
                SLOT,
                Board(self.keys),
                Answers(self.topics, {self.files.id: self.files}, self.keys),
                Reports(),
            ),
            prefix=PREFIX,
            wall=self.now,
            monotonic=self.now,
            renew=renew,
        )
        rollout.begin()
        return rollout

    def device(self, name: str, outcome: str = "COMMITTED", keys=None) -> FlyingDevice:
        """A device that comes online."""

        def read_trust(message: bytes) -> Trust:
            trust = Trust(self.house.repository.anchor(), MemoryStore(), self.now)
            trust.refresh(message)
            return trust

        device = SimulatedDevice(
            name=name,
            slot=SLOT,
            prefix=PREFIX,
            keys=keys or self.keys[name],
            trust=read_trust,
            window=2,
            outcome=outcome,
            wall=self.now,
            monotonic=self.now,
        )
        return FlyingDevice(self.air, device)


@lru_cache
def _template() -> tuple[Path, Packed]:
    """A folder with a released bundle in it; made once, since signing takes its time."""
    kept = TemporaryDirectory()
    atexit.register(kept.cleanup)
    folder = Path(kept.name)
    house = House(folder).found()
    packed = make_bundle(
        folder / "bundle", {"model.onnx": bytes(PLAINTEXT_BYTES)}, family="line", version="1"
    )
    house.publish([house.repository.stage_target(packed.manifest)])
    return folder, packed


def device_row(name: str, keys: SoftKeys, **changes) -> Device:
    """An enrolled device."""
    usual = {
        "id": name,
        "kem": keys.kem,
        "kem_key": base64.b64encode(keys.kem_public).decode(),
        "sign_key": keys.sign_public_pem,
        "key_level": "L0",
        "hw_class": "test",
        "certificate": "",
        "serial": "0",
        "fingerprint": "",
        "enrolled_at": 0,
    }
    return Device(**usual | changes)
