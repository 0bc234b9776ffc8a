"""A staged roll-out: which devices are next, and when to stop. Pure; times are the caller's.

Devices are assigned stage by stage. A stage opens when enough devices of the one before have
committed. The campaign stops for good when too many devices of a stage failed, or when a stage can
no longer have enough successes. Each stage is judged by itself: a large good one does not hide a
small bad one. A device that does not report in time has failed, so nothing waits for ever.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from agent.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

WHOLE_PERCENT = 100.0

MAX_STAGES = 20

ROUNDING = 1e-9
"""Shares that are meant to be equal may differ in their last digit."""


class Outcome(str, Enum):
    """What became of a device's assignment.

    `LEFT`: it is no part of the campaign any more: the campaign stopped before the device was
    assigned or reported, or the device was revoked.
    """

    WAITING = "WAITING"
    COMMITTED = "COMMITTED"
    REJECTED = "REJECTED"
    ROLLED_BACK = "ROLLED_BACK"
    TIMED_OUT = "TIMED_OUT"
    LEFT = "LEFT"

    @property
    def failed(self) -> bool:
        """True for what counts as an error."""
        return self in (Outcome.REJECTED, Outcome.ROLLED_BACK, Outcome.TIMED_OUT)


OPEN = (Outcome.WAITING, Outcome.TIMED_OUT, Outcome.LEFT)
"""Outcomes that no report of the device stands behind."""


class Status(str, Enum):
    """How a campaign is; the last two are final."""

    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    STOPPED = "STOPPED"


@dataclass(frozen=True, slots=True)
class Plan:
    """How a campaign goes.

    Attributes:
        stages: the devices of each stage, in order; none twice.
        success: share of a stage's devices that must commit, 0..1.
        max_errors: largest share of failures among a stage's finished devices, 0..1.
        min_sample: finished devices of a stage below which that share is not judged; a whole
            smaller stage is judged when it is finished.
        deadline_s: time from assignment to report, seconds.
    """

    stages: tuple[tuple[str, ...], ...]
    success: float = 0.9
    max_errors: float = 0.2
    min_sample: int = 1
    deadline_s: float = 3600.0

    def __post_init__(self) -> None:
        devices = [device for stage in self.stages for device in stage]
        if not devices or not all(self.stages):
            raise ConfigError("a campaign needs devices, and at least one in every stage")
        if len(set(devices)) != len(devices):
            raise ConfigError("a device stands in two stages of the campaign")
        if not (0 <= self.success <= 1 and 0 <= self.max_errors <= 1):
            raise ConfigError("success and errors are shares from 0 to 1")
        if self.min_sample < 1 or not 0 < self.deadline_s < math.inf:
            raise ConfigError("the least sample is 1 device, and the deadline more than 0 seconds")


@dataclass(slots=True)
class Member:
    """A device in a campaign.

    Attributes:
        stage: its stage, from 0.
        assigned_at: when it was assigned, by the caller's clock; None: not yet.
        outcome: what became of it.
    """

    stage: int
    assigned_at: float | None = None
    outcome: Outcome = Outcome.WAITING


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done now.

    Attributes:
        assign: devices to assign; asked for again until `Campaign.assigned` is told of them.
        timed_out: devices whose time is over, told once.
        left: devices that nothing more is expected of, since the campaign has stopped; told once.
    """

    assign: tuple[str, ...] = ()
    timed_out: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


