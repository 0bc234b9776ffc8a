"""How the update of a slot goes, as the device tells it to people and to `vigia fleet`.

Retained on PREFIX/DEVICE/update/state/SLOT. It is not signed: what counts as success is the signed
report (`agent.bundle.documents.Report`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.errors import WireError
from agent.wire.buildstate import shortened
from agent.wire.reading import parse
from agent.wire.schema import UPDATE_STATE

if TYPE_CHECKING:
    from collections.abc import Mapping

WALL_DIGITS = 3
"""Decimals of seconds since the epoch."""

PLAIN_FIELDS = (
    "slot",
    "state",
    "campaign",
    "digest",
    "family",
    "version",
    "counter",
    "release_counter",
    "attempt",
    "step",
    "key_level",
)
"""Told as they are; empty ones are absent."""


@dataclass(frozen=True, slots=True)
class UpdateState:
    """One message.

    Attributes:
        slot: which model slot.
        state: as in docs/update-lifecycle.md: IDLE, OFFERED ... COMMITTED, REJECTED, ROLLED_BACK.
        campaign: the controller's name for the roll-out; empty if there is none.
        digest: SHA-256 of the manifest, hexadecimal; empty as long as there is none.
        family: model family.
        version: of the model.
        counter: of the assignment.
        release_counter: of the bundle.
        attempt: how often the present stage was begun.
        step: what is being done, for people.
        done: bytes, or units of the step, that are finished.
        total: in all; 0 where that is not known.
        rate: bytes a second while fetching.
        eta_s: seconds until everything is fetched.
        reason: why it was refused or undone, with figures; empty if it was not.
        figures: what gate, shadow and canary measured.
        key_level: where the device keeps its keys: L0, L1 or L2.
    """

    slot: str
    state: str
    campaign: str = ""
    digest: str = ""
    family: str = ""
    version: str = ""
    counter: int = 0
    release_counter: int = 0
    attempt: int = 0
    step: str = ""
    done: int = 0
    total: int = 0
    rate: float = 0.0
    eta_s: float | None = None
    reason: str = ""
    figures: Mapping[str, object] | None = None
    key_level: str = ""

    @property
    def percent(self) -> float:
        """How much of the step is done, 0..100."""
        return 100.0 * self.done / self.total if self.total else 0.0


def encode_update_state(state: UpdateState, *, device: str, boot: str, ts: float) -> bytes:
    """The message.

    Raises:
        WireError: a figure is NaN or infinite.
    """
    told: dict[str, Any] = {
        name: value
        for name in PLAIN_FIELDS
        if (value := getattr(state, name)) not in ("", 0) or name in ("slot", "state")
    }
    if state.total:
        told |= {"done": state.done, "total": state.total, "pct": round(state.percent, 1)}
    if state.rate:
        told["rate"] = round(state.rate)
    if state.eta_s is not None:
        told["eta_s"] = round(state.eta_s, 1)
    if state.reason:
        told["reason"] = shortened(state.reason)
    if state.figures:
        told["figures"] = dict(state.figures)
    fields = {"schema": UPDATE_STATE, "device": device, "boot": boot, "ts": round(ts, WALL_DIGITS)}
    try:
        return json.dumps(fields | told, separators=(",", ":"), allow_nan=False).encode()
    except ValueError as error:
        raise WireError(f"the figures of an update cannot be told: {error}") from error


def parse_update_state(payload: bytes) -> UpdateState:
    """Read a message; fields that are not known are passed over.

    Raises:
        WireError: it is something else.
    """
    message = parse(payload)
    if message["schema"] != UPDATE_STATE:
        raise WireError(f"a message of schema {message['schema']!r} is not {UPDATE_STATE!r}")
    figures = message.get("figures")
    if figures is not None and not isinstance(figures, dict):
        raise WireError("`figures` of an update state is not a JSON object")
    eta_s = message.get("eta_s")
    return UpdateState(
        slot=_text(message, "slot", needed=True),
        state=_text(message, "state", needed=True),
        campaign=_text(message, "campaign"),
        digest=_text(message, "digest"),
        family=_text(message, "family"),
        version=_text(message, "version"),
        counter=_count(message, "counter"),
        release_counter=_count(message, "release_counter"),
        attempt=_count(message, "attempt"),
        step=_text(message, "step"),
        done=_count(message, "done"),
        total=_count(message, "total"),
        rate=float(_count(message, "rate")),
        eta_s=float(eta_s) if isinstance(eta_s, (int, float)) else None,
        reason=_text(message, "reason"),
        figures=figures,
        key_level=_text(message, "key_level"),
    )


def _text(message: dict[str, Any], key: str, *, needed: bool = False) -> str:
    value = message.get(key, None if needed else "")
    if not isinstance(value, str):
        raise WireError(f"`{key}` of an update state is not text")
    return value


def _count(message: dict[str, Any], key: str) -> int:
    value = message.get(key, 0)
    # Beyond 64 bits a number is no count of ours.
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**64:
        raise WireError(f"`{key}` of an update state is not a whole number from 0")
    return value
