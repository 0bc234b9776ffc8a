"""Which settings are in force: the message. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from agent.wire.schema import CONFIG_STATE

TIME_DIGITS = 3
"""Decimals of seconds since the epoch."""

MAX_REASON_CHARS = 4000
"""A configuration may have many mistakes; the log has all of them."""


@dataclass(frozen=True, slots=True)
class Version:
    """Which settings from afar are meant.

    Attributes:
        counter: of them.
        digest: SHA-256 of their text, hexadecimal.
        empty: they leave the file alone.
    """

    counter: int
    digest: str
    empty: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """Settings from afar that were not taken, and why; without `version` nobody knows whose."""

    reason: str
    version: Version | None = None


@dataclass(frozen=True, slots=True)
class ConfigState:
    """How it stands with the settings; see the schema for what the fields mean."""

    state: Literal["applied", "partly", "refused", "recovered", "control"]
    reason: str = ""
    restart: tuple[str, ...] = ()
    desired: Version | None = None
    not_taken: Refused | None = None


def encode_config_state(device: str, boot: str, state: ConfigState, *, ts: float) -> bytes:
    """The retained message.

    Args:
        device: device id.
        boot: id of this run of the agent.
        state: what is told.
        ts: seconds since the epoch.
    """
    message: dict[str, object] = {
        "schema": CONFIG_STATE,
        "device": device,
        "boot": boot,
        "ts": round(ts, TIME_DIGITS),
        "state": state.state,
        **({"reason": state.reason[:MAX_REASON_CHARS]} if state.reason else {}),
        **({"restart": list(state.restart)} if state.restart else {}),
        "source": "file" if state.desired is None or state.desired.empty else "desired",
    }
    if state.desired is not None:
        message["desired"] = _version(state.desired)
    if (refused := state.not_taken) is not None:
        known = {} if refused.version is None else _version(refused.version)
        message["not_taken"] = {**known, "reason": refused.reason[:MAX_REASON_CHARS]}
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()


def _version(version: Version) -> dict[str, object]:
    return {"counter": version.counter, "digest": version.digest}
