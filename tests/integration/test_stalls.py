"""Every stage hung for real in a `vigia run`: told with all that explains it, then recovered.

The deadlines are the shortest that the configuration allows; `agent.stallpoint` hangs a thread for
ever at a place that it reaches while it works.
"""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.health import EXIT_CODE
from tests.integration.agents import SOON_S, Agents, settings
from tests.integration.mosquitto import Mosquitto
from tests.integration.notifysocket import WATCHDOG_S, Manager
from tests.integration.servers import free_port
from tests.integration.subscriber import Received, Subscriber
from tests.integration.updates import Fleet

STALL_S = 1.0
SLOW_S = 2.0
LOOK_S = 3.0
"""A look comes every second, and this machine is busy."""

LAST_WORDS_S = 4.0
SCENE = {"source": "synthetic://64x48@10"}


@dataclass(frozen=True)
class Hang:
    """A thread that hangs.

    Attributes:
        place: for `VIGIA_STALLPOINT`.
        stage: that is to be told.
        limit_s: after which that is to be.
        health: its own settings.
        sections: other ones.
        camera: of the camera.
    """

    place: str
    stage: str
    limit_s: float = SLOW_S
    health: dict = field(default_factory=dict)
    sections: dict = field(default_factory=dict)
    camera: dict = field(default_factory=dict)

    def config(self, port: int, prefix: str, model: Path) -> dict:
        config = settings(port, prefix, model, {"scene": SCENE | self.camera})
        limits = {"ready_timeout_s": 10, "exit_after_s": 1, "slow_timeout_s": SLOW_S}
        return {**config, "health": limits | self.health, **self.sections}


QUICK = {"stall_timeout_s": STALL_S}
ENDS = [
    Hang("publish:15", "publisher", STALL_S, QUICK),
    Hang("loop:2", "event loop", 2.0, {"stall_timeout_s": 2.0}),
    Hang("link:25", "link"),
    Hang("spool:4", "spool"),
    Hang("load:1", "loading main", 1.0, {"load_timeout_s": 1.0}),
    Hang(
        "read:5+",
        "cameras",
        1.0,
        {"cameras_timeout_s": 1.0},
        camera={"stall_timeout_s": 0.2, "open_timeout_s": 0.3, "reconnect_initial_s": 0.05},
    ),
]
STAYS = [
    Hang("build:1", "builder", 2.0, {"load_timeout_s": 2.0}),
    Hang("govern:1", "governor", sections={"governor": {"interval_s": 0.2}}),
]


def events(messages: list[Received], kind: str) -> list[dict]:
    found = (m.json for m in messages if m.topic.endswith("/d1/events"))
    return [event for event in found if event["kind"] == kind]


def stalls(messages: list[Received], hang: Hang) -> list[dict]:
    return [e for e in events(messages, "stall") if e["data"]["stage"] == hang.stage]


def recoveries(messages: list[Received], hang: Hang) -> list[str]:
    found = [e["data"] for e in events(messages, "recovery")]
    return [data["action"] for data in found if data["stage"] == hang.stage]


def check_told(event: dict, hang: Hang, log: str) -> None:
    data = event["data"]
    assert hang.limit_s <= data["age_s"] < hang.limit_s + LOOK_S
    assert data["limit_s"] == hang.limit_s
    assert set(data["ages_s"]) >= {hang.stage}
    assert set(data["cameras"]["scene"]) == {"state", "frame_age_s", "result_age_s"}
    assert set(data["queues"]) >= {"frames", "publisher", "spool"}
    assert set(data["queues"]["frames"]["main"]) == {"waiting", "oldest_s"}
    assert data["engines"]["main"].keys() >= {"backend", "busy_s", "loading_s", "reason"}
    assert any("stallpoint.py" in call for calls in data["stacks"].values() for call in calls)
    logged = [json.loads(line)["event"] for line in log.splitlines() if line.startswith("{")]
    lines = [line for line in logged if line.startswith(f"stall of {hang.stage}: ")]
    assert any('"queues"' in line and '"engines"' in line for line in lines)
    assert any("thread" in line and "stallpoint.py" in line for line in lines)


