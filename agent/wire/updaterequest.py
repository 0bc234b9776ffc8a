"""What a device asks its controller to publish again, since the broker does not hold it.

On PREFIX/DEVICE/update/request. It is not signed: a controller bounds what it does for it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from agent.errors import WireError
from agent.wire.reading import parse
from agent.wire.schema import UPDATE_REQUEST

MAX_REQUEST_BYTES = 16 * 2**10
MAX_RANGES = 256
MAX_BLOCK = 2**32 - 1
BUNDLE = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class UpdateRequest:
    """One message.

    Attributes:
        bundle: its id, see `agent.bundle.manifest.bundle_id`.
        manifest: the manifest is wanted.
        index: the index is wanted.
        blocks: first and last of each range of blocks that are wanted; at most `MAX_RANGES`.
    """

    bundle: str
    manifest: bool = False
    index: bool = False
    blocks: tuple[tuple[int, int], ...] = ()


def encode_update_request(request: UpdateRequest, *, device: str) -> bytes:
    """The message; ranges beyond what one may carry are left for another time."""
    want: dict[str, Any] = {}
    if request.manifest:
        want["manifest"] = True
    if request.index:
        want["index"] = True
    if request.blocks:
        want["blocks"] = [list(part) for part in request.blocks[:MAX_RANGES]]
    message = {"schema": UPDATE_REQUEST, "device": device, "bundle": request.bundle, "want": want}
    return json.dumps(message, separators=(",", ":")).encode()


def parse_update_request(payload: bytes) -> tuple[str, UpdateRequest]:
    """Read a message.

    Returns:
        The device that it says it is of, and what is wanted.

    Raises:
        WireError: it is something else.
    """
    if len(payload) > MAX_REQUEST_BYTES:
        raise WireError(f"a request of {len(payload)} bytes is larger than {MAX_REQUEST_BYTES}")
    message = parse(payload)
    if message["schema"] != UPDATE_REQUEST:
        raise WireError(f"a message of schema {message['schema']!r} is not {UPDATE_REQUEST!r}")
    device, bundle, want = message.get("device"), message.get("bundle"), message.get("want")
    if not isinstance(device, str) or not isinstance(bundle, str) or not BUNDLE.fullmatch(bundle):
        raise WireError("`device` or `bundle` of a request is not text as it must be")
    if not isinstance(want, dict):
        raise WireError("`want` of a request is not a JSON object")
    ranges = want.get("blocks", [])
    if not isinstance(ranges, list) or len(ranges) > MAX_RANGES:
        raise WireError(f"`blocks` of a request is not a list of at most {MAX_RANGES} ranges")
    return device, UpdateRequest(
        bundle=bundle,
        manifest=want.get("manifest") is True,
        index=want.get("index") is True,
        blocks=tuple(_range(part) for part in ranges),
    )


def _range(part: object) -> tuple[int, int]:
    match part:
        case [int(first), int(last)] if 0 <= first <= last <= MAX_BLOCK:
            return int(first), int(last)
        case _:
            raise WireError("a range of a request is not first and last block")
