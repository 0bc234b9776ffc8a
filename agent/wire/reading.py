"""Messages of the protocol: JSON bytes to objects, for readers. Pure.

Bytes from outside raise one error, `WireError`, whatever they contain. Fields that are not known
are passed over: a newer agent may send more.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from agent.errors import WireError
from agent.wire.schema import DETECTIONS

MAX_MESSAGE_BYTES = 4 * 2**20
"""A larger payload is no message of ours; masks of 300 objects take far less."""

BOX_NUMBERS = 4


@dataclass(frozen=True, slots=True)
class DetectionMessage:
    """A detection message as a reader gets it.

    Attributes:
        device: device id.
        camera: camera name.
        seq: number of the message among its camera's, without gaps in one run of the agent.
        boot: id of the agent's run.
        wall_s: capture time, seconds since the epoch.
        frame_index: number of the frame at its source.
        width: frame width in pixels.
        height: frame height in pixels.
        total_ms: capture to result.
        dropped: frames of the camera that were lost since the previous message.
        replay: made while the broker was away.
        objects: as in the message; `label`, `cls`, `score` and `box` are there and well-formed.
        raw: the whole message.
    """

    device: str
    camera: str
    seq: int
    boot: str
    wall_s: float
    frame_index: int
    width: int
    height: int
    total_ms: float
    dropped: int
    replay: bool
    objects: list[dict[str, Any]]
    raw: dict[str, Any]


def parse(payload: bytes) -> dict[str, Any]:
    """Any message of ours as a plain mapping.

    Raises:
        WireError: the bytes are no JSON object with a schema.
    """
    if len(payload) > MAX_MESSAGE_BYTES:
        raise WireError(f"a message of {len(payload)} bytes is larger than {MAX_MESSAGE_BYTES}")
    try:
        message = json.loads(payload, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise WireError(f"a message is not JSON: {error}") from error
    if not isinstance(message, dict) or not isinstance(message.get("schema"), str):
        raise WireError("a message is not a JSON object with a `schema`")
    return message


def parse_detections(payload: bytes) -> DetectionMessage:
    """Read a detection message.

    Raises:
        WireError: it is something else.
    """
    message = parse(payload)
    if message["schema"] != DETECTIONS:
        raise WireError(f"a message of schema {message['schema']!r} is not {DETECTIONS!r}")
    frame = _mapping(message, "frame")
    return DetectionMessage(
        device=_text(message, "device"),
        camera=_text(message, "cam"),
        seq=_count(message, "seq"),
        boot=_text(message, "boot"),
        wall_s=_number(message, "ts"),
        frame_index=_count(frame, "id"),
        width=_count(frame, "w"),
        height=_count(frame, "h"),
        total_ms=_number(_mapping(message, "lat_ms"), "total"),
        dropped=_count(message, "dropped"),
        replay=message.get("replay") is True,
        objects=_objects(message),
        raw=message,
    )


def _objects(message: dict[str, Any]) -> list[dict[str, Any]]:
    objects = message.get("objects")
    if not isinstance(objects, list):
        raise WireError("`objects` of a message is not a list")
    for entry in objects:
        if not isinstance(entry, dict):
            raise WireError("an object of a message is not a JSON object")
        _text(entry, "label")
        _count(entry, "cls")
        _number(entry, "score")
        box = entry.get("box")
        if not isinstance(box, list) or len(box) != BOX_NUMBERS or not all(map(_is_number, box)):
            raise WireError("`box` of an object is not four numbers")
    return objects


def _text(source: dict[str, Any], key: str) -> str:
    value = source.get(key)
    if not isinstance(value, str):
        raise WireError(f"`{key}` of a message is not text")
    return value


def _count(source: dict[str, Any], key: str) -> int:
    value = source.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise WireError(f"`{key}` of a message is not a whole number from 0")
    return value


def _number(source: dict[str, Any], key: str) -> float:
    value = source.get(key)
    if value is None or not _is_number(value):
        raise WireError(f"`{key}` of a message is not a number")
    try:
        return float(value)
    except OverflowError as error:
        raise WireError(f"`{key}` of a message is too large") from error


def _mapping(source: dict[str, Any], key: str) -> dict[str, Any]:
    value = source.get(key)
    if not isinstance(value, dict):
        raise WireError(f"`{key}` of a message is not a JSON object")
    return value


def _is_number(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")
