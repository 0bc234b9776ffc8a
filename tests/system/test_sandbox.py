"""What the service may do, tried by a probe within the very same settings."""

from __future__ import annotations

import json
import re

import pytest

from tests.system.container import Container
from tests.system.device import GROUP, pid
from tests.system.record import Record

MUST_WORK = {"write state", "write cache", "write runtime", "lower priority", "internet socket",
             "open null device"}  # fmt: skip

NODE = "/dev/vigia-test"
FUSE = "c 10 229"
"""A device that every kernel here has, and that is on nobody's list."""

OPEN = """import sys
try:
    open(sys.argv[1], "r+b", buffering=0).close()
    print("opened")
except OSError as error:
    print(error)
"""

DEVICES = {"char-video4linux": "rw", "char-media": "rw", "char-drm": "rw", "char-nv*": "rw",
           "char-rtc": "r"}  # fmt: skip

TASKS_MAX, FILES_MAX = 512, 16384
HIGH_PART, MAX_PART = 0.75, 0.85
"""Of the machine's memory."""
PAGE = 4096
BUILD_WEIGHT, MAIN_WEIGHT = 10, 100

NO_CONTROLLER = "this kernel gives the controller {} to version 1 of control groups"


def run_in_sandbox(agent: Container, start: str, more: str = "") -> str:
    """Run something in a unit with the settings of the service; what it printed."""
    text = agent.shell("systemctl cat vigia-agent.service")
    replaced = r"^(Type|Exec\w+|Watchdog\w+|Restart\w*|OnFailure|NotifyAccess|\w*Directory\w*)=.*$"
    text = re.sub(replaced, "", text, flags=re.MULTILINE)
    folders = "".join(f"{n}Directory=vigia-probe\n" for n in ("State", "Cache", "Runtime"))
    agent.write(
        "/run/systemd/system/vigia-probe.service",
        f"{text}\n[Service]\nType=oneshot\n{folders}StandardOutput=truncate:/run/probe.out\n"
        f"{more}\nExecStart={start}\n",
    )
    agent.run("systemctl", "daemon-reload")
    try:
        agent.run("systemctl", "start", "vigia-probe")
        return agent.shell("cat /run/probe.out")
    finally:
        print(agent.journal("vigia-probe"))
        agent.shell(
            "rm -rf /run/systemd/system/vigia-probe.service /var/{lib,cache}/vigia-probe; "
            "systemctl daemon-reload; systemctl reset-failed"
        )


