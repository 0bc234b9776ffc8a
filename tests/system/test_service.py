"""The service on a real systemd: installed, supervised, upgraded, removed. The tests build on each
other in the order of the file, as a device's life does."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.container import PLACE, ROOT, Container, sources

pytestmark = pytest.mark.timeout(420)

FIRST, SECOND, BROKEN = "0.1.0", "0.1.1", "0.1.2"
READY_S = 15.0
BACK_S = 15.0
"""From the moment of a fault until the service is ready again, beside the watchdog's own time."""
STOP_S = 5.0
WATCHDOG_S = 4

CONFIG = """mqtt:
  host: 127.0.0.1
cameras:
  belt: {source: /opt/belt/sample.mp4, loop: true, realtime: true}
models:
  main: {path: /opt/belt/conveyor-n.onnx, confidence: 0.4}
"""

MUST_WORK = {"write state", "write cache", "write runtime", "lower priority", "internet socket"}

DROPIN = "/etc/systemd/system/vigia-agent.service.d/50-test.conf"

# Whatever there is; not what every running system changes by itself.
PASSED_OVER = ("proc", "sys", "run", "tmp", "var/log", "var/tmp", "root", "opt/belt")
INVENTORY = (
    rf"find / -xdev \( {' -o '.join(f'-path /{p}' for p in PASSED_OVER)} \) -prune -o -print | sort"
)


@pytest.fixture(scope="module")
def machine() -> Iterator[Container]:
    folder = PLACE / f"run-{time.time_ns()}"
    folder.mkdir(parents=True)
    source = folder / "source"
    source.mkdir()
    try:
        sources(source / "first", FIRST)
        sources(source / "second", SECOND)
        broken = sources(source / "broken", BROKEN)
        # Runs, and fails as soon as it serves: nothing that an installer could see before.
        run = broken / "agent" / "commands" / "run.py"
        run.write_text(
            run.read_text().replace(
                "    from agent import daemon",
                "    raise SystemExit(9)\n    from agent import daemon",
            )
        )
        shutil.copytree(ROOT / "examples" / "conveyor", source / "conveyor")
        shutil.copy(Path(__file__).with_name("probe.py"), source)
        machine = Container(folder / "machine", source)
        try:
            yield machine
        finally:
            print(machine.journal(lines=200))
            machine.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def before(machine: Container) -> set[str]:
    """Every file of the system before the installation."""
    machine.shell("mkdir -p /opt/belt && cp /src/conveyor/*.onnx /src/conveyor/sample.mp4 /opt/belt"
                  " && chmod -R a+rX /opt/belt")  # fmt: skip
    machine.write("/root/agent.yaml", CONFIG)
    return set(machine.shell(INVENTORY).splitlines())


@pytest.fixture(scope="module")
def agent(machine: Container, before: set[str]) -> Container:
    """The machine with the service."""
    said = install(machine, "first", "--config", "/root/agent.yaml")
    assert "the service is ready" in said
    return machine


def install(machine: Container, release: str, *options: str) -> str:
    return machine.run(f"/src/{release}/scripts/install", "--wheels", "/wheels", *options).stdout


def version(machine: Container) -> str:
    return machine.run("/usr/local/bin/vigia", "version").stdout.splitlines()[0]


def pid(machine: Container) -> int:
    return int(machine.show("MainPID"))


def another(was: int) -> str:
    """A script that succeeds once another process than this is ready."""
    same = f"[ $(systemctl show -P MainPID vigia-agent) != {was} ]"
    return f"systemctl is-active vigia-agent && {same}"


def receives(machine: Container) -> None:
    """Detections of a frame arrive at the broker."""
    topic = "vigia/v1/+/cam/belt/detections"
    said = machine.run(
        "mosquitto_sub", "-h", "127.0.0.1", "-t", topic, "-C", "1", "-W", "15"
    ).stdout
    assert json.loads(said)["cam"] == "belt"


def test_service_is_active_and_ready_soon(agent: Container):
    assert agent.show("ActiveState") == "active"
    assert agent.show("UnitFileState") == "enabled"
    assert agent.show("Type") == "notify"
    stamps = [
        int(agent.show(name))
        for name in ("InactiveExitTimestampMonotonic", "ActiveEnterTimestampMonotonic")
    ]
    ready_s = (stamps[1] - stamps[0]) / 1e6
    print(f"READY=1 after {ready_s:.2f} s")
    assert ready_s < READY_S
    # Not before the first frame was analysed: a process is not ready because it exists.
    assert ready_s > 0.1
    receives(agent)


def test_status_says_what_the_service_does(agent: Container):
    assert agent.show("StatusText")
    said = json.loads(agent.run("/usr/local/bin/vigia", "service", "status", "--json").stdout)
    assert said["ActiveState"] == "active"
    assert said["Release"].startswith("/opt/vigia/releases/")


