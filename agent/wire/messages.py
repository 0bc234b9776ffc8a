"""Messages of the protocol: objects to JSON bytes and back. Pure.

Every message carries the id of its JSON Schema (`agent/wire/schemas`) in `schema`. Fields that do
not apply are absent, not null.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from agent.errors import WireError
from agent.vision import rle

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent.detection import ModelRef, Result

DETECTIONS = "vigia.detections/1"
STATUS = "vigia.status/1"
INFO = "vigia.info/1"
TELEMETRY = "vigia.telemetry/1"
CAMERA_STATUS = "vigia.camera-status/1"
MODEL_STATE = "vigia.model-state/1"

SCHEMAS = (DETECTIONS, STATUS, INFO, TELEMETRY, CAMERA_STATUS, MODEL_STATE)

BOX_DIGITS = 5
"""Decimals of a normalised coordinate: a twentieth of a pixel in a picture 4000 pixels wide."""

SCORE_DIGITS = 4
TIME_DIGITS = 3
"""Decimals of milliseconds."""

WALL_DIGITS = 6
"""Decimals of seconds since the epoch."""

MAX_MESSAGE_BYTES = 4 * 2**20
"""A larger payload is no message of ours; masks of 300 objects take far less."""


def encode_detections(result: Result, device: str, boot: str, seq: int, dropped: int) -> bytes:
    """One analysed frame.

    Args:
        result: what was found.
        device: device id.
        boot: id of this run of the agent.
        seq: number of this message among its camera's published ones, without gaps.
        dropped: frames of this camera not published since the previous message.
    """
    times, model = result.times, result.model
    return _encode(
        {
            "schema": DETECTIONS,
            "device": device,
            "cam": result.camera,
            "seq": seq,
            "boot": boot,
            "ts": _wall(result.wall_s),
            "frame": {"w": result.width, "h": result.height, "id": result.frame_index},
            "model": {
                "slot": model.slot,
                "name": model.name,
                "digest": model.digest,
                "backend": model.backend,
                "precision": model.precision,
            },
            "lat_ms": {
                "queue": round(times.queue_ms, TIME_DIGITS),
                "pre": round(times.pre_ms, TIME_DIGITS),
                "infer": round(times.infer_ms, TIME_DIGITS),
                "post": round(times.post_ms, TIME_DIGITS),
                "total": round(times.total_ms, TIME_DIGITS),
            },
            "dropped": dropped,
            "replay": False,
            "objects": _objects(result),
        }
    )


def _objects(result: Result) -> list[dict[str, Any]]:
    found = result.detections
    width, height = result.width, result.height
    names = result.model.names
    # Whole arrays become lists at once: numpy scalars one by one cost ten times as much.
    boxes = (found.boxes / (width, height, width, height)).clip(0, 1).tolist()
    scores, ids = found.scores.tolist(), found.class_ids.tolist()
    objects: list[dict[str, Any]] = [
        {
            "label": names[class_id],
            "cls": class_id,
            "score": round(score, SCORE_DIGITS),
            "box": [round(v, BOX_DIGITS) for v in box],
        }
        for class_id, score, box in zip(ids, scores, boxes, strict=True)
    ]
    if found.keypoints is not None:
        points = (found.keypoints / (width, height, 1)).tolist()
        for entry, keypoints in zip(objects, points, strict=True):
            entry["kpts"] = [[round(v, BOX_DIGITS) for v in point] for point in keypoints]
    if found.rotated is not None:
        rotated = (found.rotated / (width, height, width, height, 1)).tolist()
        for entry, values in zip(objects, rotated, strict=True):
            entry["obb"] = [round(v, BOX_DIGITS) for v in values]
    if found.masks is not None:
        for entry, mask in zip(objects, found.masks, strict=True):
            entry["mask"] = {"rle": rle.encode(mask, width, height), "size": [height, width]}
    return objects


def encode_status(device: str, boot: str, ts: float, state: str, reason: str = "") -> bytes:
    """State of the device: "online", "degraded", "stopping" or "offline"."""
    message = {"schema": STATUS, "device": device, "boot": boot, "state": state, "ts": _wall(ts)}
    return _encode({**message, **({"reason": reason} if reason else {})})


def encode_info(
    device: str,
    boot: str,
    ts: float,
    hardware: Mapping[str, object],
    versions: Mapping[str, str | None],
    models: Mapping[str, ModelRef],
    cameras: Iterable[str],
) -> bytes:
    """What the device is and runs."""
    return _encode(
        {
            "schema": INFO,
            "device": device,
            "boot": boot,
            "ts": _wall(ts),
            "hardware": dict(hardware),
            "versions": {name: v for name, v in versions.items() if v is not None},
            "models": {slot: _model(ref) for slot, ref in models.items()},
            "cameras": list(cameras),
            "schemas": list(SCHEMAS),
        }
    )


def encode_model_state(device: str, boot: str, ts: float, ref: ModelRef) -> bytes:
    """Which model a slot runs."""
    return _encode(
        {
            "schema": MODEL_STATE,
            "device": device,
            "boot": boot,
            "ts": _wall(ts),
            "slot": ref.slot,
            "active": _model(ref),
        }
    )


def encode_camera_status(
    device: str, boot: str, camera: str, *, state: str, reason: str, since: float, attempts: int
) -> bytes:
    """How a camera is; see `agent.capture.camera.CameraStatus`."""
    message = {
        "schema": CAMERA_STATUS,
        "device": device,
        "boot": boot,
        "cam": camera,
        "state": state,
        "since": _wall(since),
        "attempts": attempts,
    }
    return _encode({**message, **({"reason": reason} if reason else {})})


def encode_telemetry(
    device: str,
    boot: str,
    ts: float,
    host: Mapping[str, object],
    cameras: Mapping[str, Mapping[str, object]],
    publisher: Mapping[str, object],
) -> bytes:
    """Load, rates and latencies since the previous telemetry message."""
    return _encode(
        {
            "schema": TELEMETRY,
            "device": device,
            "boot": boot,
            "ts": _wall(ts),
            "host": dict(host),
            "cameras": dict(cameras),
            "publisher": dict(publisher),
        }
    )


@dataclass(frozen=True, slots=True)
class DetectionMessage:
    """A detection message as a reader gets it.

    Attributes:
        device: device id.
        camera: camera name.
        seq: see `encode_detections`.
        boot: id of the agent's run.
        wall_s: capture time, seconds since the epoch.
        frame_index: number of the frame at its source.
        width: frame width in pixels.
        height: frame height in pixels.
        total_ms: capture to result.
        dropped: frames not published since the previous message.
        objects: the objects, as in the message.
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
        message = json.loads(payload)
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
    try:
        frame, objects = message["frame"], message["objects"]
        if not all(isinstance(o, dict) and isinstance(o["label"], str) for o in objects):
            raise WireError("an object of a detection message has no label")
        return DetectionMessage(
            device=str(message["device"]),
            camera=str(message["cam"]),
            seq=int(message["seq"]),
            boot=str(message["boot"]),
            wall_s=float(message["ts"]),
            frame_index=int(frame["id"]),
            width=int(frame["w"]),
            height=int(frame["h"]),
            total_ms=float(message["lat_ms"]["total"]),
            dropped=int(message["dropped"]),
            objects=objects,
            raw=message,
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise WireError(f"a detection message lacks or garbles {error}") from error


@lru_cache(maxsize=len(SCHEMAS))
def schema(schema_id: str) -> dict[str, Any]:
    """The JSON Schema of a message, by the id in its `schema` field."""
    name = schema_id.removeprefix("vigia.").replace("/", "-") + ".json"
    text = resources.files("agent.wire").joinpath("schemas").joinpath(name).read_text("utf-8")
    return dict(json.loads(text))


def _model(ref: ModelRef) -> dict[str, object]:
    return {
        "name": ref.name,
        "digest": ref.digest,
        "backend": ref.backend,
        "precision": ref.precision,
        "names": list(ref.names),
    }


def _wall(seconds: float) -> float:
    return round(seconds, WALL_DIGITS)


def _encode(message: Mapping[str, object]) -> bytes:
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()
