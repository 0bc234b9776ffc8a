"""Devices that are killed in the middle of an update, and what is looked at afterwards.

Every device starts with release 1 of a model, committed by the store's own hand, and is assigned
release 2. All share one broker, one controller and two small bundles.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from typing_extensions import Self

from agent.bundle.documents import Assignment
from agent.bundle.dsse import unverified
from agent.bundle.manifest import bundle_id
from agent.bundle.trust import Trust
from agent.update.database import ReadOnly
from agent.update.failpoints import VARIABLE
from agent.update.machine import (
    Admitted,
    Built,
    Fetched,
    Healthy,
    Judged,
    Offered,
    Opened,
    Shadowed,
    Trusted,
)
from agent.update.reader import Reader
from agent.update.staging import FOLDER
from agent.update.store import Store
from agent.update.trustmirror import TrustMirror
from tests.fakes.updates import drive
from tests.fakes.updating import SLOT
from tests.integration.agents import ROOT
from tests.integration.crashground import FPS
from tests.integration.subscriber import Received, Subscriber
from tests.integration.updates import Fleet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from agent.bundle.documents import Report
    from agent.bundle.seal import Packed
    from agent.update.record import Past, Record
    from tests.integration.crashground import Ground

SOON_S = 120.0
"""What one process of several on two cores does within this time is not stuck."""

START_S = 20.0
"""An agent analyses its first frame within this time of its start, crash or not."""

WINDOW = 4
CAMERA = "belt"

MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Seen:
    """What a device remembers, read while its agent is dead."""

    record: Record
    active: str | None
    previous: str | None
    floor: int
    time_floor: float
    trust: Mapping[str, bytes]
    history: tuple[Past, ...]
    quarantined: str | None


class Device:
    """One device; use it as a context manager.

    Args:
        ground: see there.
        name: of what happens to it; its device id is made of it.

    Attributes:
        port: where it finds a broker.
        cache: folder where its engines are kept.
        counter: of its newest assignment.
    """

    def __init__(self, ground: Ground, name: str) -> None:
        self.ground = ground
        self.name = name = re.sub(r"\W", "-", name)
        self.port = ground.broker.port
        self.folder = ground.folder / name
        self.fleet = Fleet(self.folder, self.port, ground.prefix, name, ground.controller)
        self.cache = self.folder / "cache"
        self.memory = MEMORY / f"vigia-test-{os.getpid()}-{secrets.token_hex(4)}"
        self.memory.mkdir(mode=0o700)
        self.process: subprocess.Popen[bytes] | None = None
        self.counter = 0
        self._served_before = 0
        self.lives = 0
        self._subscriber = Subscriber(ground.broker.port, f"{ground.prefix}/{name}/#")

    def __enter__(self) -> Self:
        self._subscriber.__enter__()
        return self

    def __exit__(self, *_error: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(SOON_S)
        self._subscriber.__exit__()
        shutil.rmtree(self.memory, ignore_errors=True)

    # --- before it starts ---------------------------------------------------------------------

    def assign(self, packed: Packed) -> None:
        """Publish an assignment."""
        envelope, _ = self._assignment(packed)
        self.fleet.publish({self.fleet.topics.assignment: envelope})

    def commit(self, packed: Packed) -> None:
        """Have a release be committed, and its report be sent."""
        envelope, assignment = self._assignment(packed)
        shutil.copytree(
            self.ground.controller.folder / bundle_id(packed.digest),
            self.fleet.state / FOLDER / packed.digest,
        )
        _, family, version, _ = assignment.target.split("/")
        store = Store(self.fleet.state, time.time)
        try:
            trust = Trust(self.ground.controller.repository.anchor, store.trust, time.time)
            trust.refresh(self.ground.old_trust)
            offered = Offered(
                assignment.campaign,
                assignment.counter,
                packed.digest,
                assignment.target,
                assignment.release_counter,
                envelope,
                assignment.grant.encode(),
            )
            events = (offered, Trusted(family, version), Admitted(), Fetched(), Opened(), Built())
            drive(store, SLOT, (*events, Judged(), Shadowed(), Healthy()))
            for past in store.unsigned_reports():
                store.report_sent(past.id)
        finally:
            store.close()

    def _assignment(self, packed: Packed) -> tuple[bytes, Assignment]:
        envelope = self.ground.controller.assign(
            packed, self.fleet.keys.kem_public, device=self.name
        )
        assignment = unverified(envelope, Assignment)
        self.counter = assignment.counter
        return envelope, assignment

    # --- its lives ----------------------------------------------------------------------------

    def start(self, order: str | None = None) -> None:
        """Begin a life that ends at a failpoint, or goes on."""
        cameras = {
            CAMERA: {"source": str(self.ground.video), "loop": True, "realtime": True, "fps": FPS}
        }
        config = self.fleet.config(self.ground.configured, cameras)
        config["mqtt"]["port"] = self.port
        self._served_before = len(self.lives_served())
        config["updates"] |= {"window_blocks": WINDOW, "stall_timeout_s": 5}
        path = self.folder / "agent.yaml"
        path.write_text(yaml.safe_dump(config))
        environment = {
            **os.environ,
            "XDG_CACHE_HOME": str(self.cache),
            "RUNTIME_DIRECTORY": str(self.memory),
            **({} if order is None else {VARIABLE: order}),
        }
        with (self.folder / f"agent{self.lives}.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "agent", "run", "-c", str(path)],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=environment,
            )
        self.lives += 1

    def wait_killed(self) -> int:
        """Wait until it has killed itself; its process id."""
        assert self.process is not None
        code = self.process.wait(SOON_S)
        assert code == -signal.SIGKILL, f"{self.name} ended with {code}:\n{self.log()}"
        return self.process.pid

    def stop(self) -> None:
        """End it in an orderly way."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(SOON_S) == 0, self.log()

    def log(self) -> str:
        """Of its last life."""
        return (self.folder / f"agent{self.lives - 1}.log").read_text()

    # --- what it says -------------------------------------------------------------------------

    def wait(
        self, holds: Callable[[Sequence[Received]], object], timeout_s: float = SOON_S
    ) -> None:
        """Wait for something that it has published."""
        try:
            self._subscriber.wait_for(holds, timeout_s)
        except AssertionError:
            message = f"{self.name}: this has not come within {timeout_s:g} s\n{self.log()}"
            raise AssertionError(message) from None

    def wait_serving(self) -> None:
        """Wait for the first detection of the life that was begun last."""
        self.wait(lambda _: len(self.lives_served()) > self._served_before, START_S)

    def wait_outcome(self, state: str) -> None:
        """Wait until the newest assignment has this outcome, told and reported."""
        topic = self.fleet.topics.update_state(SLOT)
        told = (state, self.counter)
        self.wait(lambda m: _last_state(m, topic) == told)
        self.wait(lambda _: state in self.outcomes())

    def wait_state(self, state: str) -> None:
        """Wait until the newest assignment is in this state."""
        topic = self.fleet.topics.update_state(SLOT)
        self.wait(lambda m: _last_state(m, topic) == (state, self.counter))

    def wait_status(self, state: str, *parts: str) -> None:
        """Wait for a state of the device, with these words in its reason."""
        self.wait(
            lambda _: self.status()[0] == state and all(part in self.status()[1] for part in parts)
        )

    def status(self) -> tuple[str, str]:
        """State of the device and its reason, as told last."""
        told = [m.json for m in self._told(self.fleet.topics.status)]
        return (told[-1]["state"], told[-1].get("reason", "")) if told else ("", "")

    def frames(self) -> int:
        """Detections so far."""
        return len(self._told(self.fleet.topics.detections(CAMERA)))

    def dropped(self) -> int:
        """Frames without a detection."""
        return sum(message["dropped"] for message in self._detections())

    def lives_served(self) -> list[list[str]]:
        """Digests of what has made the detections, in each life that made any, in order."""
        found: dict[str, list[str]] = {}
        for message in self._detections():
            told = found.setdefault(message["boot"], [])
            if told[-1:] != [message["model"]["digest"]]:
                told.append(message["model"]["digest"])
        return list(found.values())

    def gaps(self) -> list[list[int]]:
        """Sequence numbers of the lives that miss one."""
        found: dict[str, list[int]] = {}
        for message in self._detections():
            found.setdefault(message["boot"], []).append(message["seq"])
        return [numbers for numbers in found.values() if numbers != list(range(len(numbers)))]

    def reports(self) -> list[Report]:
        """All that differ, verified."""
        topic = self.fleet.topics.update_report("main")
        told = {m.payload: m for m in list(self._subscriber.messages) if m.topic == topic}
        return [report for m in told.values() for report in self.fleet.reports([m])]

    def outcomes(self) -> list[str]:
        """Of the newest assignment, as reported."""
        return [report.outcome for report in self.reports() if report.counter == self.counter]

    def replayed(self) -> set[str]:
        """Digests of what has made the detections while there was no broker."""
        return {m["model"]["digest"] for m in self._detections() if m.get("replay")}

    def pulled(self) -> Counter[int]:
        """How often the broker has sent each block to it."""
        line = re.compile(
            rf"Sending PUBLISH to vigia-{re.escape(self.name)}-bulk \(.*/block/(\d+)'"
        )
        return Counter(int(n) for n in line.findall(self.ground.broker.log.read_text()))

    def _detections(self) -> list[dict]:
        return [m.json for m in self._told(self.fleet.topics.detections(CAMERA))]

    def _told(self, topic: str) -> list[Received]:
        return [m for m in list(self._subscriber.messages) if m.topic == topic]

    # --- what lies on its disk ----------------------------------------------------------------

    def look(self) -> Seen:
        """What it remembers."""
        source = ReadOnly(self.fleet.state)
        try:
            reader, trust = Reader(source), TrustMirror(source)  # type: ignore[arg-type]
            active, previous = reader.active(SLOT), reader.previous(SLOT)
            return Seen(
                reader.record(SLOT),
                None if active is None else active.digest,
                None if previous is None else previous.digest,
                reader.floor("conveyor"),
                trust.time_floor(),
                trust.load(),
                reader.history(),
                reader.quarantined(self.ground.new.digest),
            )
        finally:
            source.close()

    def leaks(self) -> list[str]:
        """Files on its disk that hold a piece of a model or a data key."""
        return sorted(
            str(path)
            for folder in (self.fleet.state, self.cache)
            for path in folder.rglob("*")
            if path.is_file() and self._tells(path)
        )

    def opened(self, pid: int) -> list[Path]:
        """Folders of a process in memory."""
        places = (self.memory, MEMORY)
        return [found for place in places for found in place.glob(f"vigia-*/{pid}-*")]

    def plans(self) -> list[Path]:
        """Engines that were built, sealed."""
        return sorted(self.cache.rglob("*.plan"))

    def shows(self, folders: Iterable[Path]) -> bool:
        """Whether a model lies there: a search that finds nothing must be able to find it."""
        return any(self._tells(p) for f in folders for p in f.rglob("*") if p.is_file())

    def _tells(self, path: Path) -> bool:
        content = path.read_bytes()
        return any(secret in content for secret in self.ground.secrets)


def _last_state(messages: Sequence[Received], topic: str) -> tuple[str, int] | None:
    for message in reversed(messages):
        if message.topic == topic:
            return message.json["state"], message.json["counter"]
    return None
