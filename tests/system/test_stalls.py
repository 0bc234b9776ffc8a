"""A stage that hangs for ever, with the settings of a device: told in time, served again soon.

`agent.stallpoint` hangs one thread for ever. The order for it is taken back as soon as the process
has it, so that the one that follows is whole.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from agent.confighealth import HealthConfig
from tests.system.container import Container
from tests.system.device import BACK_S, another, dropin, pid, serves, since_boot_s
from tests.system.record import Record

LIMIT_S = HealthConfig().stall_timeout_s
EXIT_AFTER_S = HealthConfig().exit_after_s

LOOK_S = 2.0
"""The watch looks every second; and this machine is busy."""

HEARD = "/root/heard.jsonl"


@pytest.fixture
def heard(agent: Container) -> Iterator[None]:
    """Events that reach the broker, from now on."""
    agent.run("systemd-run", "--quiet", "--unit=heard", f"--property=StandardOutput=file:{HEARD}",
              "mosquitto_sub", "-h", "127.0.0.1", "-q", "1", "-t", "vigia/v1/+/events")  # fmt: skip
    yield
    agent.shell(f"systemctl stop heard; rm -f {HEARD}")


def hang(agent: Container, place: str) -> int:
    """Start the service so that one thread of it will hang; its process."""
    with dropin(agent, f"[Service]\nEnvironment=VIGIA_STALLPOINT={place}\n"):
        agent.run("systemctl", "restart", "vigia-agent")
    return pid(agent)


def told(agent: Container, kind: str, stage: str, within_s: float) -> dict:
    """The event about a stage that reached the broker."""
    agent.until(f'grep \'"kind":"{kind}"\' {HEARD} | grep -qF \'"stage":"{stage}"\'', within_s)
    events = [json.loads(line) for line in agent.shell(f"cat {HEARD}").splitlines()]
    return next(e for e in events if e["kind"] == kind and e["data"]["stage"] == stage)


def reported(agent: Container, stage: str) -> float:
    """When the journal was told of the stall, in seconds since the boot."""
    lines = agent.shell("journalctl -u vigia-agent -n 300 -o json").splitlines()
    entries = [json.loads(line) for line in lines]
    stamp = max(int(e["__MONOTONIC_TIMESTAMP"]) for e in entries
                if f"{stage} has made no progress" in str(e["MESSAGE"]))  # fmt: skip
    return stamp / 1e6


def check_report(log: Record, event: dict) -> None:
    data = event["data"]
    log.holds(
        f"the stall is one event at the broker, within {LIMIT_S:g} s and a look",
        LIMIT_S <= data["age_s"] < LIMIT_S + LOOK_S,
        f"{event['what']}",
    )
    hung = [name for name, calls in data["stacks"].items() if "stallpoint.py" in " ".join(calls)]
    log.holds("with the thread that hangs, and where", len(hung) == 1,
              f"{hung[0]}: {data['stacks'][hung[0]][-1]}")  # fmt: skip
    parts = {"ages_s", "cameras", "queues", "engines"}
    log.holds("with ages, cameras, queues and engines", parts <= set(data))


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize(
    ("place", "stage"), [("loop:3", "event loop"), ("publish:60", "publisher")]
)
def test_stage_that_cannot_be_begun_anew_ends_the_process_and_the_service_is_back(
    agent: Container, log: Record, place: str, stage: str
):
    was = hang(agent, place)
    event = told(agent, "stall", stage, LIMIT_S + BACK_S)
    check_report(log, event)
    agent.until(another(was), EXIT_AFTER_S + BACK_S)
    served_s = serves(agent)
    now = time.clock_gettime(time.CLOCK_MONOTONIC)
    report = reported(agent, stage)
    hung = report - event["data"]["age_s"]
    log.holds("systemd saw exit code 70", "status=70" in agent.journal(lines=400))
    again_s = since_boot_s(agent, "InactiveExit") - report
    log.figure("started again after the report, RestartSec=1 among it", f"{again_s:.1f} s")
    back_s = now - hung
    log.holds(
        f"detections again within {BACK_S:g} s of the hang", back_s < BACK_S, f"{back_s:.1f} s"
    )
    log.figure("the same after the report", f"{now - report:.1f} s")
    ready = since_boot_s(agent, "ActiveEnter")
    log.figure("READY=1 after the report", f"{ready - report:.1f} s")
    log.figure("READY=1 after the moment of the hang", f"{ready - hung:.1f} s")
    log.figure("first detection that the test waited for", f"{served_s:.1f} s after it asked")


@pytest.mark.usefixtures("heard")
def test_engine_that_hangs_is_begun_anew_and_the_process_goes_on(agent: Container, log: Record):
    was = hang(agent, "infer:60")
    event = told(agent, "stall", "model main", LIMIT_S + BACK_S)
    check_report(log, event)
    recovery = told(agent, "recovery", "model main", BACK_S)
    log.holds("the engine is given up and begun anew", recovery["data"]["action"] == "stage",
              recovery["what"])  # fmt: skip
    serves(agent)
    back_s = time.clock_gettime(time.CLOCK_MONOTONIC) - reported(agent, "model main")
    log.holds(
        f"detections again within {BACK_S:g} s of the report", back_s < BACK_S, f"{back_s:.1f} s"
    )
    log.holds("the same process, still active", pid(agent) == was, was)
    log.holds("no restart", agent.show("NRestarts") == "0")
    agent.run("systemctl", "restart", "vigia-agent")
