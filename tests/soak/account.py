"""What the consumer must be able to tell: which messages came, which are missing, and why. Pure.

A message that the broker had taken and not yet delivered is lost with a broker that is killed; an
agent that is killed loses what it had not written yet, which is the end of its run. Everything else
that is missing is a fault.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

EVENTS = "events"
"""The stream of events."""


@dataclass(frozen=True)
class Arrival:
    """One message of a stream, as the consumer saw it.

    Attributes:
        boot: which run of the agent made it.
        stream: a camera's name, or "events".
        seq: its number.
        at_s: when it came, monotonic seconds.
        dropped: frames that were lost since the one before, as it says; None for events.
        frame: number of its frame; None for events.
        replay: it waited.
    """

    boot: str
    stream: str
    seq: int
    at_s: float
    dropped: int | None = None
    frame: int | None = None
    replay: bool = False


@dataclass
class Account:
    """The result.

    Attributes:
        messages: different messages.
        repeated: came more than once, which QoS 1 allows.
        replayed: waited while the broker was away.
        lost_in_broker: missing where the broker was killed between its neighbours.
        late: came after a newer one of their stream.
        missing: never came, though a newer one did.
        unexplained: frames that `dropped` does not add up to.
        faults: sentences, one for each thing that must not be; at most `MAX_FAULTS`.
    """

    messages: int = 0
    repeated: int = 0
    replayed: int = 0
    lost_in_broker: int = 0
    late: int = 0
    missing: int = 0
    unexplained: int = 0
    faults: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))


MAX_FAULTS = 50

KILL_S = 3.0
"""What a broker had when it was killed had come to it this near to the kill."""


def account(arrivals: list[Arrival], broker_kills_s: list[float] = ()) -> Account:  # type: ignore[assignment]
    """Judge everything that came, in the order in which it came."""
    result = Account()
    streams: dict[tuple[str, str], dict[int, Arrival]] = {}
    newest: dict[tuple[str, str], int] = {}
    for arrival in arrivals:
        key = (arrival.boot, arrival.stream)
        seen = streams.setdefault(key, {})
        if arrival.seq in seen:
            result.repeated += 1
            continue
        seen[arrival.seq] = arrival
        result.messages += 1
        result.replayed += arrival.replay
        if arrival.seq < newest.get(key, -1):
            result.late += 1
            result.faults.append(f"{key}: {arrival.seq} came after {newest[key]}")
        newest[key] = max(arrival.seq, newest.get(key, -1))
    for key, seen in streams.items():
        _gaps(key, seen, broker_kills_s, result)
    del result.faults[MAX_FAULTS:]
    return result


def _gaps(
    key: tuple[str, str], seen: dict[int, Arrival], kills_s: list[float], result: Account
) -> None:
    numbers = sorted(seen)
    # The first of a run counts from -1: also its beginning must be there.
    before: Arrival | None = None
    for number in numbers:
        here = seen[number]
        expected = 0 if before is None else before.seq + 1
        if number > expected:
            since = here.at_s - KILL_S if before is None else before.at_s - KILL_S
            if any(since <= kill <= here.at_s + KILL_S for kill in kills_s):
                result.lost_in_broker += number - expected
            else:
                result.missing += number - expected
                result.faults.append(f"{key}: {expected} to {number - 1} never came")
        elif here.frame is not None and here.dropped is not None:
            last = -1 if before is None or before.frame is None else before.frame
            if here.frame - last != 1 + here.dropped:
                result.unexplained += 1
                result.faults.append(
                    f"{key}: {number} is of frame {here.frame}, the one before of {last}, "
                    f"and {here.dropped} are told as dropped"
                )
        before = here


def flat(samples: list[tuple[float, float]], allowed: float) -> tuple[float, bool]:
    """Whether a value stays: the median of the last third against that of the second.

    Args:
        samples: time and value of one life of a process.
        allowed: growth that is no growth, as a share.

    Returns:
        The growth as a share, and whether it is allowed; too few samples are flat.
    """
    third = len(samples) // 3
    if third < 3:
        return 0.0, True
    values = [value for _, value in samples]
    middle = sorted(values[third : 2 * third])[third // 2]
    last = sorted(values[2 * third :])[len(values[2 * third :]) // 2]
    growth = last / middle - 1 if middle else 0.0
    return growth, growth <= allowed