class Campaign:
    """A campaign as it goes; made anew from what was stored, it goes on where it was.

    Args:
        plan: how it is to go.
        members: what is known of the devices; those not named were not assigned yet.
        status: as stored.
        reason: as stored.

    Attributes:
        plan: as given.
        members: every device.
        status: how it is.
        reason: why it stopped, with figures; empty if it did not.
    """

    def __init__(
        self,
        plan: Plan,
        members: Mapping[str, Member] | None = None,
        status: Status = Status.RUNNING,
        reason: str = "",
    ) -> None:
        known = members or {}
        self.plan = plan
        self.members = {
            device: known.get(device) or Member(number)
            for number, stage in enumerate(plan.stages)
            for device in stage
        }
        self.status = status
        self.reason = reason

    @property
    def opened(self) -> int:
        """Stages that were begun."""
        begun = [m.stage for m in self.members.values() if m.assigned_at is not None]
        return max(begun, default=-1) + 1

    def assigned(self, device: str, now: float) -> None:
        """The device was given its assignment."""
        self.members[device].assigned_at = now

    def finished(self, device: str, outcome: Outcome) -> bool:
        """A verified report of the device's present assignment has come.

        The first report counts, and after it only that a commitment was undone. One that comes
        after its time counts too, as it tells what the device runs; but what has stopped stays
        stopped.

        Returns:
            True if that is news.
        """
        member = self.members.get(device)
        if member is None or member.assigned_at is None:
            return False
        undone = (member.outcome, outcome) == (Outcome.COMMITTED, Outcome.ROLLED_BACK)
        if not undone and member.outcome not in OPEN:
            return False
        member.outcome = outcome
        return True

    def leave(self, device: str) -> None:
        """The device is no longer there to be assigned; its stage goes on without it."""
        self.members[device].outcome = Outcome.LEFT

    def stop(self, reason: str) -> None:
        """Assign no more, for good."""
        if self.status is Status.RUNNING:
            self.status, self.reason = Status.STOPPED, reason

    def step(self, now: float) -> Step:
        """Judge, and tell what is to be done; call it after every report and as time passes."""
        timed_out = self._time_out(now) if self.status is Status.RUNNING else ()
        wanted = self._judge()
        assign = wanted if self.status is Status.RUNNING else ()
        left = self._leave() if self.status is Status.STOPPED else ()
        return Step(assign, timed_out, left)

    def next_deadline(self) -> float | None:
        """When the next device's time is over; None if none is waited for."""
        waiting = [
            member.assigned_at + self.plan.deadline_s
            for member in self.members.values()
            if member.outcome is Outcome.WAITING and member.assigned_at is not None
        ]
        return min(waiting, default=None)

    def tally(self, stage: int | None = None) -> Counter[Outcome]:
        """Devices by outcome, of one stage or of all."""
        return Counter(
            member.outcome
            for member in self.members.values()
            if stage is None or member.stage == stage
        )

    def _time_out(self, now: float) -> tuple[str, ...]:
        late = tuple(
            device
            for device, member in self.members.items()
            if member.outcome is Outcome.WAITING
            and member.assigned_at is not None
            and now >= member.assigned_at + self.plan.deadline_s
        )
        for device in late:
            self.members[device].outcome = Outcome.TIMED_OUT
        return late

    def _judge(self) -> tuple[str, ...]:
        """The devices to assign, of the stages that may be open; stops or succeeds if it is so."""
        if self.status is not Status.RUNNING:
            return ()
        wanted: list[str] = []
        for number, stage in enumerate(self.plan.stages):
            fault = self._fault(number)
            if fault:
                self.stop(fault)
                return ()
            wanted += [device for device in stage if self._open(device)]
            tally = self.tally(number)
            if tally[Outcome.COMMITTED] < self._needed(len(stage) - tally[Outcome.LEFT]):
                return tuple(wanted)
        if not self.tally()[Outcome.WAITING]:
            self.status = Status.SUCCEEDED
        return tuple(wanted)

    def _open(self, device: str) -> bool:
        member = self.members[device]
        return member.assigned_at is None and member.outcome is Outcome.WAITING

    def _fault(self, number: int) -> str:
        """Why a stage ends the campaign, or nothing."""
        tally = self.tally(number)
        size = len(self.plan.stages[number]) - tally[Outcome.LEFT]
        failed = sum(count for outcome, count in tally.items() if outcome.failed)
        finished = failed + tally[Outcome.COMMITTED]
        where = f"stage {number + 1} of {len(self.plan.stages)}"
        whole = finished == size
        if (finished >= self.plan.min_sample or whole) and (
            failed > self.plan.max_errors * finished + ROUNDING
        ):
            return (
                f"{where}: {failed} of {finished} finished devices failed "
                f"({_kinds(tally)}); more than {self.plan.max_errors:g} of them"
            )
        if size - failed < self._needed(size):
            return (
                f"{where}: {failed} of {size} devices failed ({_kinds(tally)}); "
                f"{self.plan.success:g} of them can no longer commit"
            )
        return ""

    def _needed(self, size: int) -> int:
        return math.ceil(self.plan.success * size - ROUNDING)

    def _leave(self) -> tuple[str, ...]:
        left = tuple(d for d, m in self.members.items() if m.outcome is Outcome.WAITING)
        for device in left:
            self.members[device].outcome = Outcome.LEFT
        return left


def _kinds(tally: Counter[Outcome]) -> str:
    return ", ".join(f"{tally[o]} {o.value}" for o in Outcome if o.failed and tally[o])


def stages_of(
    devices: Iterable[str], percents: Sequence[float], seed: str
) -> tuple[tuple[str, ...], ...]:
    """Divide devices into stages.

    Args:
        devices: their ids; the order does not matter.
        percents: of all devices that are assigned once the stage is open, rising, at most 100.
            What is left above the last is not part of the campaign.
        seed: e.g. the campaign's name: who is first differs between campaigns, and is the same
            whenever it is asked.

    Raises:
        ConfigError: the percentages are none.
    """
    rising = all(a < b for a, b in itertools.pairwise(percents))
    if not percents or not rising or percents[0] <= 0 or percents[-1] > WHOLE_PERCENT:
        raise ConfigError("stages: percentages that rise, above 0 and at most 100, e.g. 10,50,100")
    if len(percents) > MAX_STAGES:
        raise ConfigError(f"stages: at most {MAX_STAGES}")
    shuffled = sorted(
        set(devices), key=lambda device: hashlib.sha256(f"{seed}\0{device}".encode()).digest()
    )
    stages, begin = [], 0
    for percent in percents:
        end = math.ceil(len(shuffled) * percent / WHOLE_PERCENT - ROUNDING)
        if end > begin:
            stages.append(tuple(shuffled[begin:end]))
            begin = end
    return tuple(stages)
