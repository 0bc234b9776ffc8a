from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from agent.detection import Detections, Mask, ModelRef, Result, StageTimes
from agent.errors import WireError
from agent.vision import rle
from agent.wire import messages
from agent.wire.buildstate import MAX_REASON, BuildState
from agent.wire.reading import MAX_MESSAGE_BYTES, parse, parse_detections
from agent.wire.schema import (
    CAMERA_STATUS,
    DETECTIONS,
    INFO,
    MODEL_STATE,
    SCHEMAS,
    STATUS,
    TELEMETRY,
    schema,
)
from agent.wire.topics import Topics

MODEL = ModelRef("main", "m", f"sha256:{0:064}", "onnxruntime", "fp32", ("bag", "böx", 'a"b'))
WIDTH, HEIGHT = 640, 480


def valid(payload: bytes, schema_id: str) -> dict:
    message = json.loads(payload)
    assert message["schema"] == schema_id
    jsonschema.Draft202012Validator(schema(schema_id)).validate(message)
    return message


def result(detections: Detections, **changes) -> Result:
    plain = Result(
        camera="door",
        frame_index=7,
        width=WIDTH,
        height=HEIGHT,
        monotonic_ns=1,
        wall_s=1767001122.1234567,
        model=MODEL,
        detections=detections,
        times=StageTimes(0.1234, 0.5, 4.0, 0.25, 9.5),
    )
    return dataclasses.replace(plain, **changes)


def some(n: int) -> Detections:
    """`n` objects in a row."""
    left = np.arange(n, dtype=np.float32) * 10
    boxes = np.stack([left, left + 1, left + 8, left + 9], axis=1)
    return Detections(
        boxes, np.linspace(1, 0, n, dtype=np.float32), np.arange(n, dtype=np.int32) % 3
    )


# --- schemas -----------------------------------------------------------------------------------


@pytest.mark.parametrize("schema_id", SCHEMAS)
def test_every_schema_is_a_strict_and_described_schema(schema_id):
    document = schema(schema_id)
    jsonschema.Draft202012Validator.check_schema(document)
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert document["properties"]["schema"]["const"] == schema_id

    def walk(node: dict) -> None:
        if node.get("type") == "object":
            assert "additionalProperties" in node
        for name, child in node.get("properties", {}).items():
            assert child.get("description") or "$ref" in child, name
            walk(child)
        if isinstance(node.get("items"), dict):
            walk(node["items"])

    walk(document)


def test_an_unknown_schema_is_an_error():
    with pytest.raises(WireError, match=r"vigia\.status/1"):
        schema("vigia.status/2")


# --- detections --------------------------------------------------------------------------------


def test_detections_are_normalised_and_valid():
    message = valid(
        messages.encode_detections(result(some(2)), "d1", "b1", 5, 3, replay=True), DETECTIONS
    )
    assert message["ts"] == pytest.approx(1767001122.123457, abs=1e-6)
    assert message["frame"] == {"w": WIDTH, "h": HEIGHT, "id": 7}
    assert (message["seq"], message["dropped"], message["replay"]) == (5, 3, True)
    first, second = message["objects"]
    assert first == {"label": "bag", "cls": 0, "score": 1.0, "box": first["box"]}
    assert first["box"] == pytest.approx([0, 1 / 480, 8 / 640, 9 / 480], abs=1e-5)
    assert second["label"] == "böx"


def test_nothing_found_is_a_message_with_no_objects():
    message = valid(
        messages.encode_detections(result(Detections.empty()), "d", "b", 0, 0), DETECTIONS
    )
    assert message["objects"] == []


def test_keypoints_rotated_boxes_and_masks_are_there_where_the_model_gives_them():
    found = dataclasses.replace(
        some(2),
        keypoints=np.array([[[320, 240, 0.5]], [[-64, 480, 1]]], np.float32),
        rotated=np.array([[320, 240, 64, 48, 0.5], [0, 0, 1, 1, -1.5]], np.float32),
        masks=(Mask(np.ones((2, 3), np.bool_), 5, 6), Mask(np.zeros((1, 1), np.bool_), 0, 0)),
    )
    message = valid(messages.encode_detections(result(found), "d", "b", 0, 0), DETECTIONS)
    first, second = message["objects"]
    assert first["kpts"] == [[0.5, 0.5, 0.5]]
    assert second["kpts"] == [[-0.1, 1.0, 1.0]]
    assert first["obb"] == [0.5, 0.5, 0.1, 0.1, 0.5]
    assert first["mask"]["size"] == [HEIGHT, WIDTH]
    whole = rle.decode(first["mask"]["rle"], WIDTH, HEIGHT)
    assert whole.sum() == 6
    assert whole[6:8, 5:8].all()


