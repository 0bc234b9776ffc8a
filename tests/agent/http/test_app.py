"""What each address answers."""

from __future__ import annotations

import pytest

from agent.detection import StageTimes
from agent.http import app as app_module

TOKEN = "a token of sixteen or more"


def test_health_is_a_word_while_every_stage_makes_progress(agent, ask):
    agent.cameras["gate"]["state"] = "connecting"
    answer = ask("/healthz")
    assert (answer.status_code, answer.text) == (200, "ok\n")


def test_a_stalled_stage_is_not_healthy_and_is_named(agent, ask):
    agent.watched = {"ready": True, "stalled": ("model main",)}
    answer = ask("/healthz")
    assert answer.status_code == 503
    assert answer.text.splitlines() == [
        "a stage makes no progress",
        "model main makes no progress",
    ]


def test_a_stall_that_serving_does_not_mind_is_named_and_healthy(agent, ask):
    agent.watched = {"ready": True, "stalled": ("builder",), "holding": ()}
    assert ask("/healthz").status_code == 200
    reasons = ask("/api/status").json()["health"]["reasons"]
    assert reasons == ["builder makes no progress"]


def test_an_agent_that_serves_is_ready_whatever_else_is_wrong(agent, ask):
    agent.cameras["gate"] |= {"state": "stalled", "reason": "no frame for 9 s"}
    answer = ask("/readyz")
    assert (answer.status_code, answer.text) == (200, "ready\n")


def test_an_agent_that_is_not_ready_says_why(agent, ask):
    agent.watched = {"ready": False, "stalled": ()}
    agent.cameras["gate"] |= {"state": "connecting", "reason": "connection refused"}
    answer = ask("/readyz")
    assert answer.status_code == 503
    assert answer.text.splitlines() == ["not ready", "camera gate: connection refused"]


def test_probes_without_the_token_are_told_a_word_and_no_address(agent, ask):
    agent.watched = {"ready": False, "stalled": ("model main",)}
    agent.cameras["gate"] |= {"state": "connecting", "reason": "rtsp://10.0.0.7 is away"}
    server = agent.server(token=TOKEN)
    assert ask("/readyz", server).text == "not ready\n"
    assert ask("/healthz", server).text == "a stage makes no progress\n"
    known = ask("/readyz", server, authorization=f"Bearer {TOKEN}")
    assert "10.0.0.7" in known.text


def test_the_state_has_counts_rates_and_only_the_parts_that_exist(agent, ask):
    agent.stats.result("dock", StageTimes(1, 2, 3, 4, 10), 2)
    agent.stats.drop("dock", "superseded", 3)
    agent.parts["broker"] = {"connected": True}
    told = ask("/api/status").json()
    assert told["schema"] == "vigia.page/1"
    assert told["device"] == "edge-7"
    assert told["cameras"]["dock"]["results"] == 1
    assert told["cameras"]["dock"]["drops"] == {"superseded": 3}
    assert told["broker"] == {"connected": True}
    assert "spool" not in told
    assert told["health"] == {"healthy": True, "ready": True, "reasons": []}


@pytest.mark.parametrize("after", ["", "x", "-1", "1.5", "²", "9" * 40, "%00"])
def test_a_number_of_a_point_that_is_none_gives_all_points(agent, ask, after):
    server = agent.server()
    now = [server.history._looked]
    server.history._clock = lambda: now[0]
    for _ in range(3):
        now[0] += 2.0
        server.history.look()
    points = ask(f"/api/history?after={after}", server).json()["points"]
    assert [point["n"] for point in points] == [1, 2, 3]
    assert ask("/api/history?after=2", server).json()["points"] == points[2:]
    assert ask("/api/history?after=99", server).json()["points"] == []


def test_metrics_are_of_the_kind_that_prometheus_reads(ask):
    answer = ask("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "# TYPE vigia_info gauge" in answer.text


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/page.css", "text/css"),
        ("/draw.js", "text/javascript"),
        ("/page.js", "text/javascript"),
        ("/icon.svg", "image/svg+xml"),
    ],
)
def test_the_page_and_what_it_loads_are_served(ask, path, kind):
    answer = ask(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(kind)
    assert answer.content


@pytest.mark.parametrize("path", ["/live/nobody", "/live/nobody/picture", "/nothing", "/live/"])
def test_what_is_not_there_is_not_found(ask, path):
    assert ask(path).status_code == 404


def test_a_camera_without_pictures_is_told_after_a_while(ask, monkeypatch):
    monkeypatch.setattr(app_module, "PICTURE_WAIT_S", 0.01)
    answer = ask("/live/dock/picture")
    assert answer.status_code == 503
    assert "no pictures" in answer.text


def test_a_picture_is_newer_than_the_one_before(agent, ask):
    server = agent.server()
    with agent.playing():
        first = ask("/live/dock/picture", server)
        number = first.headers["X-Picture"]
        second = ask(f"/live/dock/picture?after={number}", server)
        # A reader of the run before knows greater numbers; he gets a picture all the same.
        late = ask("/live/dock/picture?after=999999999", server)
    assert first.headers["content-type"] == "image/jpeg"
    assert first.content.startswith(b"\xff\xd8")
    assert int(second.headers["X-Picture"]) > int(number)
    assert late.status_code == 200
