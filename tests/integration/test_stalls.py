"""Every stage hung for real in a `vigia run`: told with all that explains it, then recovered.

The deadlines are the shortest that the configuration allows; `agent.stallpoint` hangs a thread for
ever at a place that it reaches while it works. Most of the time is waiting: some runs go on beside
each other.
"""

from __future__ import annotations

import json
import secrets
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.health import EXIT_CODE
from tests.integration.agents import SOON_S, Agents, settings
from tests.integration.mosquitto import Mosquitto
from tests.integration.notifysocket import WATCHDOG_S, Manager
from tests.integration.ports import free_port
from tests.integration.subscriber import Received, Subscriber
from tests.integration.updates import Fleet
from tests.vectors.models import make_model

STALL_S = 2.0
SLOW_S = 2.0
LOOK_S = 3.0
"""A look comes every second, and this machine is busy."""

FEEDS = 4
"""The watchdog of two seconds is fed twice a second."""

SCENE = {"source": "synthetic://64x48@10"}


AT_ONCE = 3


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

    @property
    def device(self) -> str:
        """Two with the same id would push each other off the broker."""
        return self.stage.replace(" ", "-")

    def config(self, folder: Path, port: int, prefix: str) -> dict:
        model = make_model(folder / "tiny.onnx", "detect", "yolo", nc=3, size=64)
        scene = {"scene": SCENE | self.camera}
        if self.stage == "updater":
            config = Fleet(folder, port, prefix, self.device).config(model, scene)
        else:
            config = settings(port, prefix, model, scene)
            config["device"]["id"] = self.device
        limits = {"ready_timeout_s": 10, "exit_after_s": 1, "slow_timeout_s": SLOW_S}
        return {**config, "health": limits | self.health, **self.sections}


ENDS = [
    Hang("updater:2", "updater"),
    Hang("publish:15", "publisher", STALL_S, {"stall_timeout_s": STALL_S}),
    Hang("loop:2", "event loop", STALL_S, {"stall_timeout_s": STALL_S}),
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
PORT = free_port()
PAGE = Hang("http:2", "http", sections={"http": {"enabled": True, "port": PORT}})
STAYS = [
    PAGE,
    Hang("build:1", "builder", 2.0, {"load_timeout_s": 2.0}),
    Hang("govern:1", "governor", sections={"governor": {"interval_s": 0.2}}),
]
RENEWED = ("governor", "http")


def events(messages: list[Received], kind: str) -> list[dict]:
    found = (m.json for m in messages if m.topic.endswith("/events"))
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


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        messages: that reached the broker.
        log: of the process that hung.
        code: its exit code; None: it ran to the end.
        page: status of the page's answer, or 0.
    """

    messages: list[Received]
    log: str
    code: int | None
    page: int = 0


def ended(
    agents: Agents, _folder: Path, config: dict, subscriber: Subscriber, hang: Hang
) -> Outcome:
    """Run until the process ends itself."""
    process = agents.start(config, VIGIA_STALLPOINT=hang.place)
    code = process.wait(SOON_S)
    log = agents.log()
    if hang.stage == "link":
        # Nothing leaves without it; what was told is kept for the process that comes next.
        agents.start(config)
    messages = subscriber.wait_for(lambda m: "process" in recoveries(m, hang), SOON_S)
    return Outcome(messages, log, code)


def stayed(
    agents: Agents, folder: Path, config: dict, subscriber: Subscriber, hang: Hang
) -> Outcome:
    """Run until the stall was told and the watchdog was fed for long after it."""
    manager = Manager(folder)
    process = agents.start(config, VIGIA_STALLPOINT=hang.place, **manager.environ())
    try:
        manager.wait("READY=1")
        subscriber.wait_for(lambda m: stalls(m, hang), SOON_S)
        # For longer than an essential stage would have been given.
        manager.drain()
        for _ in range(FEEDS):
            manager.wait("WATCHDOG=1", WATCHDOG_S)
        page = 0
        if hang.stage in RENEWED:
            subscriber.wait_for(lambda m: "over" in recoveries(m, hang), SOON_S)
        if hang is PAGE:
            address = f"http://127.0.0.1:{PORT}/readyz"
            with urllib.request.urlopen(address, timeout=SOON_S) as answer:
                page = answer.status
        return Outcome(list(subscriber.messages), agents.log(), process.poll(), page)
    finally:
        manager.close()


def play(hang: Hang, folder: Path, port: int) -> Outcome:
    prefix = f"test/{secrets.token_hex(4)}"
    agents = Agents(folder)
    run = stayed if hang in STAYS else ended
    try:
        with Subscriber(port, f"{prefix}/#") as subscriber:
            return run(agents, folder, hang.config(folder, port, prefix), subscriber, hang)
    finally:
        agents.kill()


@pytest.fixture(scope="module")
def outcomes(
    mosquitto: Mosquitto, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Outcome]]]:
    """One run for each stage, all begun with the first test that asks."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            hang.stage: pool.submit(
                play, hang, tmp_path_factory.mktemp(hang.place[:4]), mosquitto.ports["plain"]
            )
            for hang in (*ENDS, *STAYS)
        }


@pytest.mark.parametrize("hang", ENDS, ids=lambda hang: hang.stage)
def test_a_stage_that_nothing_works_without_is_told_and_ends_the_process(outcomes, hang):
    outcome = outcomes[hang.stage].result()
    assert outcome.code == EXIT_CODE
    (stall,) = stalls(outcome.messages, hang)
    check_told(stall, hang, outcome.log)
    assert stall.get("replay", False) == (hang.stage == "link")
    (end,) = [e for e in events(outcome.messages, "recovery") if e["data"]["action"] == "process"]
    assert end["ts"] - stall["ts"] < 1 + LOOK_S


@pytest.mark.parametrize("hang", STAYS, ids=lambda hang: hang.stage)
def test_a_stage_that_serving_does_not_need_is_told_once_and_the_watchdog_is_fed(outcomes, hang):
    outcome = outcomes[hang.stage].result()
    assert outcome.code is None
    (stall,) = stalls(outcome.messages, hang)
    check_told(stall, hang, outcome.log)
    expected = ["stage", "over"] if hang.stage in RENEWED else []
    assert recoveries(outcome.messages, hang) == expected


def test_a_status_page_that_hung_answers_again_at_the_same_port(outcomes):
    assert outcomes["http"].result().page == 200