def test_process_has_no_privileges(agent: Container):
    status = agent.shell(f"cat /proc/{pid(agent)}/status")
    values = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    user = int(agent.shell("id -u vigia"))
    assert user != 0
    assert values["Uid"].split() == [str(user)] * 4
    assert {int(values[f"Cap{name}"], 16) for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
    assert values["NoNewPrivs"] == "1"
    assert values["Seccomp"] == "2"
    groups = agent.shell("id -Gn vigia").split()
    assert {"video", "render"} <= set(groups)


def test_sandbox_blocks(agent: Container):
    """A probe in a unit with the very settings of the service, but for what it starts."""
    text = agent.shell("systemctl cat vigia-agent.service")
    replaced = r"^(Type|Exec\w+|Watchdog\w+|Restart\w*|OnFailure|NotifyAccess|\w*Directory\w*)=.*$"
    text = re.sub(replaced, "", text, flags=re.MULTILINE)
    folders = "".join(f"{n}Directory=vigia-probe\n" for n in ("State", "Cache", "Runtime"))
    agent.write(
        "/run/systemd/system/vigia-probe.service",
        f"{text}\n[Service]\nType=oneshot\n{folders}StandardOutput=truncate:/run/probe.json\n"
        f"ExecStart=/usr/bin/python3 /src/probe.py {agent.show('MainPID', 'mosquitto')}\n",
    )
    agent.run("systemctl", "daemon-reload")
    try:
        agent.run("systemctl", "start", "vigia-probe")
        could = json.loads(agent.shell("cat /run/probe.json"))
    finally:
        print(agent.journal("vigia-probe"))
        agent.shell(
            "rm -rf /run/systemd/system/vigia-probe.service /var/{lib,cache}/vigia-probe; "
            "systemctl daemon-reload; systemctl reset-failed"
        )
    print("\n".join(f"{name:24} {outcome}" for name, outcome in could.items()))
    assert {name for name, outcome in could.items() if outcome == "yes"} == MUST_WORK


def test_agent_sits_in_its_own_group_beside_that_of_builds(agent: Container):
    unit = "/system.slice/vigia-agent.service"
    assert agent.shell(f"cat /proc/{pid(agent)}/cgroup").strip().endswith(f"{unit}/main")
    agent.shell(f"test -f /sys/fs/cgroup{unit}/build/cgroup.procs")


def test_reload_goes_on_with_the_same_process(agent: Container):
    was = pid(agent)
    agent.run("systemctl", "reload", "vigia-agent")
    receives(agent)
    assert pid(agent) == was
    assert agent.show("NRestarts") == "0"


def test_killed_process_is_back_soon(agent: Container):
    was = pid(agent)
    agent.shell(f"kill -9 {was}")
    back_s = agent.until(another(was), BACK_S)
    print(f"ready again {back_s:.1f} s after SIGKILL")
    receives(agent)


def test_process_that_hangs_is_killed_by_the_watchdog_and_tells_its_stacks(agent: Container):
    assert agent.show("WatchdogUSec") == "30s"
    agent.write(DROPIN, f"[Service]\nWatchdogSec={WATCHDOG_S}\n")
    agent.shell("systemctl daemon-reload && systemctl restart vigia-agent")
    was = pid(agent)
    agent.shell(f"kill -STOP {was}")
    try:
        back_s = agent.until(another(was), WATCHDOG_S + BACK_S)
    finally:
        agent.shell(f"rm {DROPIN}; systemctl daemon-reload")
    print(f"ready again {back_s:.1f} s after SIGSTOP, the watchdog's {WATCHDOG_S} s among them")
    journal = agent.journal(lines=400)
    assert "Watchdog timeout" in journal
    assert "most recent call first" in journal
    receives(agent)


def test_stop_is_clean_and_in_time(agent: Container):
    began = time.monotonic()
    agent.run("systemctl", "stop", "vigia-agent")
    took_s = time.monotonic() - began
    print(f"stopped in {took_s:.1f} s")
    assert took_s < STOP_S
    assert agent.show("Result") == "success"
    assert agent.show("ActiveState") == "inactive"
    # No plaintext can be left: the folder in memory is gone, and so is everybody of that user.
    agent.shell("test ! -e /run/vigia")
    assert agent.shell("find /proc -maxdepth 1 -user vigia 2>/dev/null || true") == ""
    agent.run("systemctl", "start", "vigia-agent")


def test_what_fails_again_and_again_rests_and_a_stop_ends_the_rest(agent: Container):
    agent.write(DROPIN, "[Service]\nType=exec\nExecStart=\nExecStart=/bin/false\nRestartSec=50ms\n")
    agent.shell("systemctl daemon-reload; systemctl restart vigia-agent || true")
    try:
        agent.until(
            "systemctl is-failed vigia-agent && systemctl is-active vigia-agent-rest.timer", BACK_S
        )
        assert int(agent.show("NRestarts")) <= 8
        agent.run("systemctl", "stop", "vigia-agent")
        assert agent.show("ActiveState", "vigia-agent-rest.timer") == "inactive"
    finally:
        agent.shell(f"rm {DROPIN}; systemctl daemon-reload; systemctl stop vigia-agent-rest.timer")
    # What the timer starts, without its minutes.
    agent.run("systemctl", "start", "vigia-agent-rest.service")
    agent.until("systemctl is-active vigia-agent", READY_S)


def test_credentials_reach_the_service_only(agent: Container):
    agent.write("/etc/vigia/credentials/mqtt-password", "swordfish")
    said = agent.run("/usr/local/bin/vigia", "service", "install").stdout
    assert "the service is ready" in said
    place = "/run/credentials/vigia-agent.service/mqtt-password"
    user = agent.shell(
        f"nsenter -t {pid(agent)} -m setpriv --reuid vigia --regid vigia --clear-groups cat {place}"
    )
    assert user == "swordfish"
    denied = agent.run("setpriv", "--reuid", "nobody", "--clear-groups", "cat", place, check=False)
    assert denied.returncode != 0
    assert "swordfish" not in agent.shell("systemctl cat vigia-agent")
    agent.shell("rm /etc/vigia/credentials/mqtt-password; /usr/local/bin/vigia service install")
    assert "mqtt-password" not in agent.shell("systemctl cat vigia-agent")


def test_installing_again_changes_nothing(agent: Container):
    said = agent.run(
        "/usr/local/bin/vigia", "service", "install", "--config", "/root/agent.yaml"
    ).stdout
    assert "files of the service written: 0" in said
    assert "stays as it is" in said


def test_upgrade_keeps_configuration_and_state(agent: Container):
    agent.shell("echo kept >/var/lib/vigia/mark; chown vigia: /var/lib/vigia/mark; "
                "echo '# kept' >>/etc/vigia/agent.yaml")  # fmt: skip
    assert FIRST in version(agent)
    install(agent, "second", "--config", "/root/agent.yaml")
    assert SECOND in version(agent)
    assert agent.shell("cat /var/lib/vigia/mark").strip() == "kept"
    assert agent.shell("tail -1 /etc/vigia/agent.yaml").strip() == "# kept"
    assert agent.shell("stat -c %a:%U:%G /etc/vigia/agent.yaml").strip() == "640:root:vigia"
    assert len(agent.shell("ls /opt/vigia/releases").split()) == 2
    receives(agent)


def test_release_that_does_not_become_ready_is_undone(agent: Container):
    done = agent.run("/src/broken/scripts/install", "--wheels", "/wheels", check=False)
    assert done.returncode == 1
    assert "serves again" in done.stderr
    assert SECOND in version(agent)
    assert agent.show("ActiveState") == "active"
    receives(agent)


def test_configuration_that_cannot_be_used_leaves_what_serves(agent: Container):
    was = pid(agent)
    agent.shell(
        "cp -p /etc/vigia/agent.yaml /root/good.yaml; echo 'camras: {}' >>/etc/vigia/agent.yaml"
    )
    done = agent.run("/usr/local/bin/vigia", "service", "install", check=False)
    agent.shell("cp -p /root/good.yaml /etc/vigia/agent.yaml")
    assert done.returncode == 1
    assert "camras" in done.stderr
    assert pid(agent) == was


def test_removal_keeps_what_is_the_users_unless_purged(agent: Container, before: set[str]):
    said = agent.run("/usr/local/bin/vigia", "service", "uninstall").stdout
    assert "kept: " in said
    agent.shell("test -f /etc/vigia/agent.yaml && test -f /var/lib/vigia/mark")
    agent.shell("test ! -e /opt/vigia && test ! -e /usr/local/bin/vigia")
    install(agent, "second", "--no-start")
    agent.run("/usr/local/bin/vigia", "service", "uninstall", "--purge")
    accounts = re.compile(r"^/etc/(passwd|group|shadow|gshadow|subuid|subgid)-$|^/etc/\.pwd\.lock$")
    left = {p for p in set(agent.shell(INVENTORY).splitlines()) - before if not accounts.match(p)}
    assert {
        p for p in left if not p.startswith(("/var/lib/systemd", "/var/cache/ldconfig"))
    } == set()
    assert agent.run("getent", "passwd", "vigia", check=False).returncode != 0
    assert agent.run("systemctl", "cat", "vigia-agent", check=False).returncode != 0
