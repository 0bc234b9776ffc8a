"""Events of the device: what happened, for people and for programs. Pure.

An event is made of a head, known when it is sent, and a body that waits in the spool, as a
detection message is (`agent.wire.messages`).
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from agent.errors import WireError
from agent.wire.schema import EVENT

if TYPE_CHECKING:
    from collections.abc import Mapping

EventKind = Literal["agent", "camera", "model", "stall", "recovery", "governor", "config", "spool"]
"""What an event is about: the run itself, a camera's or a model's state, a stage that hangs, what
was done about it, a step of the governor, settings, the spool."""

Severity = Literal["info", "warning", "error"]

KINDS: tuple[str, ...] = get_args(EventKind)

WALL_DIGITS = 6
"""Decimals of seconds since the epoch."""

MAX_BODY_BYTES = 65_536
"""Thread stacks are the largest thing that an event carries."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    Attributes:
        kind: what it is about.
        severity: how bad it is.
        what: one sentence for people.
        data: figures for programs; JSON values, no secrets.
        ts: when, seconds since the epoch.
    """

    kind: EventKind
    severity: Severity
    what: str
    data: Mapping[str, object] = field(default_factory=dict)
    ts: float = field(default_factory=time.time)


def event_head(device: str, boot: str, seq: int, *, replay: bool) -> bytes:
    """The part that is known only when an event is sent; `event_body` goes behind it.

    Args:
        device: device id.
        boot: id of the run of the agent in which it happened.
        seq: number among the events of that run, without gaps over what was not dropped.
        replay: it waited while the broker was away.
    """
    flag = "true" if replay else "false"
    return (
        f'{{"schema":"{EVENT}","device":"{device}","boot":"{boot}","seq":{seq},"replay":{flag},'
    ).encode()


def event_body(event: Event) -> bytes:
    """The part that waits.

    Raises:
        WireError: a value is no JSON value, or it is larger than `MAX_BODY_BYTES`.
    """
    message = {
        "ts": round(event.ts, WALL_DIGITS),
        "kind": event.kind,
        "severity": event.severity,
        "what": event.what,
        "data": dict(event.data),
    }
    try:
        text = json.dumps(message, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        body = text.encode()[1:]
    except (TypeError, ValueError) as error:
        raise WireError(f"event {event.kind} cannot be encoded: {error}") from error
    if len(body) > MAX_BODY_BYTES:
        raise WireError(f"event {event.kind} has {len(body)} bytes; at most {MAX_BODY_BYTES}")
    return body
