"""Serving while building: `vigia run` with real builds in real child processes."""

from __future__ import annotations

import secrets
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import psutil
import pytest

from tests.integration.agents import (
    CONVEYOR,
    SOON_S,
    STOP_S,
    Agents,
    assert_account,
    detections,
    has,
    settings,
    states,
    validate,
)
from tests.integration.subscriber import Received, Subscriber, until

pytestmark = pytest.mark.timeout(200)

BUILD_S = 120.0
"""A build of the demo model with a few pictures takes 10 s on two idle cores;
but it comes last, so on a machine that is busy with other things it waits."""

FPS = 8
"""Of the belt. With few frames a build, which has the lowest priority, gets the processor soon."""

LOOSE = {"min_cosine": 0.5, "min_matched": 0.1, "max_score_drift": 0.5, "max_map_loss": 0.9}
"""What is tested here is not how right int8 is: few pictures make a quick build."""


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's belt, slower."""
    path = tmp_path_factory.mktemp("belt") / "belt.mp4"
    sample = cv2.VideoCapture(str(CONVEYOR / "sample.mp4"))
    writer = None
    for _ in range(5 * FPS):
        read, picture = sample.read()
        assert read
        if writer is None:
            size = (picture.shape[1], picture.shape[0])
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, size)
        writer.write(picture)
    assert writer is not None
    writer.release()
    return path


@pytest.fixture
def conveyor(mosquitto, prefix, video) -> Callable[..., dict]:
    """Makes settings for the test's own agents; arguments are the model's."""
    return lambda **model: belt(mosquitto.ports["plain"], prefix, video, **model)


def belt(port: int, prefix: str, video: Path, **model: object) -> dict:
    """The example's model on a looped video at its own speed."""
    cameras = {"belt": {"source": str(video), "loop": True, "realtime": True}}
    config = settings(port, prefix, CONVEYOR / "conveyor-n.onnx", cameras)
    config["models"]["main"].update({"threads": 2, "confidence": 0.4, "gate": LOOSE, **model})
    return config


def int8(images: int = 8) -> dict:
    """Settings that can lead to nothing but int8 on ONNX Runtime."""
    return {
        "backend": "onnxruntime",
        "precision": "int8",
        "quantize": {"calibration": str(CONVEYOR / "sample.mp4"), "images": images},
    }


def model_states(messages: list[Received]) -> list[dict]:
    return [m.json for m in messages if m.topic.endswith("/d1/model/main/state")]


def build_states(messages: list[Received]) -> list[dict]:
    return [s["build"] for s in model_states(messages) if "build" in s]


def build_is(state: str) -> Callable[[list[Received]], bool]:
    return lambda messages: any(b["state"] == state for b in build_states(messages))


def served(found: list[dict]) -> list[tuple[str, str]]:
    """Backend and precision of the messages, each run of equal ones once."""
    names: list[tuple[str, str]] = []
    for message in found:
        name = (message["model"]["backend"], message["model"]["precision"])
        if names[-1:] != [name]:
            names.append(name)
    return names


def builders(process) -> list[psutil.Process]:
    """The agent's children that build."""
    children = psutil.Process(process.pid).children(recursive=True)
    return [c for c in children if "agent.buildchild" in " ".join(c.cmdline())]


def stop(process) -> None:
    process.send_signal(signal.SIGTERM)
    assert process.wait(SOON_S) == 0


@dataclass(frozen=True)
class Life:
    """In which an int8 engine was built.

    Attributes:
        messages: all that were published.
        cache: folder with what it left.
    """

    messages: list[Received]
    cache: Path


@pytest.fixture(scope="module")
def built(mosquitto, video, tmp_path_factory: pytest.TempPathFactory) -> Life:
    """A build takes long: one serves all tests that begin after it."""
    folder, port = tmp_path_factory.mktemp("built"), mosquitto.ports["plain"]
    prefix, agents = f"test/{secrets.token_hex(4)}", Agents(folder)
    with Subscriber(port, f"{prefix}/#") as reader:
        try:
            process = agents.start(belt(port, prefix, video, **int8()))
            reader.wait_for(has("belt", 1), SOON_S)
            reader.wait_for(build_is("ready"), BUILD_S)
            reader.wait_for(
                lambda all_: detections(all_, "belt")[-1]["model"]["precision"] == "int8", SOON_S
            )
            count = len(detections(reader.messages, "belt"))
            reader.wait_for(has("belt", count + 20), SOON_S)
            stop(process)
            reader.wait_for(lambda all_: states(all_)[-1] == "offline", SOON_S)
        finally:
            agents.kill()
    return Life(list(reader.messages), folder / "cache")


@pytest.mark.slow
def test_fp32_serves_at_once_and_int8_takes_over_without_a_gap(built):
    messages = built.messages
    validate(messages)
    found = detections(messages, "belt")
    assert_account(found)
    assert sum(m["dropped"] for m in found) == 0
    assert served(found) == [("onnxruntime", "fp32"), ("onnxruntime", "int8")]
    builds = build_states(messages)
    assert [b["state"] for b in builds[:1]] == ["building"]
    assert {"starting", "calibrating", "loading"} <= {b.get("step") for b in builds}
    last = model_states(messages)[-1]
    assert last["active"]["precision"] == "int8"
    assert last["build"]["state"] == "ready"
    assert last["build"]["report"]["chosen"]["precision"] == "int8"
    assert last["build"]["report"]["candidates"][0]["gate"]["cosine"] > LOOSE["min_cosine"]
    assert last["build"]["ended"] > last["build"]["started"]
    assert states(messages)[:1] == ["online"]
    assert "degraded" not in states(messages)


