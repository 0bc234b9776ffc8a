"""A device's updater with everything real but the network and the engines.

The store, the trust, the keys, the bundles and their opening are the agent's own. Pieces come from
a folder instead of a broker, and the proofs say what the test wants.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from agent.bundle.documents import (
    APPROVAL,
    ASSIGNMENT,
    COMMAND,
    REPORT,
    SETTINGS,
    Approval,
    Assignment,
    Command,
    Report,
    Settings,
)
from agent.bundle.dsse import key_of_pem, sign, verify
from agent.bundle.filekeys import make_keys
from agent.bundle.grant import grant_info, seal_grant
from agent.bundle.index import BlockIndex
from agent.bundle.manifest import BLOCK_BYTES, bundle_id, parse_manifest
from agent.bundle.seal import INDEX, MANIFEST, PAYLOAD, Packed
from agent.bundle.trust import Trust
from agent.config import UpdatesConfig
from agent.errors import AgentError, TransferError
from agent.update.course import Course
from agent.update.database import FILE
from agent.update.inbox import Inbox
from agent.update.memoryfolder import MemoryFolder
from agent.update.opening import Opener
from agent.update.ports import Candidate, Finding, UpdateCancelled
from agent.update.preflight import Device
from agent.update.record import OUTCOMES, Record
from agent.update.reporting import Reporter
from agent.update.staging import FOLDER
from agent.update.store import Store
from agent.update.telling import Teller
from agent.update.updater import Updater
from agent.wire.topics import FleetTopics, Topics
from tests.fakes.tufrepository import NOW, TufRepository, target
from tests.vectors.bundles import make_bundle

DEVICE = "d1"
SLOT = "main"
SOON_S = 30.0
PASSED = Finding(True, figures={"score": 0.9})


class Controller:
    """What the fleet's side signs; keeps bundles in a folder."""

    def __init__(self, folder: Path, now: float = NOW, prefix: str = "vigia/v1") -> None:
        self.folder = folder
        self.prefix = prefix
        self.now = now
        self.repository = TufRepository(now=now)
        self.repository.targets.targets.clear()
        self.bundles: dict[str, Packed] = {}
        self.counter = 0

    def release(self, number: int, *, files: dict | None = None, **facts: object) -> Packed:
        """Pack and sign a release; its version is `v<number>`."""
        facts = {
            "version": f"v{number}",
            "release_counter": number,
            "expires": self.now + 1e7,
            **facts,
        }
        packed = make_bundle(
            self.folder / "new", files, **{**facts, "expires": int(facts["expires"])}
        )
        place = self.folder / bundle_id(packed.digest)
        (self.folder / "new").rename(place)
        manifest = parse_manifest(packed.manifest)
        self.repository.targets.targets[manifest.target] = target(
            packed.manifest, manifest.release_counter, manifest.target
        )
        self.bundles[packed.digest] = packed
        return packed

    def trust(self) -> bytes:
        return self.repository.publish()

    def assign(self, packed: Packed, kem_public: bytes, **changes: object) -> bytes:
        """The signed assignment of a bundle to the device."""
        self.counter += 1
        manifest = parse_manifest(packed.manifest)
        fields = {
            "device": DEVICE,
            "slot": SLOT,
            "counter": self.counter,
            "campaign": "c1",
            "target": manifest.target,
            "sha256": packed.digest,
            "release_counter": manifest.release_counter,
            "not_before": int(self.now - 10),
            "deadline": int(self.now + 3600),
            **changes,
        }
        signers = fields.pop("signers", self.repository.keys["director"])
        info = grant_info(packed.digest, fields["device"], fields["counter"])
        grant = fields.pop("grant", None) or seal_grant("p256", kem_public, packed.data_key, info)
        return sign(ASSIGNMENT, Assignment(grant=grant, **fields), signers)

    def approve(self, packed: Packed, operator: int, campaign: str = "c1") -> str:
        approval = Approval(campaign=campaign, sha256=packed.digest, at=int(self.now))
        signer = self.repository.keys["operators"][operator]
        return sign(APPROVAL, approval, [signer]).decode()

    def pieces(self, packed: Packed) -> dict[str, bytes]:
        """What is retained for a bundle, by topic."""
        topics, bundle = FleetTopics(self.prefix), bundle_id(packed.digest)
        folder = self.folder / bundle
        payload = (folder / PAYLOAD).read_bytes()
        blocks = range(0, len(payload), BLOCK_BYTES)
        return {
            topics.manifest(bundle): packed.manifest,
            topics.index(bundle): (folder / INDEX).read_bytes(),
            **{
                topics.block(bundle, number): payload[at : at + BLOCK_BYTES]
                for number, at in enumerate(blocks)
            },
        }

    def command(self, verb: str, **changes: object) -> bytes:
        fields = {
            "device": DEVICE,
            "verb": verb,
            "slot": SLOT,
            "nonce": secrets.token_hex(16),
            "expires": int(self.now + 60),
            **changes,
        }
        signers = fields.pop("signers", [self.repository.keys["operators"][0]])
        return sign(COMMAND, Command(**fields), signers)

    def desired(self, settings: object = None, **changes: object) -> bytes:
        """Signed settings for the device."""
        self.counter += 1
        fields = {
            "device": DEVICE,
            "counter": self.counter,
            "issued": int(self.now),
            "expires": int(self.now + 3600),
            "settings": json.dumps(settings or {}),
            **changes,
        }
        signers = fields.pop("signers", [self.repository.keys["operators"][0]])
        return sign(SETTINGS, Settings(**fields), signers)


