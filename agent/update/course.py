"""Carries out what each state of an update asks for, and says what came of it.

Effects are idempotent: a state that is begun again does what is left, or all of it once more.
Whose fault a failure is decides whether the bundle may be tried again: its content's and its
engine's failures ban it, those of the network, the disk and the keys do not.
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING

from agent.bundle.documents import Assignment
from agent.bundle.dsse import unverified
from agent.bundle.index import BlockIndex
from agent.bundle.manifest import (
    MAX_MANIFEST_BYTES,
    bundle_id,
    digest_of,
    parse_manifest,
    split_target,
)
from agent.errors import DamageError, ExpiredError, ManifestError, StoreError
from agent.update import failpoints
from agent.update.machine import (
    DEADLINES_S,
    Admitted,
    Built,
    Failed,
    Fetched,
    Healthy,
    Judged,
    Opened,
    Shadowed,
    Trusted,
    Unchanged,
)
from agent.update.memoryfolder import WORK
from agent.update.offer import check_target
from agent.update.ports import UpdateCancelled
from agent.update.preflight import refusal
from agent.update.record import Record, State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.bundle.manifest import Manifest
    from agent.bundle.seal import Tell
    from agent.bundle.trust import Trust
    from agent.config import UpdatesConfig
    from agent.update.fetch import Fetcher
    from agent.update.machine import Event
    from agent.update.opening import Opener
    from agent.update.ports import Candidate, Finding, Proofs
    from agent.update.preflight import Device
    from agent.update.record import Installed
    from agent.update.staging import Staging
    from agent.update.store import Store
    from agent.update.telling import Teller
    from agent.wire.topics import FleetTopics
    from engines.backend import Progress

DIGEST = re.compile(r"[0-9a-f]{64}")
"""Name of a sealed bundle's folder."""

PIECE_TIMEOUT_S = 3600.0
"""Longest wait for a manifest or an index; the controller is asked for it meanwhile."""


