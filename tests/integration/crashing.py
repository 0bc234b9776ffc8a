"""Devices that are killed in the middle of an update, and what is looked at afterwards.

Every device starts with release 1 of a model, committed by the store's own hand, and is assigned
release 2. All share one broker, one controller and two small bundles.
"""

from __future__ import annotations

import base64
import os
import random
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

import cv2
import numpy as np
import onnx
import yaml

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
from tests.fakes.updating import SLOT, Controller
from tests.integration.agents import ROOT
from tests.integration.subscriber import Received, Subscriber
from tests.integration.updates import Fleet
from tests.vectors.bundles import tiny_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from agent.bundle.seal import Packed
    from agent.update.record import Past, Record
    from tests.integration.mosquitto import Mosquitto

SOON_S = 60.0
"""What one process of several on two cores does within this time is not stuck."""

START_S = 20.0
"""An agent analyses its first frame within this time of its start, crash or not."""

WINDOW = 4
BALLAST_BYTES = 24 * 65_536
"""Makes bundles of small models take a while to arrive."""

CAMERA = "belt"
FPS = 5

RULES = {
    "shadow": {"seconds": 0.5},
    "canary": {"seconds": 0.5, "min_fps_ratio": 0.0, "max_latency_ratio": 1000.0},
}
"""What is tested is not the quality of the bundle."""

RUN_BYTES = 64
RUNS = 16
"""Stretches of each secret that are searched for."""

MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Seen:
    """What a device remembers, read while its agent is dead."""

    record: Record
    active: str | None
    floor: int
    time_floor: float
    trust: Mapping[str, bytes]
    history: tuple[Past, ...]
    quarantined: str | None


class Ground:
    """What all devices share.

    Args:
        folder: for everything.
        broker: that the controller publishes to.
        prefix: of topics.
    """

    def __init__(self, folder: Path, broker: Mosquitto, prefix: str) -> None:
        self.folder = folder
        self.broker = broker
        self.prefix = prefix
        self.controller = Controller(folder / "controller", time.time(), prefix)
        self.models = {number: tiny_model(number) for number in (0, 1, 2)}
        ballast = {number: random.Random(number).randbytes(BALLAST_BYTES) for number in (1, 2)}
        pictures = {f"golden/{number}.png": _picture(number) for number in range(2)}
        self.old = self._release(1, ballast[1], pictures)
        self.old_trust = self.controller.repository.publish()
        self.new = self._release(2, ballast[2], pictures)
        self.video = _video(folder / "video.mp4")
        self.configured = folder / "configured.onnx"
        self.configured.write_bytes(self.models[0])
        self.secrets = [
            *(run for number in (1, 2) for run in _runs(_weights(self.models[number]), number)),
            *(run for number in (1, 2) for run in _runs(ballast[number], number)),
            *(form for packed in (self.old, self.new) for form in _forms(packed.data_key)),
        ]
        Fleet(folder / "publisher", broker.port, prefix, "nobody", self.controller).offer(self.new)

    def digest(self, number: int) -> str:
        """Of a release's model, as detections tell it; 0 is the configured one."""
        import hashlib

        return "sha256:" + hashlib.sha256(self.models[number]).hexdigest()

    def _release(self, number: int, ballast: bytes, pictures: Mapping[str, bytes]) -> Packed:
        files = {"model.onnx": self.models[number], "ballast.bin": ballast, **pictures}
        return self.controller.release(number, files=files, **RULES)


