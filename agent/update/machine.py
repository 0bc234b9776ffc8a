"""The life cycle of an update as a table: which event leads from which state to which. Pure.

A shell looks at a record's state, carries out that state's effect, and has `advance` make the next
record, which it saves. Effects are idempotent: after a restart, `resume` says from which state to
go on. What was opened lies in memory only, so a restart at any state after SEALED goes on from
SEALED.

Budgets count before what they limit begins, so that a crash has been counted when it happens.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

from agent.update.record import OUTCOMES, RESTING, Record, State

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_UNFINISHED_BUILDS = 2
"""Times that opening and building may be begun without coming to an end."""

MAX_TRIALS = 3
"""Times that gate and shadow may be begun. Sites lose power, so one more than builds have."""

MAX_CANARIES = 2
"""Times that a candidate may begin to serve on trial."""

MAX_TRANSITIONS = 64
"""Steps of one assignment, a rollback of what it committed included."""

MAX_REASON = 4000
"""Characters, as in `agent.bundle.documents.Report`."""

MAX_FIGURES = 32_768
"""Characters, likewise."""

DEADLINES_S: Mapping[State, float] = {
    State.OFFERED: 86_400.0,
    State.TRUSTED: 86_400.0,
    State.FETCHING: 30 * 86_400.0,
    State.SEALED: 3_600.0,
    State.BUILDING: 6 * 3_600.0,
    State.GATING: 3_600.0,
    State.SHADOWING: 3_600.0,
    State.CANARY: 3_600.0,
}
"""Longest stay in a state, seconds of one run of the agent. To those of SHADOWING and CANARY comes
what their rules ask for. Until SEALED it is the network that takes the time, so they are long."""


class IllegalTransition(RuntimeError):  # noqa: N818 - the word of the table
    """An event came in a state that has no place for it: a mistake in the program."""


@dataclass(frozen=True, slots=True)
class Offered:
    """A new assignment was accepted: `agent.bundle.documents.Assignment`, signature checked."""

    campaign: str
    counter: int
    digest: str
    target: str
    release_counter: int
    assignment: bytes
    grant: bytes


@dataclass(frozen=True, slots=True)
class Trusted:
    """The signed metadata know the bundle, as assigned."""

    family: str
    version: str


@dataclass(frozen=True, slots=True)
class Admitted:
    """The manifest was read, and this device may have the bundle."""

    min_release_counter: int = 0


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The bundle is the active one already: nothing to fetch or to prove."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """All of the ciphertext is on the disk."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The plaintext is in memory."""


@dataclass(frozen=True, slots=True)
class Built:
    """The engine is in the plan cache. `figures`: a JSON object, as of all stages."""

    figures: str = "{}"


@dataclass(frozen=True, slots=True)
class Judged:
    """The gate was passed."""

    figures: str = "{}"


@dataclass(frozen=True, slots=True)
class Shadowed:
    """It answered live frames like the active model."""

    figures: str = "{}"


@dataclass(frozen=True, slots=True)
class Healthy:
    """The trial went well."""

    figures: str = "{}"


@dataclass(frozen=True, slots=True)
class Failed:
    """The update ends: refused, failed, timed out, or replaced by a newer assignment.

    Attributes:
        reason: for people.
        figures: of the stage that failed.
        blame: whether the bundle is at fault, so that it is never tried again. Before FETCHING it
            never is: until then it was not the bundle that was looked at, and whoever can send
            messages could otherwise ban a good one.
    """

    reason: str
    figures: str = "{}"
    blame: bool = True


@dataclass(frozen=True, slots=True)
class Stopped:
    """The agent is being stopped in an orderly way; what was begun does not count."""


@dataclass(frozen=True, slots=True)
class Rollback:
    """An operator wants back what was there before."""

    reason: str = "an operator asked for it"


Event = (
    Offered
    | Trusted
    | Admitted
    | Unchanged
    | Fetched
    | Opened
    | Built
    | Judged
    | Shadowed
    | Healthy
    | Failed
    | Stopped
    | Rollback
)

_UNDER_WAY = tuple(state for state in State if state not in RESTING)
_IN_MEMORY = (State.SEALED, State.BUILDING, State.GATING, State.SHADOWING, State.CANARY)
_TRIED = (State.GATING, State.SHADOWING, State.CANARY)

TABLE: Mapping[tuple[State, type[Event]], State] = {
    **{(state, Offered): State.OFFERED for state in State if state in RESTING},
    (State.OFFERED, Trusted): State.TRUSTED,
    (State.TRUSTED, Admitted): State.FETCHING,
    (State.TRUSTED, Unchanged): State.COMMITTED,
    (State.FETCHING, Fetched): State.SEALED,
    (State.SEALED, Opened): State.BUILDING,
    (State.BUILDING, Built): State.GATING,
    (State.GATING, Judged): State.SHADOWING,
    (State.SHADOWING, Shadowed): State.CANARY,
    (State.CANARY, Healthy): State.COMMITTED,
    **{
        (state, Failed): State.ROLLED_BACK if state is State.CANARY else State.REJECTED
        for state in _UNDER_WAY
    },
    **{(state, Stopped): State.SEALED if state in _IN_MEMORY else state for state in _UNDER_WAY},
    (State.COMMITTED, Rollback): State.ROLLED_BACK,
}
"""Everything that can happen; an event in a state that is not here is a mistake in the program."""