@pytest.fixture
def manager(tmp_path):
    manager = Manager(tmp_path)
    yield manager
    manager.close()


def check_ends(
    agents: Agents, config: dict, subscriber: Subscriber, manager: Manager, hang: Hang
) -> None:
    process = agents.start(config, VIGIA_STALLPOINT=hang.place, **manager.environ())
    assert process.wait(SOON_S) == EXIT_CODE
    log = agents.log()
    if hang.stage == "link":
        # Nothing leaves without it; what was told is kept for the process that comes next.
        agents.start(config)
    messages = subscriber.wait_for(lambda m: "process" in recoveries(m, hang), SOON_S)
    (stall,) = stalls(messages, hang)
    check_told(stall, hang, log)
    assert stall.get("replay", False) == (hang.stage == "link")
    (end,) = [e for e in events(messages, "recovery") if e["data"]["action"] == "process"]
    assert end["ts"] - stall["ts"] < 1 + LOOK_S


@pytest.mark.parametrize("hang", ENDS, ids=lambda hang: hang.stage)
def test_a_stage_that_nothing_works_without_is_told_and_ends_the_process(
    agents: Agents,
    mosquitto: Mosquitto,
    prefix: str,
    model: Path,
    subscriber: Subscriber,
    manager: Manager,
    hang: Hang,
):
    config = hang.config(mosquitto.ports["plain"], prefix, model)
    check_ends(agents, config, subscriber, manager, hang)


def test_an_updater_that_hangs_is_told_and_ends_the_process(
    agents: Agents,
    mosquitto: Mosquitto,
    prefix: str,
    model: Path,
    subscriber: Subscriber,
    manager: Manager,
    tmp_path: Path,
):
    hang = Hang("updater:2", "updater")
    port = mosquitto.ports["plain"]
    fleet = Fleet(tmp_path, port, prefix)
    config = fleet.config(model, {"scene": SCENE})
    config["health"] = hang.config(port, prefix, model)["health"]
    check_ends(agents, config, subscriber, manager, hang)


def start_and_hear(
    agents: Agents, config: dict, subscriber: Subscriber, manager: Manager, hang: Hang
) -> None:
    """The stall is told once, the process lives and its watchdog is fed all the time."""
    process = agents.start(config, VIGIA_STALLPOINT=hang.place, **manager.environ())
    manager.wait("READY=1")
    messages = subscriber.wait_for(lambda m: stalls(m, hang), SOON_S)
    # Longer than an essential stage would have been given.
    for _ in range(5):
        manager.wait("WATCHDOG=1", WATCHDOG_S)
    assert process.poll() is None
    (stall,) = stalls(messages, hang)
    check_told(stall, hang, agents.log())
    assert len(stalls(subscriber.messages, hang)) == 1


@pytest.mark.parametrize("hang", STAYS, ids=lambda hang: hang.stage)
def test_a_stage_that_serving_does_not_need_is_told_once_and_the_watchdog_is_fed(
    agents: Agents,
    mosquitto: Mosquitto,
    prefix: str,
    model: Path,
    subscriber: Subscriber,
    manager: Manager,
    hang: Hang,
):
    config = hang.config(mosquitto.ports["plain"], prefix, model)
    start_and_hear(agents, config, subscriber, manager, hang)
    expected = ["stage", "over"] if hang.stage == "governor" else []
    assert recoveries(subscriber.messages, hang) == expected


def test_a_status_page_that_hangs_is_begun_anew_at_the_same_port(
    agents: Agents,
    mosquitto: Mosquitto,
    prefix: str,
    model: Path,
    subscriber: Subscriber,
    manager: Manager,
):
    port = free_port()
    hang = Hang("http:2", "http", sections={"http": {"enabled": True, "port": port}})
    config = hang.config(mosquitto.ports["plain"], prefix, model)
    start_and_hear(agents, config, subscriber, manager, hang)
    subscriber.wait_for(lambda m: recoveries(m, hang) == ["stage", "over"], SOON_S)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=SOON_S) as answer:
        assert answer.status == 200