class Device:
    """One device; use it as a context manager.

    Args:
        ground: see there.
        name: device id.
        port: of its broker, if it is not the shared one directly.
    """

    def __init__(self, ground: Ground, name: str, port: int | None = None) -> None:
        self.ground = ground
        self.name = name
        self.folder = ground.folder / name
        self.fleet = Fleet(
            self.folder, port or ground.broker.port, ground.prefix, name, ground.controller
        )
        self.cache = self.folder / "cache"
        self.memory = MEMORY / f"vigia-test-{os.getpid()}-{secrets.token_hex(4)}"
        self.memory.mkdir(mode=0o700)
        self.sections: dict[str, object] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.lives = 0
        self._subscriber = Subscriber(ground.broker.port, f"{ground.prefix}/{name}/#")

    def __enter__(self) -> Device:
        self._subscriber.__enter__()
        return self

    def __exit__(self, *_error: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(SOON_S)
        self._subscriber.__exit__()
        shutil.rmtree(self.memory, ignore_errors=True)

    # --- before it starts ---------------------------------------------------------------------

    def commit(self, packed: Packed) -> None:
        """Have a release be committed, and its report be sent."""
        envelope = self.ground.controller.assign(
            packed, self.fleet.keys.kem_public, device=self.name
        )
        assignment = unverified(envelope, Assignment)
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

    # --- its lives ----------------------------------------------------------------------------

    def start(self, order: str | None = None) -> None:
        """Begin a life that ends at a failpoint, or goes on."""
        cameras = {
            CAMERA: {"source": str(self.ground.video), "loop": True, "realtime": True, "fps": FPS}
        }
        config = self.fleet.config(self.ground.configured, cameras)
        config["updates"] |= {"window_blocks": WINDOW, "stall_timeout_s": 5}
        path = self.folder / "agent.yaml"
        path.write_text(yaml.safe_dump({**config, **self.sections}))
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

    def wait(self, holds: Callable[[Sequence[Received]], object], timeout_s: float = SOON_S) -> None:
        """Wait for something that it has published."""
        try:
            self._subscriber.wait_for(holds, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{self.name}: {error}\n{self.log()}") from error

    def wait_outcome(self, state: str) -> None:
        topic = self.fleet.topics.update_state(SLOT)
        self.wait(lambda m: _last_state(m, topic) == state)

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

    def reports(self) -> dict[int, set[bytes]]:
        """The different reports of each counter; all verified."""
        topic = self.fleet.topics.update_report
        told = list(self._subscriber.messages)
        self.fleet.reports(told)
        found: dict[int, set[bytes]] = {}
        for message in told:
            if message.topic == topic:
                (report,) = self.fleet.reports([message])
                found.setdefault(report.counter, set()).add(message.payload)
        return found

    def pulled(self) -> Counter[int]:
        """How often the broker has sent each block to it."""
        line = re.compile(
            rf"Sending PUBLISH to vigia-{re.escape(self.name)}-bulk \(.*/block/(\d+)'"
        )
        return Counter(int(n) for n in line.findall(self.ground.broker.log.read_text()))

    def _detections(self) -> list[dict]:
        topic = self.fleet.topics.detections(CAMERA)
        return [m.json for m in list(self._subscriber.messages) if m.topic == topic]

    # --- what lies on its disk ----------------------------------------------------------------

    def look(self) -> Seen:
        """What it remembers."""
        source = ReadOnly(self.fleet.state)
        try:
            reader, trust = Reader(source), TrustMirror(source)  # type: ignore[arg-type]
            active = reader.active(SLOT)
            return Seen(
                reader.record(SLOT),
                None if active is None else active.digest,
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

    def shows(self, folders: Iterable[Path]) -> bool:
        """Whether a model lies in folders: what a search that finds nothing must be able to find."""
        return any(self._tells(p) for f in folders for p in f.rglob("*") if p.is_file())

    def _tells(self, path: Path) -> bool:
        content = path.read_bytes()
        return any(secret in content for secret in self.ground.secrets)


def _last_state(messages: Sequence[Received], topic: str) -> str | None:
    for message in reversed(messages):
        if message.topic == topic:
            return str(message.json["state"])
    return None


def _picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (64, 64, 3), np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def _video(path: Path) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (64, 64))
    pixels = np.random.default_rng(0)
    for _ in range(4 * FPS):
        writer.write(cv2.resize(pixels.integers(0, 255, (8, 8, 3), np.uint8), (64, 64)))
    writer.release()
    return path


def _weights(model: bytes) -> bytes:
    tensors = onnx.load_from_string(model).graph.initializer
    return max((t.raw_data for t in tensors), key=len)


def _runs(content: bytes, seed: int) -> list[bytes]:
    chance = random.Random(seed)
    starts = [chance.randrange(len(content) - RUN_BYTES) for _ in range(RUNS)]
    return [content[at : at + RUN_BYTES] for at in starts]


def _forms(key: bytes) -> list[bytes]:
    return [key, key.hex().encode(), base64.b64encode(key), base64.urlsafe_b64encode(key)]