EDGES = frozenset((start, end) for (start, _), end in TABLE.items())
"""Pairs of states that can follow each other; also those of `resume` and of the budgets."""

_STAGES: Mapping[State, str] = {
    State.BUILDING: "build",
    State.GATING: "gate",
    State.SHADOWING: "shadow",
    State.CANARY: "canary",
}


def advance(record: Record, event: Event) -> Record:
    """What a record becomes by an event.

    Args:
        record: as it was saved last.
        event: what happened.

    Returns:
        The record to save. The budget of steps can turn it into a failure.

    Raises:
        IllegalTransition: the table has no such step; nothing has changed.
    """
    to = TABLE.get((record.state, type(event)))
    if to is None:
        _illegal(record, event)
    if isinstance(event, Offered):
        return _offer(record, event)
    if isinstance(event, Stopped):
        return _stop(record)
    if isinstance(event, Failed):
        return _end(record, event.reason, event.figures, blame=event.blame)
    if isinstance(event, Rollback):
        return replace(
            record,
            state=to,
            transitions=record.transitions + 1,
            blame=True,
            reason=event.reason[:MAX_REASON],
        )
    following = _count(record, to)
    if isinstance(event, Trusted):
        following = replace(following, family=event.family, version=event.version)
    elif isinstance(event, Admitted):
        following = replace(following, min_release_counter=event.min_release_counter)
    elif isinstance(event, (Built, Judged, Shadowed, Healthy)):
        figures = _with_figures(record, event.figures)
        following = replace(following, figures=figures)
    return _within_budget(record, following)


def resume(record: Record) -> Record:
    """What a record becomes when the agent starts and finds it so.

    Orderly stops were taken back by `Stopped`, so here whatever was begun has crashed.

    Returns:
        The same record where nothing changes; else one to save before going on.
    """
    if record.state not in _IN_MEMORY:
        return record
    if record.state is State.CANARY and record.canaries >= MAX_CANARIES:
        return _end(record, f"the agent ended unexpectedly in {record.canaries} trials")
    if record.state in _TRIED and record.trials >= MAX_TRIALS:
        return _end(record, f"the agent ended unexpectedly in {record.trials} attempts to judge it")
    unfinished = record.attempt - record.trials
    if record.state not in _TRIED and unfinished >= MAX_UNFINISHED_BUILDS:
        return _end(record, f"the agent ended unexpectedly in {unfinished} attempts to build it")
    again = replace(
        record,
        state=State.SEALED,
        attempt=record.attempt + 1,
        transitions=record.transitions + 1,
    )
    return _within_budget(record, again)


def _offer(record: Record, event: Offered) -> Record:
    if event.counter <= record.counter:
        raise IllegalTransition(
            f"slot {record.slot}: assignment {event.counter} is not above {record.counter}"
        )
    return Record(
        slot=record.slot,
        state=State.OFFERED,
        campaign=event.campaign,
        counter=event.counter,
        digest=event.digest,
        target=event.target,
        release_counter=event.release_counter,
        assignment=event.assignment,
        grant=event.grant,
        transitions=1,
    )


def _count(record: Record, to: State) -> Record:
    return replace(
        record,
        state=to,
        transitions=record.transitions + 1,
        attempt=record.attempt + (to is State.SEALED),
        trials=record.trials + (to is State.GATING),
        canaries=record.canaries + (to is State.CANARY),
    )


def _stop(record: Record) -> Record:
    if record.state not in _IN_MEMORY:
        return record
    stopped = replace(
        record,
        state=State.SEALED,
        transitions=record.transitions + 1,
        attempt=record.attempt - 1,
        trials=record.trials - (record.state in _TRIED),
        canaries=record.canaries - (record.state is State.CANARY),
    )
    return _within_budget(record, stopped)


def _within_budget(record: Record, following: Record) -> Record:
    # Two steps are left for the outcome and for a rollback of it.
    if following.state in OUTCOMES or following.transitions <= MAX_TRANSITIONS - 2:
        return following
    return _end(record, f"no outcome after {record.transitions} steps")


def _end(record: Record, reason: str, figures: str = "{}", *, blame: bool = True) -> Record:
    return replace(
        record,
        state=TABLE[record.state, Failed],
        transitions=record.transitions + 1,
        blame=blame and record.state not in {State.OFFERED, State.TRUSTED},
        reason=reason[:MAX_REASON],
        figures=_with_figures(record, figures),
    )


def _with_figures(record: Record, figures: str) -> str:
    stage = _STAGES.get(record.state)
    if stage is None or figures == "{}":
        return record.figures
    merged = {**json.loads(record.figures), stage: json.loads(figures)}
    text = json.dumps(merged, separators=(",", ":"), sort_keys=True)
    return text if len(text) <= MAX_FIGURES else record.figures


def _illegal(record: Record, event: Event) -> NoReturn:
    name = type(event).__name__
    raise IllegalTransition(f"slot {record.slot}: {name} has no place in {record.state.value}")
