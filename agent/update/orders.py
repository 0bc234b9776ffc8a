"""Commands of operators to one device: which are obeyed, and what is answered. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from agent.bundle.documents import COMMAND, Command
from agent.bundle.dsse import verify
from agent.errors import ExpiredError, SignatureError
from agent.wire.schema import COMMAND_REPLY

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from securesystemslib.signer import Key

MAX_LIFE_S = 24 * 3600.0
"""A command that is to be valid for longer is refused: its nonce must be remembered so long."""


def read_command(
    envelope: bytes,
    keys: Sequence[Key],
    *,
    device: str,
    slots: Collection[str],
    now: float,
) -> Command:
    """Check a command: signature, device, slot, time. That it is new is the store's to say.

    Args:
        envelope: DSSE, as it came.
        keys: of the operators.
        device: this device.
        slots: its model slots.
        now: seconds since the epoch, never below the time floor.

    Raises:
        SignatureError: no operator signed it, or it is for somebody else.
        ManifestError: it is no command.
        ExpiredError: it is too late, or valid for too long.
    """
    command = verify(envelope, COMMAND, Command, keys)
    if command.device != device:
        raise SignatureError(f"the command is for {command.device}, this is {device}")
    if command.slot not in slots:
        raise SignatureError(f"the command is for the slot {command.slot}, which is not here")
    if now > command.expires:
        raise ExpiredError(f"the command ended {now - command.expires:.0f} s ago")
    if command.expires - now > MAX_LIFE_S:
        raise ExpiredError(
            f"the command is valid for {command.expires - now:.0f} s, at most {MAX_LIFE_S:.0f} s "
            "is allowed"
        )
    return command


def encode_reply(command: Command, *, done: bool, reason: str, ts: float) -> bytes:
    """The answer to a command."""
    reply = {
        "schema": COMMAND_REPLY,
        "device": command.device,
        "ts": round(ts, 3),
        "nonce": command.nonce,
        "verb": command.verb,
        "done": done,
        **({"reason": reason} if reason else {}),
    }
    return json.dumps(reply, separators=(",", ":")).encode()
