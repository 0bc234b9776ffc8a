"""What is remembered of a slot's update: one row, and what is installed. Values only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class State(str, Enum):
    """Where an update is. The state names the effect that is under way, or the outcome."""

    IDLE = "IDLE"
    """Nothing was ever assigned."""

    OFFERED = "OFFERED"
    """An assignment was accepted; its bundle is looked up in the signed metadata."""

    TRUSTED = "TRUSTED"
    """The bundle is vouched for; its manifest is fetched and compared with this device."""

    FETCHING = "FETCHING"
    """Index and blocks are pulled."""

    SEALED = "SEALED"
    """The ciphertext is whole on the disk; it is opened into memory."""

    BUILDING = "BUILDING"
    """Its engine is built."""

    GATING = "GATING"
    """It is judged on its golden set beside the active model."""

    SHADOWING = "SHADOWING"
    """It runs on live frames beside the active model."""

    CANARY = "CANARY"
    """It serves on trial."""

    COMMITTED = "COMMITTED"
    """It is the slot's model."""

    REJECTED = "REJECTED"
    """It never served; the active model was not touched."""

    ROLLED_BACK = "ROLLED_BACK"
    """It served, and what was there before serves again."""


OUTCOMES = frozenset({State.COMMITTED, State.REJECTED, State.ROLLED_BACK})
"""States that end an update; each is reported once."""

RESTING = OUTCOMES | {State.IDLE}
"""States in which a new assignment is taken up."""


@dataclass(frozen=True, slots=True)
class Record:
    """The row of a slot. Only `agent.update.machine` makes new ones of old ones.

    Attributes:
        slot: model slot.
        state: where the update is.
        campaign, counter, digest, target, release_counter: as assigned; `digest` is the SHA-256 of
            the manifest, hexadecimal.
        family, version, min_release_counter: of the manifest, from TRUSTED on.
        assignment: the DSSE envelope as it came.
        grant: the assignment's grant as JSON, which opens the bundle again at each start.
        attempt: times the bundle was taken up to be opened and built; counted before it begins.
        trials: builds that came to an end, so times the gate was begun.
        canaries: times it began to serve on trial; counted before it begins.
        transitions: steps since the assignment.
        blame: whether the bundle itself is at fault and must not be tried again; only with
            REJECTED and ROLLED_BACK.
        reason: why it was rejected or rolled back, for people.
        figures: of build, gate, shadow and canary, as a JSON object.
        started, changed: of the assignment and of the last step, seconds since the epoch; for
            people, and set by the store.
    """

    slot: str
    state: State = State.IDLE
    campaign: str = ""
    counter: int = 0
    digest: str = ""
    target: str = ""
    release_counter: int = 0
    family: str = ""
    version: str = ""
    min_release_counter: int = 0
    assignment: bytes = b""
    grant: bytes = b""
    attempt: int = 0
    trials: int = 0
    canaries: int = 0
    transitions: int = 0
    blame: bool = False
    reason: str = ""
    figures: str = "{}"
    started: float = 0.0
    changed: float = 0.0

    @property
    def resting(self) -> bool:
        """Whether nothing is under way."""
        return self.state in RESTING

    def same_step(self, other: Record) -> bool:
        """Whether both say the same, the times of the store apart."""
        return replace(self, started=0.0, changed=0.0) == replace(other, started=0.0, changed=0.0)


@dataclass(frozen=True, slots=True)
class Installed:
    """A committed bundle of a slot. Its manifest and ciphertext lie in the staging folder.

    Attributes:
        slot: model slot.
        digest: SHA-256 of the manifest, hexadecimal.
        family, version, release_counter, min_release_counter, target: of the manifest.
        campaign, counter: of the assignment that brought it; the grant is bound to `counter`.
        grant: `agent.bundle.documents.Grant` as JSON.
        at: when it was committed, seconds since the epoch.
    """

    slot: str
    digest: str
    family: str
    version: str
    release_counter: int
    min_release_counter: int
    target: str
    campaign: str
    counter: int
    grant: bytes
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Past:
    """An update that came to an end: a line of the history.

    Attributes:
        id: grows with time.
        slot, state, campaign, counter, digest, family, version, release_counter, attempt, reason,
            figures, started, changed: as in `agent.update.record.Record`.
    """

    id: int
    slot: str
    state: State
    campaign: str
    counter: int
    digest: str
    family: str
    version: str
    release_counter: int
    attempt: int
    reason: str
    figures: str
    started: float
    changed: float


def installed_of(record: Record) -> Installed:
    """What a record puts in place when it is committed."""
    return Installed(
        slot=record.slot,
        digest=record.digest,
        family=record.family,
        version=record.version,
        release_counter=record.release_counter,
        min_release_counter=record.min_release_counter,
        target=record.target,
        campaign=record.campaign,
        counter=record.counter,
        grant=record.grant,
        at=record.changed,
    )


def record_of(installed: Installed) -> Record:
    """The committed record of what is installed, for a rollback after later rejections."""
    return Record(
        slot=installed.slot,
        state=State.COMMITTED,
        campaign=installed.campaign,
        counter=installed.counter,
        digest=installed.digest,
        target=installed.target,
        release_counter=installed.release_counter,
        family=installed.family,
        version=installed.version,
        min_release_counter=installed.min_release_counter,
        grant=installed.grant,
        started=installed.at,
        changed=installed.at,
    )
