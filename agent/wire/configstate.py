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
class ConfigState:
    """How it stands with the settings; see the schema for what the fields mean."""

    state: Literal["applied", "partly", "refused", "recovered", "control"]
    reason: str = ""
    restart: tuple[str, ...] = ()


def encode_config_state(device: str, boot: str, state: ConfigState, *, ts: float) -> bytes:
    """The retained message.

    Args:
        device: device id.
        boot: id of this run of the agent.
        state: what is told.
        ts: seconds since the epoch.
    """
    message = {
        "schema": CONFIG_STATE,
        "device": device,
        "boot": boot,
        "ts": round(ts, TIME_DIGITS),
        "state": state.state,
        **({"reason": state.reason[:MAX_REASON_CHARS]} if state.reason else {}),
        **({"restart": list(state.restart)} if state.restart else {}),
    }
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()
