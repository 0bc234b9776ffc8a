"""`vigia run` as seen over HTTP: by a probe, by Prometheus, by a person."""

from __future__ import annotations

import errno
import signal
import socket

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.agents import SOON_S, STOP_S, has, settings
from tests.integration.ports import free_port
from tests.integration.subscriber import until

TOKEN = "a token of sixteen or more"


def await_page(port):
    """The page opens beside the cameras: results may come before it."""
    with socket.socket() as probe:
        until(lambda: probe.connect_ex(("127.0.0.1", port)) in (0, errno.EISCONN), SOON_S)


@pytest.fixture
def page(agents, mosquitto, subscriber, prefix, model):
    """A running agent's address; one camera works, one is lost, one is switched off."""
    port = free_port()
    cameras = {
        "scene": {"source": "synthetic://320x180@20"},
        "gate": {"source": f"rtsp://127.0.0.1:{free_port()}/lost"},
        "spare": {"source": "synthetic://64x48@5", "enabled": False},
    }
    config = settings(mosquitto.ports["plain"], prefix, model, cameras)
    config["http"] = {"port": port}
    process = agents.start(config)
    subscriber.wait_for(has("scene", 3), SOON_S)
    await_page(port)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=SOON_S) as client:
        yield client
    process.send_signal(signal.SIGTERM)
    assert process.wait(SOON_S) == 0


def test_a_reader_is_told_how_everything_is(page):
    assert page.get("/healthz").text == "ok\n"
    assert page.get("/").headers["content-type"].startswith("text/html")

    def lost() -> bool:
        return bool(page.get("/api/status").json()["cameras"]["gate"]["reason"])

    until(lost, SOON_S)
    status = page.get("/api/status").json()
    assert status["cameras"]["scene"]["state"] == "online"
    assert status["cameras"]["spare"]["state"] == "disabled"
    assert any("gate" in reason for reason in status["health"]["reasons"])
    assert status["models"]["main"]["backend"] == "onnxruntime"
    assert status["broker"]["connected"] is True
    assert any(event["kind"] == "camera" for event in status["events"])
    points = (
        until(lambda: page.get("/api/history").json()["points"], SOON_S)
        or (page.get("/api/history").json()["points"])
    )
    assert points[-1]["cameras"]["scene"]["fps"] > 0


def test_metrics_count_what_was_analysed(page):
    families = {f.name: f for f in text_string_to_metric_families(page.get("/metrics").text)}
    frames = {s.labels["camera"]: s.value for s in families["vigia_frames"].samples}
    assert frames["scene"] > 0
    state = {
        (s.labels["camera"], s.labels["state"]): s.value
        for s in families["vigia_camera_state"].samples
    }
    assert state["scene", "online"] == 1
    stages = families["vigia_stage_seconds"].samples
    infer = [s for s in stages if s.labels == {"camera": "scene", "stage": "infer", "le": "+Inf"}]
    assert infer[0].value >= frames["scene"]
    assert families["vigia_publisher_published"].type == "counter"


def test_pictures_come_with_their_frame_drawn_and_streams_do_not_end(page):
    first = page.get("/live/scene/picture")
    assert first.content.startswith(b"\xff\xd8")
    second = page.get("/live/scene/picture", params={"after": first.headers["X-Picture"]})
    assert int(second.headers["X-Picture"]) > int(first.headers["X-Picture"])
    assert page.get("/live/nowhere").status_code == 404
    with page.stream("GET", "/live/scene") as stream:
        assert stream.headers["content-type"].startswith("multipart/x-mixed-replace")
        seen = b""
        for part in stream.iter_raw():
            seen += part
            if seen.count(b"Content-Type: image/jpeg") >= 3:
                break


def test_an_agent_ends_in_time_while_somebody_looks(agents, mosquitto, subscriber, prefix, model):
    port = free_port()
    config = settings(
        mosquitto.ports["plain"], prefix, model, {"scene": {"source": "synthetic://64x48@20"}}
    )
    config["http"] = {"port": port}
    process = agents.start(config)
    subscriber.wait_for(has("scene", 3), SOON_S)
    await_page(port)
    with httpx.stream("GET", f"http://127.0.0.1:{port}/live/scene", timeout=SOON_S) as stream:
        next(stream.iter_raw())
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_S) == 0


def test_an_agent_that_is_to_have_no_page_listens_nowhere(
    agents, mosquitto, subscriber, prefix, model
):
    port = free_port()
    config = settings(
        mosquitto.ports["plain"], prefix, model, {"scene": {"source": "synthetic://64x48@20"}}
    )
    config["http"] = {"port": port, "enabled": False}
    agents.start(config)
    subscriber.wait_for(has("scene", 3), SOON_S)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 1.0)


def test_a_port_that_is_taken_costs_nothing_but_the_page(
    agents, mosquitto, subscriber, prefix, model
):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        config = settings(
            mosquitto.ports["plain"], prefix, model, {"scene": {"source": "synthetic://64x48@20"}}
        )
        config["http"] = {"port": other.getsockname()[1]}
        process = agents.start(config)
        subscriber.wait_for(has("scene", 3), SOON_S)
        until(lambda: "cannot listen" in agents.log(), SOON_S)
        assert process.poll() is None


@pytest.mark.slow
def test_a_person_sees_cameras_and_what_is_wrong(page, chromium):
    until(lambda: bool(page.get("/api/history").json()["points"]), SOON_S)
    seen = chromium.page((1280, 900))
    seen.open(str(page.base_url))
    seen.until("document.querySelector('[data-name=scene] img:not([hidden])')")
    seen.until("document.getElementById('state').textContent === 'Degraded'")
    assert "camera gate" in seen.ask("document.getElementById('reasons').textContent")
    assert "switched off" in seen.ask("document.querySelector('[data-name=spare]').textContent")
    assert seen.problems == []
    seen.close()