def test_boxes_never_leave_the_frame():
    found = dataclasses.replace(some(1), boxes=np.array([[-5, -5, 700, 500]], np.float32))
    message = valid(messages.encode_detections(result(found), "d", "b", 0, 0), DETECTIONS)
    assert message["objects"][0]["box"] == [0, 0, 1, 1]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_number_that_is_none_is_an_error_and_no_message(bad):
    found = dataclasses.replace(some(1), scores=np.array([bad], np.float32))
    with pytest.raises(WireError):
        messages.detection_body(result(found))


@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(0, 20), st.just(4)),
        elements=st.floats(0, 480, width=32),
    ),
    st.integers(0, 2**53),
    st.integers(0, 1000),
    st.booleans(),
)
def test_what_is_encoded_is_what_is_read(boxes, seq, dropped, replay):
    n = len(boxes)
    found = Detections(boxes, np.linspace(1, 0, n, dtype=np.float32), np.zeros(n, np.int32))
    payload = messages.encode_detections(result(found), "d-1", "b_1", seq, dropped, replay=replay)
    message = parse_detections(payload)
    assert (message.device, message.camera, message.boot) == ("d-1", "door", "b_1")
    assert (message.seq, message.dropped, message.replay) == (seq, dropped, replay)
    assert (message.width, message.height, message.frame_index) == (WIDTH, HEIGHT, 7)
    assert message.total_ms == 9.5
    back = np.array([o["box"] for o in message.objects]).reshape(-1, 4)
    # A fiftieth of a pixel even in a 4K picture; here less.
    assert np.allclose(back * [WIDTH, HEIGHT, WIDTH, HEIGHT], boxes, atol=0.005)
    assert [o["score"] for o in message.objects] == pytest.approx(found.scores.tolist(), abs=1e-4)


# --- other messages ----------------------------------------------------------------------------


def test_status_is_valid_with_and_without_a_reason():
    assert "reason" not in valid(messages.encode_status("d", "b", "online", ts=5.0), STATUS)
    message = valid(messages.encode_status("d", "b", "degraded", "no model"), STATUS)
    assert message["reason"] == "no model"


def test_camera_status_is_valid():
    payload = messages.encode_camera_status(
        "d", "b", "door", state="stalled", reason="no frame for 5 s", since=12.5, attempts=3
    )
    assert valid(payload, CAMERA_STATUS)["attempts"] == 3


def test_model_state_is_valid():
    message = valid(messages.encode_model_state("d", "b", "main", MODEL), MODEL_STATE)
    assert message["slot"] == "main"
    assert message["active"]["name"] == "m"
    assert "build" not in message


def test_while_nothing_serves_there_is_no_active_model():
    state = BuildState("building", step="loading", candidate=("tensorrt", "int8"), started=5.0)
    message = valid(messages.encode_model_state("d", "b", "main", None, state), MODEL_STATE)
    assert "active" not in message
    assert message["build"]["candidate"] == {"backend": "tensorrt", "precision": "int8"}


REPORT = {
    "candidates": [
        {
            "backend": "openvino",
            "precision": "bf16",
            "taken": False,
            "reason": "0.90 x",
            "route": "bf16",
            "p50_ms": 12.5,
            "speedup": 1.5,
            "gate": {"cosine": 0.99, "matched": 1.0, "score_drift": 0.01, "map_loss": -0.001},
        }
    ],
    "chosen": {"backend": "onnxruntime", "precision": "int8", "route": "q/dq"},
    "speedup": 2.5,
    "spent_s": 12.1,
    "judged": 64,
    "synthetic": False,
}

build_states = st.builds(
    BuildState,
    state=st.sampled_from(["none", "building", "ready", "failed"]),
    step=st.text(max_size=20),
    done=st.integers(0, 1000),
    total=st.integers(0, 1000),
    candidate=st.none() | st.tuples(st.just("tensorrt"), st.sampled_from(["fp16", "int8"])),
    reason=st.text(max_size=50) | st.text(min_size=3 * MAX_REASON, max_size=3 * MAX_REASON),
    started=st.none() | st.floats(0, 2e9),
    ended=st.none() | st.floats(0, 2e9),
    report=st.none() | st.just(REPORT),
)


@given(build_states)
def test_every_state_of_a_build_is_valid_and_says_what_it_holds(state):
    message = valid(messages.encode_model_state("d", "b", "main", MODEL, state), MODEL_STATE)
    build = message["build"]
    assert build["state"] == state.state
    assert build.get("step", "") == state.step
    assert build.get("total", 0) == state.total
    assert build.get("report") == state.report
    assert len(build.get("reason", "")) <= MAX_REASON
    assert build.get("started", state.started) == pytest.approx(state.started, abs=1e-3)
    assert None not in build.values()


