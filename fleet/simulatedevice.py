"""A simulated device: takes part in the update protocol as a real one, but runs no model.

It verifies the metadata, the director's signature, manifest, index and every block, and opens its
grant; it keeps no block, so that a thousand of them fit into one process. Then it says what it is
told to say. No I/O: its owner carries messages, and does what `Orders` says.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from agent.bundle.cipher import Decryptor
from agent.bundle.documents import ASSIGNMENT, REPORT, Assignment, Report
from agent.bundle.dsse import sign, verify
from agent.bundle.grant import grant_info
from agent.bundle.index import BlockIndex
from agent.bundle.manifest import bundle_id, parse_manifest
from agent.errors import AgentError, ManifestError
from agent.update.offer import check_offer, check_target
from agent.update.transfer import STALL_S, Transfer
from agent.wire.topics import FleetTopics, Topics
from agent.wire.updaterequest import UpdateRequest, encode_update_request
from agent.wire.updatestate import UpdateState, encode_update_state

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.bundle.keys import DeviceKeys
    from agent.bundle.manifest import Manifest
    from agent.bundle.trust import Trust
    from agent.update.transfer import Step

BOOT = "simulated"

Outcome = Literal["COMMITTED", "REJECTED", "ROLLED_BACK"]


@dataclass
class Orders:
    """What the owner of the connection shall do, in this order.

    Attributes:
        subscribe, unsubscribe: topics.
        publish: topic, payload and whether it is retained.
    """

    unsubscribe: list[str] = field(default_factory=list)
    subscribe: list[str] = field(default_factory=list)
    publish: list[tuple[str, bytes, bool]] = field(default_factory=list)


class SimulatedDevice:
    """One device.

    Args:
        name: device id.
        slot: its one model slot.
        prefix: first levels of the topics.
        keys: of the device.
        trust: gives what a trust message says, verified.
        window: blocks that are asked for at a time.
        outcome: what it reports once it has everything.
        wall: seconds since the epoch.
        monotonic: seconds that never jump.

    Attributes:
        counts: bytes and blocks.
        failure: why it ended without having everything; empty if it did not.
        reported: the broker has its report; to be set by the owner.
    """

    def __init__(
        self,
        *,
        name: str,
        slot: str,
        prefix: str,
        keys: DeviceKeys,
        trust: Callable[[bytes], Trust],
        window: int,
        outcome: Outcome,
        wall: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self.name = name
        self.counts: Counter[str] = Counter()
        self.failure = ""
        self.reported = False
        self._slot = slot
        self._keys = keys
        self._read_trust = trust
        self._window = window
        self._outcome = outcome
        self._wall = wall
        self._monotonic = monotonic
        self._topics = Topics(prefix, name)
        self._fleet = FleetTopics(prefix)
        self._trust: Trust | None = None
        self._envelope = b""
        self._assignment: Assignment | None = None
        self._counter = 0
        self._manifest: Manifest | None = None
        self._transfer: Transfer | None = None
        self._bundle = ""
        self._block_prefix = ""
        self._envelope_out = b""
        self._asked_at = 0.0

    @property
    def report_topic(self) -> str:
        """Where its report goes."""
        return self._topics.update_report(self._slot)

    @property
    def retained_topics(self) -> tuple[str, ...]:
        """Where the broker keeps something of it."""
        return self._topics.update_state(self._slot), self.report_topic

    def connected(self) -> Orders:
        """The connection is up, at first or again; what was subscribed must be asked for anew."""
        orders = Orders(subscribe=[self._fleet.trust, self._topics.assignment])
        if self._envelope_out:
            orders.publish.append((self.report_topic, self._envelope_out, True))
        elif self._transfer is not None:
            self._follow(self._transfer.reconnected(self._monotonic()), orders)
        elif self._manifest is not None:
            orders.subscribe.append(self._fleet.index(self._bundle))
        elif self._assignment is not None:
            orders.subscribe.append(self._fleet.manifest(self._bundle))
        return orders

    def received(self, topic: str, payload: bytes) -> Orders:
        """A message has come; never raises for what it says."""
        orders = Orders()
        self.counts["bytes"] += len(payload)
        self.counts["messages"] += 1
        if self._envelope_out or self.failure:
            return orders
        try:
            self._take(topic, payload, orders)
        except AgentError as error:
            self.failure = f"{type(error).__name__}: {error}"
        return orders

    def tick(self) -> Orders:
        """Time has passed."""
        orders = Orders()
        if self._envelope_out or self.failure or self._assignment is None:
            return orders
        now = self._monotonic()
        if self._transfer is not None:
            self._follow(self._transfer.tick(now), orders)
        elif now - self._asked_at >= STALL_S:
            self._asked_at = now
            missing = self._manifest is None
            self._ask(UpdateRequest(self._bundle, manifest=missing, index=not missing), orders)
        return orders

    def _ask(self, request: UpdateRequest, orders: Orders) -> None:
        self.counts["requests"] += 1
        payload = encode_update_request(request, device=self.name)
        orders.publish.append((self._topics.update_request, payload, False))

    def _take(self, topic: str, payload: bytes, orders: Orders) -> None:
        if self._transfer is not None and topic.startswith(self._block_prefix):
            number = topic[len(self._block_prefix) :]
            if number.isdecimal():
                step = self._transfer.received(int(number), payload, self._monotonic())
                self._follow(step, orders)
        elif topic == self._fleet.trust:
            self._trust = self._read_trust(payload)
            self._accept(orders)
        elif topic == self._topics.assignment and payload:
            self._envelope = payload
            self._accept(orders)
        elif self._bundle and topic == self._fleet.manifest(self._bundle):
            self._take_manifest(payload, orders)
        elif self._bundle and topic == self._fleet.index(self._bundle):
            self._take_index(payload, orders)

    def _accept(self, orders: Orders) -> None:
        """Begin what is assigned, once there is metadata to judge it by."""
        if self._trust is None or not self._envelope or self._assignment is not None:
            return
        keys, threshold = self._trust.director_keys()
        assignment = verify(self._envelope, ASSIGNMENT, Assignment, keys, threshold)
        check_offer(
            assignment,
            device=self.name,
            slots=(self._slot,),
            last_counter=self._counter,
            now=self._wall(),
        )
        check_target(assignment, self._trust.target(assignment.target))
        self._counter = assignment.counter
        self._assignment = assignment
        self._asked_at = self._monotonic()
        self._bundle = bundle_id(assignment.sha256)
        self._block_prefix = self._fleet.block(self._bundle, "")
        orders.subscribe.append(self._fleet.manifest(self._bundle))
        orders.publish.append(self._state("OFFERED"))

    def _take_manifest(self, payload: bytes, orders: Orders) -> None:
        assignment = self._assignment
        if self._manifest is not None or assignment is None:
            return
        if hashlib.sha256(payload).hexdigest() != assignment.sha256:
            raise ManifestError("the manifest is not the one that the release keys signed")
        manifest = shared_manifest(payload)
        info = grant_info(assignment.sha256, self.name, assignment.counter)
        data_key = self._keys.open_grant(assignment.grant, info)
        encryption = manifest.encryption
        # Opens only with the key that the payload was encrypted with.
        Decryptor(
            data_key,
            encryption.context.encode(),
            base64.b64decode(encryption.salt),
            base64.b64decode(encryption.commitment),
        )
        self._manifest = manifest
        self._asked_at = self._monotonic()
        orders.unsubscribe.append(self._fleet.manifest(self._bundle))
        orders.subscribe.append(self._fleet.index(self._bundle))

    def _take_index(self, payload: bytes, orders: Orders) -> None:
        if self._transfer is not None or self._manifest is None:
            return
        index = shared_index(payload, self._manifest)
        self._transfer = Transfer(index, (), self._window)
        orders.unsubscribe.append(self._fleet.index(self._bundle))
        orders.publish.append(self._state("FETCHING"))
        self._follow(self._transfer.reconnected(self._monotonic()), orders)

    def _follow(self, step: Step, orders: Orders) -> None:
        orders.unsubscribe += [self._fleet.block(self._bundle, n) for n in step.unsubscribe]
        orders.subscribe += [self._fleet.block(self._bundle, n) for n in step.subscribe]
        if step.request:
            self._ask(UpdateRequest(self._bundle, blocks=step.request), orders)
        if step.failed:
            self.failure = step.failed
        elif step.done:
            self._report(orders)

    def _report(self, orders: Orders) -> None:
        assignment = self._assignment
        assert assignment is not None
        report = Report(
            device=self.name,
            slot=self._slot,
            campaign=assignment.campaign,
            counter=assignment.counter,
            sha256=assignment.sha256,
            release_counter=assignment.release_counter,
            outcome=self._outcome,
            key_level="L0",
            boot=BOOT,
            at=int(self._wall()),
        )
        self._envelope_out = sign(REPORT, report, [self._keys.signer()])
        orders.publish.append(self._state(self._outcome))
        orders.publish.append((self.report_topic, self._envelope_out, True))

    def _state(self, state: str) -> tuple[str, bytes, bool]:
        assignment = self._assignment
        assert assignment is not None
        told = UpdateState(
            slot=self._slot,
            state=state,
            campaign=assignment.campaign,
            digest=assignment.sha256,
            counter=assignment.counter,
            release_counter=assignment.release_counter,
        )
        payload = encode_update_state(told, device=self.name, boot=BOOT, ts=self._wall())
        return self._topics.update_state(self._slot), payload, True


@functools.lru_cache(maxsize=4)
def shared_manifest(data: bytes) -> Manifest:
    """A manifest; a thousand devices need not each keep the same one.

    Raises:
        ManifestError: it is none.
    """
    return parse_manifest(data)


@functools.lru_cache(maxsize=4)
def shared_index(data: bytes, manifest: Manifest) -> BlockIndex:
    """An index, as `shared_manifest`.

    Raises:
        ManifestError: it is none.
    """
    return BlockIndex.parse(data, manifest)