def test_process_has_no_privileges(agent: Container, log: Record):
    status = agent.shell(f"cat /proc/{pid(agent)}/status")
    values = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    user = int(agent.shell("id -u vigia"))
    log.holds("not root, in any respect", values["Uid"].split() == [str(user)] * 4 and user != 0,
              f"user {user}")  # fmt: skip
    held = {name: int(values[f"Cap{name}"], 16) for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")}
    log.holds("no capability, and none to be had", set(held.values()) == {0}, held)
    log.holds("no new privileges", values["NoNewPrivs"] == "1", values["NoNewPrivs"])
    log.holds("system calls are filtered", values["Seccomp"] == "2", f"Seccomp {values['Seccomp']}")
    groups = agent.shell("id -Gn vigia").split()
    log.holds("cameras and GPUs by group", {"video", "render"} <= set(groups), " ".join(groups))


def test_sandbox_blocks(agent: Container, log: Record):
    start = f"/usr/bin/python3 /src/probe.py {agent.show('MainPID', 'mosquitto')}"
    could = json.loads(run_in_sandbox(agent, start))
    for name, outcome in could.items():
        works = name in MUST_WORK
        log.holds(f"{'can' if works else 'cannot'} {name}", (outcome == "yes") is works, outcome)


def test_devices_that_are_not_listed_cannot_be_opened(agent: Container, log: Record):
    agent.shell(f"mknod -m 666 {NODE} {FUSE}")
    agent.write("/opt/belt/open.py", OPEN)
    agent.shell("chmod a+r /opt/belt/open.py")
    opens = f"/usr/bin/python3 /opt/belt/open.py {NODE}"
    user = "setpriv --reuid vigia --regid vigia --clear-groups"
    try:
        said = agent.shell(f"{user} {opens}").strip()
        log.holds("outside of the sandbox its user opens a device", said == "opened", said)
        said = run_in_sandbox(agent, opens).strip()
        log.holds("in the sandbox it cannot", "not permitted" in said, said)
        said = run_in_sandbox(agent, opens, f"DeviceAllow={NODE} rw").strip()
        log.holds("with one more DeviceAllow= it can: it is the list", said == "opened", said)
    finally:
        agent.shell(f"rm -f {NODE} /opt/belt/open.py")
    listed = dict(line.split() for line in agent.show("DeviceAllow").splitlines())
    # ProtectClock= lets the clock be read.
    log.holds("on the list: cameras and GPUs, and the clock to read", listed == DEVICES, listed)
    log.holds("and closed otherwise", agent.show("DevicePolicy") == "closed")
    majors = agent.shell("cat /proc/devices")
    for name in ("video4linux", "drm"):
        if f" {name}\n" not in majors:
            log.left_out(f"a device of char-{name} opens", "this kernel has no such driver")


def test_limits_are_set(agent: Container, log: Record):
    total = int(agent.shell("grep MemTotal /proc/meminfo").split()[1]) * 1024
    for name, part in (("MemoryHigh", HIGH_PART), ("MemoryMax", MAX_PART)):
        value = int(agent.show(name))
        figure = f"{value >> 20} of {total >> 20} MiB"
        what = f"{name}= is {part:.0%} of the machine's memory"
        log.holds(what, abs(value - part * total) <= PAGE, figure)
    log.holds("TasksMax=", int(agent.show("TasksMax")) == TASKS_MAX, TASKS_MAX)
    limits = agent.shell(f"cat /proc/{pid(agent)}/limits")
    files = re.search(r"Max open files\s+(\d+)", limits)
    log.holds("the process may open so many files", files is not None
              and int(files[1]) == FILES_MAX, files and files[1])  # fmt: skip
    core = re.search(r"Max core file size\s+(\d+)", limits)
    log.holds("no core dump, it would hold models", core is not None and core[1] == "0")
    offered = agent.shell(f"cat {GROUP}/cgroup.controllers").split()
    for controller, file, wanted in (
        ("memory", "memory.high", int(agent.show("MemoryHigh"))),
        ("memory", "memory.max", int(agent.show("MemoryMax"))),
        ("pids", "pids.max", TASKS_MAX),
    ):
        if controller in offered:
            value = int(agent.shell(f"cat {GROUP}/{file}"))
            log.holds(f"the kernel has it: {file}", abs(value - wanted) <= PAGE, value)
        else:
            log.left_out(f"the kernel has it: {file}", NO_CONTROLLER.format(controller))


def test_builds_sit_beside_the_agent_and_weigh_less(agent: Container, log: Record):
    place = agent.shell(f"grep ^0:: /proc/{pid(agent)}/cgroup").strip()
    log.holds("the agent sits in a group of its own", place.endswith("vigia-agent.service/main"),
              place)  # fmt: skip
    # As a build's child does it: from the agent's group, as its user, with its program.
    script = (
        "import os; from agent import servicegroup; assert servicegroup.put_aside(os.getpid()); "
        "print(open('/proc/self/cgroup').read())"
    )
    said = agent.shell(
        f"echo $$ >{GROUP}/main/cgroup.procs; cd /; exec setpriv --reuid vigia --regid vigia "
        f'--clear-groups /opt/vigia/current/bin/python -c "{script}"'
    )
    line = next(line for line in said.splitlines() if line.startswith("0::"))
    log.holds("its child moves to `build`", line.endswith("vigia-agent.service/build"), line)
    offered = agent.shell(f"cat {GROUP}/cgroup.controllers").split()
    if "cpu" not in offered:
        log.left_out("the build's cpu.weight is lower", NO_CONTROLLER.format("cpu"))
        return
    weights = [int(agent.shell(f"cat {GROUP}/{name}/cpu.weight")) for name in ("build", "main")]
    log.holds("its weight is a tenth", weights == [BUILD_WEIGHT, MAIN_WEIGHT], weights)


@pytest.mark.parametrize("unit", ["vigia-agent.service", "vigia-agent-rest.service"])
def test_exposure_stays_low(agent: Container, log: Record, unit: str):
    said = agent.run("systemd-analyze", "security", "--no-pager", "--threshold=25", unit).stdout
    overall = said.strip().splitlines()[-1].partition("Overall exposure level for ")[2]
    log.holds("exposure is at most 2.5 of 10", True, overall)
