"""Messages of the protocol: objects to JSON bytes. Pure; `agent.wire.reading` is the way back.

Every message carries the id of its JSON Schema in `schema`. Fields that do not apply are absent,
not null. What the fields mean is said once, in the schemas (`agent/wire/schemas`).
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from agent.errors import WireError
from agent.vision import rle
from agent.wire.schema import (
    CAMERA_STATUS,
    DETECTIONS,
    INFO,
    MODEL_STATE,
    SCHEMAS,
    STATUS,
    TELEMETRY,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent.detection import ModelRef, Result
    from agent.wire.buildstate import BuildState

BOX_DIGITS = 5
"""Decimals of a normalised coordinate: wrong by at most 0.02 pixels in a 4K picture."""

SCORE_DIGITS = 4
TIME_DIGITS = 3
"""Decimals of milliseconds."""

WALL_DIGITS = 6
"""Decimals of seconds since the epoch."""


def encode_detections(
    result: Result, device: str, boot: str, seq: int, dropped: int, *, replay: bool = False
) -> bytes:
    """One analysed frame, ready to publish.

    Args:
        result: what was found.
        device: device id.
        boot: id of this run of the agent.
        seq: number of this message among its camera's published ones, without gaps.
        dropped: frames of this camera that were lost since its previous message.
        replay: the message was made while the broker was away.

    Raises:
        WireError: a number is NaN or infinite.
    """
    head = detection_head(device, boot, result.camera, seq, dropped, replay=replay)
    return head + detection_body(result)


def detection_head(
    device: str, boot: str, camera: str, seq: int, dropped: int, *, replay: bool
) -> bytes:
    """The part of a detection message that is known only when it is sent; see `detection_body`."""
    # Names are configured and limited to letters, digits, - and _: nothing needs escaping.
    flag = "true" if replay else "false"
    return (
        f'{{"schema":"{DETECTIONS}","device":"{device}","cam":"{camera}","seq":{seq},'
        f'"boot":"{boot}","dropped":{dropped},"replay":{flag},'
    ).encode()


def detection_body(result: Result) -> bytes:
    """The part of a detection message that waits in the outbox; `detection_head` goes before it.

    Raises:
        WireError: a number is NaN or infinite.
    """
    times, model = result.times, result.model
    return _encode(
        {
            "ts": round(result.wall_s, WALL_DIGITS),
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
            "objects": _objects(result),
        }
    )[1:]


def _objects(result: Result) -> list[dict[str, Any]]:
    found = result.detections
    width, height = result.width, result.height
    names = result.model.names
    # Whole arrays become lists at once: numpy scalars one by one cost ten times as much.
    boxes = (found.boxes / (width, height, width, height)).clip(0, 1).round(BOX_DIGITS).tolist()
    scores = found.scores.astype("f8").round(SCORE_DIGITS).tolist()
    objects: list[dict[str, Any]] = [
        {"label": names[class_id], "cls": class_id, "score": score, "box": box}
        for class_id, score, box in zip(found.class_ids.tolist(), scores, boxes, strict=True)
    ]
    if found.keypoints is not None:
        points = (found.keypoints / (width, height, 1)).round(BOX_DIGITS).tolist()
        for entry, keypoints in zip(objects, points, strict=True):
            entry["kpts"] = keypoints
    if found.rotated is not None:
        rotated = (found.rotated / (width, height, width, height, 1)).round(BOX_DIGITS).tolist()
        for entry, values in zip(objects, rotated, strict=True):
            entry["obb"] = values
    if found.masks is not None:
        for entry, mask in zip(objects, found.masks, strict=True):
            entry["mask"] = {"rle": rle.encode(mask, width, height), "size": [height, width]}
    return objects


def encode_status(
    device: str, boot: str, state: str, reason: str = "", *, ts: float | None = None
) -> bytes:
    """State of the device: "online", "degraded", "stopping" or "offline"."""
    message = {"schema": STATUS, "device": device, "boot": boot, "state": state, "ts": _wall(ts)}
    return _encode(_with_reason(message, reason))


def encode_info(
    device: str,
    boot: str,
    hardware: Mapping[str, object],
    versions: Mapping[str, str | None],
    models: Mapping[str, ModelRef],
    cameras: Iterable[str],
    *,
    ts: float | None = None,
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


def encode_model_state(
    device: str,
    boot: str,
    slot: str,
    active: ModelRef | None,
    build: BuildState | None = None,
    *,
    ts: float | None = None,
) -> bytes:
    """Which model a slot runs, and how the building of a better engine goes.

    Args:
        device: device id.
        boot: id of this run of the agent.
        slot: name of the model in the configuration.
        active: what serves; None while nothing does.
        build: None if nothing is known of it yet.
        ts: seconds since the epoch; now if None.
    """
    message: dict[str, object] = {
        "schema": MODEL_STATE,
        "device": device,
        "boot": boot,
        "ts": _wall(ts),
        "slot": slot,
    }
    if active is not None:
        message["active"] = _model(active)
    if build is not None:
        message["build"] = build.as_dict()
    return _encode(message)


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
        "since": round(since, WALL_DIGITS),
        "attempts": attempts,
    }
    return _encode(_with_reason(message, reason))


def encode_telemetry(
    device: str,
    boot: str,
    host: Mapping[str, object],
    cameras: Mapping[str, Mapping[str, object]],
    publisher: Mapping[str, object],
    broker: Mapping[str, object] | None = None,
    *,
    spool: Mapping[str, object] | None = None,
    updates: Mapping[str, object] | None = None,
    governor: Mapping[str, object] | None = None,
    ts: float | None = None,
) -> bytes:
    """Load, rates and latencies since the previous telemetry message.

    Args:
        device: device id.
        boot: id of this run of the agent.
        host: `agent.device.HostProbe.look`.
        cameras: `agent.pipeline.stats.PipelineStats.recent`.
        publisher: `agent.publish.Publisher.counters`.
        broker: `agent.mqtt.MqttClient.counters`.
        spool: `agent.spool.Spool.counters`.
        updates: `agent.updates.Updates.counters`.
        governor: `agent.governorrun.Governor.state`.
        ts: seconds since the epoch; now if None.
    """
    message: dict[str, object] = {
        "schema": TELEMETRY,
        "device": device,
        "boot": boot,
        "ts": _wall(ts),
        "host": dict(host),
        "cameras": dict(cameras),
        "publisher": dict(publisher),
    }
    optional = {"broker": broker, "spool": spool, "updates": updates, "governor": governor}
    message |= {name: dict(value) for name, value in optional.items() if value is not None}
    return _encode(message)


def _model(ref: ModelRef) -> dict[str, object]:
    return {
        "name": ref.name,
        "digest": ref.digest,
        "backend": ref.backend,
        "precision": ref.precision,
        "names": list(ref.names),
    }


def _with_reason(message: dict[str, object], reason: str) -> dict[str, object]:
    return {**message, "reason": reason} if reason else message


def _wall(ts: float | None) -> float:
    return round(time.time() if ts is None else ts, WALL_DIGITS)


def _encode(message: Mapping[str, object]) -> bytes:
    try:
        text = json.dumps(message, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode()
    except ValueError as error:
        raise WireError(f"a message cannot be encoded: {error}") from error