@pytest.mark.slow
def test_int8_is_there_at_once_the_next_time(built, conveyor, agents, subscriber, tmp_path):
    shutil.copytree(built.cache, tmp_path / "cache")
    process = agents.start(conveyor(**int8()))
    subscriber.wait_for(has("belt", 10), SOON_S)
    subscriber.wait_for(build_is("ready"), SOON_S)
    assert builders(process) == []
    stop(process)
    messages = subscriber.wait_for(lambda all_: states(all_)[-1:] == ["offline"], SOON_S)
    validate(messages)
    assert served(detections(messages, "belt")) == [("onnxruntime", "int8")]
    assert {b["state"] for b in build_states(messages)} == {"ready"}
    assert "started" not in build_states(messages)[-1]


@pytest.mark.slow
def test_auto_ends_with_what_the_report_chose(conveyor, agents, subscriber):
    process = agents.start(conveyor(**{**int8(), "precision": "auto"}))
    subscriber.wait_for(has("belt", 1), SOON_S)
    messages = subscriber.wait_for(build_is("ready"), BUILD_S)
    report = build_states(messages)[-1]["report"]
    chosen = (report["chosen"]["backend"], report["chosen"]["precision"])
    subscriber.wait_for(lambda all_: served(detections(all_, "belt"))[-1] == chosen, SOON_S)
    stop(process)
    messages = subscriber.wait_for(lambda all_: states(all_)[-1] == "offline", SOON_S)
    validate(messages)
    found = detections(messages, "belt")
    assert_account(found)
    first = ("onnxruntime", "fp32")
    assert served(found) == ([first] if chosen == first else [first, chosen])
    assert len(report["candidates"]) > 1
    assert [c["taken"] for c in report["candidates"]].count(True) == 1
    assert all(c.get("reason") for c in report["candidates"] if not c["taken"])


@pytest.mark.parametrize("there", [False, True])
def test_without_usable_pictures_fp32_serves_on_and_the_reason_is_published(
    conveyor, agents, subscriber, tmp_path, there
):
    pictures = tmp_path / "pictures"
    if there:
        pictures.mkdir()
        for number in range(12):
            (pictures / f"{number}.jpg").write_text("no picture")
    settings_ = {**int8(), "quantize": {"calibration": str(pictures), "images": 8}}
    process = agents.start(conveyor(**settings_))
    messages = subscriber.wait_for(build_is("failed"), SOON_S)
    reason = build_states(messages)[-1]["reason"]
    assert "pictures" in reason
    count = len(detections(messages, "belt"))
    messages = subscriber.wait_for(has("belt", count + 20), SOON_S)
    assert builders(process) == []
    validate(messages)
    assert served(detections(messages, "belt")) == [("onnxruntime", "fp32")]
    assert "degraded" not in states(messages)


def building(subscriber: Subscriber, step: str = "calibrating") -> None:
    """Wait until a build is well under way."""
    subscriber.wait_for(
        lambda all_: any(b.get("step") == step for b in build_states(all_)), BUILD_S
    )


@pytest.mark.slow
def test_a_build_that_is_killed_is_told_and_not_begun_again(conveyor, agents, subscriber):
    process = agents.start(conveyor(**int8(400)))
    building(subscriber)
    (child,) = builders(process)
    child.kill()
    messages = subscriber.wait_for(build_is("failed"), SOON_S)
    assert "SIGKILL" in build_states(messages)[-1]["reason"]
    count = len(detections(messages, "belt"))
    messages = subscriber.wait_for(has("belt", count + 30), SOON_S)
    assert builders(process) == []
    assert_account(detections(messages, "belt"))
    assert build_states(messages)[-1]["state"] == "failed"
    assert states(messages) == ["online"]


@pytest.mark.slow
def test_a_stop_during_a_build_is_quick_and_leaves_no_child(conveyor, agents, subscriber):
    process = agents.start(conveyor(**int8(400)))
    building(subscriber)
    (child,) = builders(process)
    began = time.monotonic()
    stop(process)
    assert time.monotonic() - began < STOP_S
    assert not child.is_running()
    messages = subscriber.wait_for(lambda all_: states(all_)[-1] == "offline", SOON_S)
    assert_account(detections(messages, "belt"))
    validate(messages)
    last = build_states(messages)[-1]
    assert last["state"] == "none"
    assert "stopped" in last["reason"]


@pytest.mark.slow
def test_an_agent_that_is_killed_during_a_build_leaves_no_child(conveyor, agents, subscriber):
    process = agents.start(conveyor(**int8(400)))
    building(subscriber)
    (child,) = builders(process)
    process.kill()
    process.wait(SOON_S)
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, SOON_S)


@pytest.mark.slow
def test_a_damaged_plan_does_not_serve_and_is_built_anew(
    built, conveyor, agents, subscriber, tmp_path: Path
):
    shutil.copytree(built.cache, tmp_path / "cache")
    large = [p for p in (tmp_path / "cache").rglob("*") if p.is_file() and p.stat().st_size > 10**5]
    assert large
    for path in large:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    agents.start(conveyor(**int8()))
    subscriber.wait_for(build_is("building"), SOON_S)
    messages = subscriber.wait_for(has("belt", 5), SOON_S)
    assert served(detections(messages, "belt")) == [("onnxruntime", "fp32")]
    assert "damaged" in agents.log() or "removed" in agents.log()