class Course:
    """The effects of the states.

    Args:
        settings: of updates.
        store: what is remembered.
        trust: which bundles the release keys vouch for.
        opener: opens sealed bundles.
        fetcher: pulls pieces from the broker.
        topics: that all devices read.
        proofs: builds, judges, switches.
        teller: tells progress.
        device: what bundles must fit.
        active: what is committed and open, by slot.
        now: seconds since the epoch, never below the time floor.
    """

    def __init__(
        self,
        *,
        settings: UpdatesConfig,
        store: Store,
        trust: Trust,
        opener: Opener,
        fetcher: Fetcher,
        topics: FleetTopics,
        proofs: Proofs,
        teller: Teller,
        device: Device,
        active: Mapping[str, Candidate],
        now: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._store = store
        self._trust = trust
        self._opener = opener
        self._fetcher = fetcher
        self._topics = topics
        self._proofs = proofs
        self._teller = teller
        self._device = device
        self._active = active
        self._now = now
        # Guards what lies in memory: one slot's update is forgotten while another's is opened.
        self._lock = threading.Lock()
        self._places: dict[str, str] = {}
        self._candidates: dict[str, Candidate] = {}
        self._steps: dict[State, Callable[[Record, threading.Event], Event]] = {
            State.OFFERED: self._look_up,
            State.TRUSTED: self._admit,
            State.FETCHING: self._fetch,
            State.SEALED: self._open,
            State.BUILDING: self._build,
            State.GATING: self._gate,
            State.SHADOWING: self._shadow,
            State.CANARY: self._canary,
        }

    def step(self, record: Record, cancelled: threading.Event) -> Event:
        """Carry out the effect of the record's state.

        Args:
            record: as saved.
            cancelled: set when the effect is to be broken off.

        Raises:
            AgentError: it could not be carried out; says nothing against the bundle, but for
                BundleError.
            UpdateCancelled: `cancelled` was set.
        """
        return self._steps[record.state](record, cancelled)

    def candidate(self, slot: str) -> Candidate | None:
        """What is open in a slot."""
        return self._candidates.get(slot)

    def limit_s(self, record: Record) -> float:
        """How long a record's step may take, seconds."""
        limit_s = DEADLINES_S[record.state]
        candidate = self.candidate(record.slot)
        if candidate is not None and record.state is State.SHADOWING:
            limit_s += candidate.rules.shadow.seconds
        if candidate is not None and record.state is State.CANARY:
            limit_s += candidate.rules.canary.seconds
        return limit_s

    def open_installed(self, installed: Installed, ending: Callable[[], bool]) -> Candidate:
        """Open what is installed, to serve it; raises as `agent.update.opening.Opener.open`.

        Args:
            installed: what.
            ending: true once the agent ends.

        Raises:
            UpdateCancelled: the agent ends.
        """
        return self._opener.installed(installed, self._opening(installed.slot, ending))

    def forget(self, slot: str, *, disk: frozenset[str]) -> None:
        """Drop what a slot's update has left.

        Args:
            slot: whose update has ended.
            disk: digests of the bundles that stay on the disk.

        Raises:
            StoreError: something on the disk cannot be removed.
        """
        with self._lock:
            self._candidates.pop(slot, None)
            self._places.pop(slot, None)
            in_memory = {candidate.files.name for candidate in self._active.values()}
            # Also what other slots' updates have opened, or are opening, and their temporary files.
            others = {*self._places.values(), WORK} if self._places else set()
            self._opener.memory.keep_only(in_memory | others)
        bundles = self._opener.bundles
        try:
            names = [path.name for path in bundles.iterdir()]
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"{bundles}: cannot look at it: {error.strerror or error}") from error
        # What is not a bundle's is left alone: on a disk of its own there is `lost+found`.
        for name in names:
            if DIGEST.fullmatch(name) and name not in disk:
                self._opener.staging(name).remove()

    def _look_up(self, record: Record, _cancelled: threading.Event) -> Event:
        check_target(_assignment(record), self._trust.target(record.target))
        family, version = split_target(record.target)
        return Trusted(family, version)

    def _admit(self, record: Record, cancelled: threading.Event) -> Event:
        if self._serves(record):
            return Unchanged()
        staging = self._opener.staging(record.digest)
        manifest = self._manifest(record, staging, cancelled)
        if self._now() > manifest.expires:
            raise ExpiredError(f"bundle {record.target} has expired; publish it anew")
        reason = refusal(
            manifest,
            self._device,
            digest=record.digest,
            store=self._store,
            max_bundle_mb=self._settings.max_bundle_mb,
            folder=self._opener.bundles,
        )
        if reason is not None:
            return Failed(reason, blame=False)
        if not self._has_index(record.digest, manifest):
            data = self._fetcher.piece(
                self._topics.index(bundle_id(record.digest)),
                manifest.index.length,
                manifest.index.sha256,
                PIECE_TIMEOUT_S,
                cancelled,
            )
            BlockIndex.parse(data, manifest)
            staging.put_index(data)
        staging.allocate(manifest.ciphertext.length)
        return Admitted(manifest.min_release_counter)

    def _serves(self, record: Record) -> bool:
        """Whether the bundle is committed in its slot, and was whole enough to be opened."""
        installed, open_ = self._store.active(record.slot), self._active.get(record.slot)
        return (
            installed is not None
            and open_ is not None
            and installed.digest == open_.digest == record.digest
        )

    def _has_index(self, digest: str, manifest: Manifest) -> bool:
        try:
            self._opener.index(digest, manifest)
        except DamageError:
            return False
        return True

    def _manifest(self, record: Record, staging: Staging, cancelled: threading.Event) -> Manifest:
        data = staging.manifest()
        if data is None or digest_of(data) != record.digest:
            data = self._fetcher.piece(
                self._topics.manifest(bundle_id(record.digest)),
                MAX_MANIFEST_BYTES,
                record.digest,
                PIECE_TIMEOUT_S,
                cancelled,
            )
        manifest = parse_manifest(data)
        if (manifest.target, manifest.release_counter) != (record.target, record.release_counter):
            raise ManifestError(f"the manifest of {record.target} says that it is another release")
        staging.put_manifest(data)
        return manifest

    def _fetch(self, record: Record, cancelled: threading.Event) -> Event:
        staging = self._opener.staging(record.digest)
        manifest = self._opener.manifest(record.digest)
        index = self._opener.index(record.digest, manifest)
        failpoints.hit("C1.fetching")

        def tell(done: int, _total: int, rate: float) -> None:
            self._teller.progress(
                record.slot,
                "fetching",
                min(done * manifest.index.block_bytes, manifest.ciphertext.length),
                manifest.ciphertext.length,
                rate,
            )

        self._fetcher.blocks(
            bundle_id(record.digest),
            index,
            staging,
            self._settings.window_blocks,
            self._settings.stall_timeout_s,
            tell,
            cancelled,
        )
        failpoints.hit("C2.fetched")
        staging.sync()
        return Fetched()

    def _open(self, record: Record, cancelled: threading.Event) -> Event:
        failpoints.hit("C3.opening")
        with self._lock:
            self._places[record.slot] = self._opener.place(record.slot, record.digest)
        self._candidates[record.slot] = self._opener.open(
            record.slot,
            record.digest,
            record.grant,
            record.counter,
            _assignment(record),
            self._opening(record.slot, cancelled.is_set),
        )
        failpoints.hit("C3.opened")
        return Opened()

    def _build(self, record: Record, _cancelled: threading.Event) -> Event:
        failpoints.hit("C4.building")
        candidate = self._candidates[record.slot]
        finding = self._proofs.build(candidate, self._telling(record))
        failpoints.hit("C5.built")
        return Built(finding.text()) if finding.passed else _failed(finding)

    def _gate(self, record: Record, _cancelled: threading.Event) -> Event:
        failpoints.hit("C6.gating")
        finding = self._proofs.gate(self._candidates[record.slot], self._telling(record))
        return Judged(finding.text()) if finding.passed else _failed(finding)

    def _shadow(self, record: Record, _cancelled: threading.Event) -> Event:
        failpoints.hit("C6.shadowing")
        finding = self._proofs.shadow(self._candidates[record.slot], self._telling(record))
        return Shadowed(finding.text()) if finding.passed else _failed(finding)

    def _canary(self, record: Record, _cancelled: threading.Event) -> Event:
        failpoints.hit("C7.canary")
        finding = self._proofs.canary(self._candidates[record.slot], self._telling(record))
        failpoints.hit("C7.healthy")
        return Healthy(finding.text()) if finding.passed else _failed(finding)

    def _opening(self, slot: str, cancelled: Callable[[], bool]) -> Tell:
        """Tells progress; ends the opening, which leaves no plaintext then, once cancelled."""

        def tell(done: int, total: int) -> None:
            if cancelled():
                raise UpdateCancelled
            self._teller.progress(slot, "opening", done, total)

        return tell

    def _telling(self, record: Record) -> Callable[[Progress], None]:
        def tell(progress: Progress) -> None:
            self._teller.progress(record.slot, progress.step, progress.done, progress.total)

        return tell


def _assignment(record: Record) -> Assignment:
    """The assignment of a record, whose signature was checked when it was accepted."""
    return unverified(record.assignment, Assignment)


def _failed(finding: Finding) -> Failed:
    return Failed(finding.reason, finding.text(), blame=True)