def test_info_leaves_out_what_is_not_installed():
    hardware = {
        "machine": "aarch64",
        "model": "Orin",
        "system": "Linux",
        "python": "3.10",
        "cores": 8,
        "memory_bytes": 1,
        "agent": "0.1",
    }
    versions = {"vigia": "0.1", "tensorrt": None}
    message = valid(
        messages.encode_info("d", "b", hardware, versions, {"main": MODEL}, ["door"], ts=1.0), INFO
    )
    assert message["versions"] == {"vigia": "0.1"}
    assert message["schemas"] == list(SCHEMAS)


def test_telemetry_is_valid():
    percentiles = {"p50": 1.0, "p95": 2.0, "p99": 3.0}
    camera = {
        "fps": 29.9,
        "results": 10,
        "drops": {"superseded": 2},
        "lat_ms": dict.fromkeys(("queue", "pre", "infer", "post", "total"), percentiles),
    }
    host = {
        "cpu_percent": 5.0,
        "process_cpu_percent": 120.0,
        "process_rss_bytes": 1,
        "memory_available_bytes": 2,
    }
    publisher = {
        "published": 9,
        "dropped": {"outbox": 1},
        "withheld": {},
        "outbox_messages": 0,
        "outbox_bytes": 0,
    }
    valid(messages.encode_telemetry("d", "b", host, {"door": camera}, publisher), TELEMETRY)


# --- reading -----------------------------------------------------------------------------------

GOOD = json.loads(messages.encode_detections(result(some(1)), "d", "b", 0, 0))


def test_fields_of_a_newer_agent_are_passed_over():
    assert parse_detections(json.dumps({**GOOD, "new": [1]}).encode()).raw["new"] == [1]


@given(st.binary(max_size=200))
def test_garbage_raises_one_error(data):
    with pytest.raises(WireError):
        parse_detections(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(st.sampled_from(sorted(GOOD)), json_values, st.booleans())
def test_a_message_with_a_wrong_field_is_read_or_raises_one_error(key, value, remove):
    message = {k: v for k, v in GOOD.items() if k != key}
    if not remove:
        message[key] = value
    with_error = json.dumps(message).encode()
    try:
        read = parse_detections(with_error)
    except WireError:
        return
    assert isinstance(read.seq, int)
    assert all(isinstance(o["label"], str) for o in read.objects)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schema", "vigia.detections/2"),
        ("seq", -1),
        ("seq", True),
        ("seq", 1.5),
        ("device", None),
        ("ts", "now"),
        ("ts", 10**400),
        ("frame", []),
        ("objects", {}),
        ("objects", [1]),
        ("objects", [{"label": "a", "cls": 0, "score": 1, "box": [0, 0, 1]}]),
        ("objects", [{"label": "a", "cls": 0, "score": 1, "box": [0, 0, 1, "1"]}]),
        ("objects", [{"label": 1, "cls": 0, "score": 1, "box": [0, 0, 1, 1]}]),
    ],
)
def test_a_wrong_field_is_refused(key, value):
    with pytest.raises(WireError):
        parse_detections(json.dumps({**GOOD, key: value}).encode())


@pytest.mark.parametrize(
    "payload",
    [
        b"[" * 100_000,
        b'{"schema": NaN}',
        b'{"schema":"vigia.status/1","ts":Infinity}',
        b"[]",
        b"{}",
        b" " * (MAX_MESSAGE_BYTES + 1),
    ],
)
def test_hostile_json_raises_one_error(payload):
    with pytest.raises(WireError):
        parse(payload)


# --- topics ------------------------------------------------------------------------------------


def test_topics():
    topics = Topics("vigia/v1", "d1")
    assert topics.status == "vigia/v1/d1/status"
    assert topics.info == "vigia/v1/d1/info"
    assert topics.telemetry == "vigia/v1/d1/telemetry"
    assert topics.check == "vigia/v1/d1/check"
    assert topics.camera_status("a") == "vigia/v1/d1/cam/a/status"
    assert topics.detections("+") == "vigia/v1/d1/cam/+/detections"
    assert topics.events == "vigia/v1/d1/events"
    assert topics.model_state("main") == "vigia/v1/d1/model/main/state"


# --- the documentation -------------------------------------------------------------------------


def test_the_message_in_the_documentation_is_valid_and_can_be_read():
    text = (Path(__file__).parents[3] / "docs" / "mqtt.md").read_text("utf-8")
    samples = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    assert samples
    for sample in samples:
        message = parse_detections(sample.encode())
        valid(sample.encode(), DETECTIONS)
        for entry in message.objects:
            height, width = entry["mask"]["size"]
            assert rle.decode(entry["mask"]["rle"], width, height).any()


def test_every_topic_and_schema_is_documented():
    text = (Path(__file__).parents[3] / "docs" / "mqtt.md").read_text("utf-8")
    assert all(f"`{schema_id}`" in text for schema_id in SCHEMAS)