class FolderFetcher:
    """Gives the pieces that lie in a controller's folder.

    Attributes:
        hold: cleared, it keeps blocks back.
        damaged: the disk damages the first block.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.hold = threading.Event()
        self.hold.set()
        self.fetching = threading.Event()
        self.fetched: deque[str] = deque(maxlen=100)
        self.damaged = False

    def piece(self, topic, max_bytes, _sha256, _timeout_s, _cancelled) -> bytes:
        bundle, name = topic.split("/")[-2:]
        path = self._folder / bundle / {"manifest": MANIFEST, "index": INDEX}[name]
        self.fetched.append(name)
        if not path.exists():
            raise TransferError(f"{name} did not come")
        data = path.read_bytes()
        assert len(data) <= max_bytes
        return data

    def blocks(self, bundle, index: BlockIndex, staging, _window, _stall_s, tell, cancelled):
        self.fetching.set()
        while not self.hold.wait(0.01):
            if cancelled.is_set():
                raise UpdateCancelled
        payload = (self._folder / bundle / PAYLOAD).read_bytes()
        if self.damaged:
            payload = bytes([payload[0] ^ 1]) + payload[1:]
        staging.payload.write_bytes(payload)
        self.fetched.append("blocks")
        tell(index.blocks, index.blocks, 1e6)


class FakeProofs:
    """Says what the test wants; remembers what serves.

    Attributes:
        serving: digest of what serves, or "configured".
        findings: by stage; a finding, or an error to raise.
        hold: stages that do not end before they are cancelled.
        until: stages that do not end before something has happened.
    """

    def __init__(self) -> None:
        self.serving = "configured"
        self.findings: dict[str, Finding | Exception] = {}
        self.hold: set[str] = set()
        self.until: dict[str, threading.Event] = {}
        self.stages: list[str] = []
        self.begun = threading.Event()
        self._cancelled = threading.Event()

    def build(self, candidate: Candidate, tell: Callable) -> Finding:
        return self._stage("build", candidate)

    def gate(self, candidate: Candidate, tell: Callable) -> Finding:
        return self._stage("gate", candidate)

    def shadow(self, candidate: Candidate, tell: Callable) -> Finding:
        return self._stage("shadow", candidate)

    def canary(self, candidate: Candidate, tell: Callable) -> Finding:
        self.serving = candidate.digest
        return self._stage("canary", candidate)

    def commit(self, candidate: Candidate) -> None:
        assert self.serving == candidate.digest

    def revert(self, _slot: str, previous: Candidate | None) -> None:
        if previous is not None:
            assert previous.files.is_dir()
        self.serving = "configured" if previous is None else previous.digest

    def install(self, candidate: Candidate) -> None:
        self.serving = candidate.digest

    def cancel(self) -> None:
        self._cancelled.set()

    def _stage(self, name: str, candidate: Candidate) -> Finding:
        assert (candidate.files / "model.onnx").is_file()
        self.stages.append(name)
        if name in self.hold:
            self._cancelled.clear()
            self.begun.set()
            assert self._cancelled.wait(SOON_S)
            raise UpdateCancelled
        if name in self.until:
            self.begun.set()
            assert self.until[name].wait(SOON_S)
            assert (candidate.files / "model.onnx").is_file()
        found = self.findings.get(name, PASSED)
        if isinstance(found, Exception):
            raise found
        return found


class NotingTeller(Teller):
    """Says when something was refused.

    Attributes:
        noted: called then.
    """

    noted: Callable[[], None]

    def refused(self, what: str, reason: str) -> None:
        super().refused(what, reason)
        self.noted()


class Site:
    """One device; `start` and `stop` are its lives.

    Attributes:
        active: what was opened, by slot.
        trouble: why updates stand still.
        prepared: called at each start, before the updater begins.
    """

    def __init__(self, folder: Path, controller: Controller) -> None:
        self.controller = controller
        self.state = folder / "state"
        self.keys = make_keys(self.state, "p256")
        self.fetcher = FolderFetcher(controller.folder)
        self.proofs = FakeProofs()
        self.clock = NOW
        self.told: list[dict] = []
        self.reports: list[Report] = []
        self.replies: list[dict] = []
        self.settings: list[Settings] = []
        self.doubts: list[str] = []
        self.prepared: Callable[[], object] = lambda: None
        self.restarts = 0
        self.restart_fails = False
        self.boots = 0
        self.online = True
        self.trouble: str | None = None
        self._changed = threading.Condition()

    def start(self) -> None:
        """Start as the agent does: what is active is opened first."""
        self.boots += 1
        self.memory = MemoryFolder()
        self.store = Store(self.state, lambda: self.clock)
        trust = Trust(self.controller.repository.anchor, self.store.trust, lambda: self.clock)
        opener = Opener(DEVICE, self.keys, self.memory, self.state / FOLDER)
        topics, fleet = Topics("vigia/v1", DEVICE), FleetTopics("vigia/v1")
        self.proofs.serving = "configured"
        active = self.active = {}
        installed = self.store.active(SLOT)
        if installed is not None:
            with contextlib.suppress(AgentError):
                active[SLOT] = opener.installed(installed)
                self.proofs.install(active[SLOT])
        self.inbox = Inbox()
        teller = NotingTeller(
            self._tell,
            topics,
            device=DEVICE,
            boot=f"b{self.boots}",
            key_level="L0",
            clock=lambda: self.clock,
            wall=lambda: self.clock,
        )
        teller.noted = self._notify
        self.teller = teller
        course = self.course = Course(
            settings=UpdatesConfig(),
            store=self.store,
            trust=trust,
            opener=opener,
            fetcher=self.fetcher,
            topics=fleet,
            proofs=self.proofs,
            teller=teller,
            device=Device("test", "1.0"),
            active=active,
            now=trust.now,
        )
        reporter = Reporter(
            store=self.store,
            keys=self.keys,
            send=self._report,
            topics=topics,
            device=DEVICE,
            boot=f"b{self.boots}",
            clock=lambda: self.clock,
        )
        self.updater = Updater(
            device=DEVICE,
            slots=[SLOT, "other"],
            store=self.store,
            trust=trust,
            course=course,
            proofs=self.proofs,
            teller=teller,
            reporter=reporter,
            inbox=self.inbox,
            settings=self,
            reply=self._reply,
            restart=self._restart,
            state=self.state,
            active=active,
            now=trust.now,
            trouble=self._trouble,
        )
        self.prepared()
        self.updater.start()

    @contextlib.contextmanager
    def unwritable(self):
        """Meanwhile another connection keeps the state from being written."""
        self.store._database._connection.execute("PRAGMA busy_timeout=0")
        with contextlib.closing(
            sqlite3.connect(self.state / FILE, isolation_level=None, timeout=10)
        ) as other:
            other.execute("BEGIN IMMEDIATE")
            yield

    def stop(self) -> None:
        assert self.updater.close(SOON_S)
        self.store.close()
        self.memory.close()

    def trust(self) -> None:
        self.inbox.trust("", self.controller.trust())

    def assign(self, packed: Packed, **changes: object) -> bytes:
        envelope = self.controller.assign(packed, self.keys.kem_public, **changes)
        self.inbox.assignment("", envelope)
        return envelope

    def wait_outcome(self, count: int) -> Report:
        """The `count`-th report."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.reports) >= count, SOON_S), self.told[
                -3:
            ]
            return self.reports[count - 1]

    def wait_state(self, state: str, slot: str | None = None) -> dict:
        def fits(message: dict) -> bool:
            return message["state"] == state and slot in (None, message["slot"])

        with self._changed:
            assert self._changed.wait_for(lambda: any(map(fits, self.told)), SOON_S), self.told[-3:]
            return next(filter(fits, self.told))

    def wait_refused(self, what: str, count: int = 1) -> str:
        """Why the last thing was refused, once so many of a kind were."""
        with self._changed:
            assert self._changed.wait_for(
                lambda: self.teller.counters()["refused"].get(what, 0) >= count, SOON_S
            ), self.teller.counters()
            return str(self.teller.counters()["last_refusal"])

    def wait_reply(self, count: int = 1) -> dict:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.replies) >= count, SOON_S)
            return self.replies[count - 1]

    def take(self, settings: Settings, _envelope: bytes) -> None:
        """As `agent.update.desired.Taker`; so is `refused`."""
        with self._changed:
            self.settings.append(settings)
            self._changed.notify_all()

    def refused(self, reason: str) -> None:
        with self._changed:
            self.doubts.append(reason)
            self._changed.notify_all()

    def wait_settings(self, count: int) -> Settings:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.settings) >= count, SOON_S)
            return self.settings[count - 1]

    def record(self) -> Record:
        return self.store.record(SLOT)

    def _tell(self, _topic: str, payload: bytes, _schema: str) -> None:
        with self._changed:
            self.told.append(json.loads(payload))
            self._changed.notify_all()

    def _report(self, _topic: str, payload: bytes, told: Callable[[], None]) -> bool:
        if not self.online:
            return False
        report = verify(payload, REPORT, Report, [key_of_pem(self.keys.sign_public_pem)])
        assert report.outcome in {state.value for state in OUTCOMES}
        told()
        with self._changed:
            if any(
                (r.counter, r.outcome) == (report.counter, report.outcome) for r in self.reports
            ):
                # Sent again after a restart; controllers count it once, too.
                return True
            self.reports.append(report)
            self._changed.notify_all()
        return True

    def _reply(self, nonce: str, payload: bytes) -> None:
        with self._changed:
            self.replies.append(json.loads(payload))
            assert self.replies[-1]["nonce"] == nonce
            self._changed.notify_all()

    def wait_trouble(self, text: str | None) -> None:
        """Until updates stand still for this reason, or go on."""

        def fits() -> bool:
            told = self.trouble
            return told is None if text is None else told is not None and text in told

        with self._changed:
            assert self._changed.wait_for(fits, SOON_S), self.trouble

    def _trouble(self, reason: str | None) -> None:
        with self._changed:
            self.trouble = reason
            self._changed.notify_all()

    def _restart(self) -> None:
        if self.restart_fails:
            raise RuntimeError("a mistake")
        self.restarts += 1

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()
