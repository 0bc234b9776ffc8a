"""What systemd does with the service: reload, restart, watchdog, stop, rest."""

from __future__ import annotations

import time

from tests.system.container import Container
from tests.system.device import (
    BACK_S,
    GROUP,
    READY_S,
    another,
    dropin,
    pid,
    serves,
    since_boot_s,
)
from tests.system.record import Record

STOP_S = 5.0
WATCHDOG_S = 4
RELOAD_S = 10.0
RESTART_CODE = 75
RUN = "/opt/vigia/current/bin/vigia run --config /etc/vigia/agent.yaml"


def reload(agent: Container, told: str) -> float:
    """Reload until the journal says this, and the service is active again; the seconds it took."""
    since = f"@{time.time():.3f}"
    began = time.monotonic()
    agent.run("systemctl", "reload", "vigia-agent")
    agent.until(
        f"journalctl -u vigia-agent --since={since} -o cat | grep -q '{told}' && "
        "[ $(systemctl show -P ActiveState vigia-agent) = active ]",
        RELOAD_S,
    )
    return time.monotonic() - began


def test_reload_goes_on_with_the_same_process(agent: Container, log: Record):
    was, restarts = pid(agent), agent.show("NRestarts")
    agent.shell("sed -i 's/confidence: 0.4/confidence: 0.3/' /etc/vigia/agent.yaml")
    try:
        took_s = reload(agent, "settings came into force")
        log.holds("the new configuration is in force, active again", True, f"{took_s:.1f} s")
        log.holds("detections go on", serves(agent) < READY_S)
        same = pid(agent) == was and agent.show("NRestarts") == restarts
        log.holds("the same process", same, was)
    finally:
        agent.shell("sed -i 's/confidence: 0.3/confidence: 0.4/' /etc/vigia/agent.yaml")
        reload(agent, "settings came into force")


def test_configuration_that_cannot_be_used_is_not_taken_by_a_reload(agent: Container, log: Record):
    was = pid(agent)
    agent.shell(
        "cp -p /etc/vigia/agent.yaml /root/good.yaml; echo 'camras: {}' >>/etc/vigia/agent.yaml"
    )
    try:
        took_s = reload(agent, "the configuration is not taken: .*camras")
        log.holds("refused, the mistake is named in the journal", True, f"{took_s:.1f} s")
    finally:
        agent.shell("cp -p /root/good.yaml /etc/vigia/agent.yaml; systemctl reload vigia-agent")
    log.holds("the same process serves on", pid(agent) == was and serves(agent) < READY_S)


def test_killed_process_is_back_soon(agent: Container, log: Record):
    was = pid(agent)
    agent.shell(f"kill -9 {was}")
    killed = time.clock_gettime(time.CLOCK_MONOTONIC)
    agent.until(another(was), BACK_S)
    back_s = since_boot_s(agent, "ActiveEnter") - killed
    log.holds(f"READY=1 again within {BACK_S:g} s of SIGKILL", back_s < BACK_S, f"{back_s:.1f} s")
    log.holds("counted as a restart", int(agent.show("NRestarts")) >= 1, agent.show("NRestarts"))
    log.holds("detections again", serves(agent) < READY_S)


def test_process_that_hangs_is_killed_by_the_watchdog_and_tells_its_stacks(
    agent: Container, log: Record
):
    log.holds("WatchdogSec= as installed", agent.show("WatchdogUSec") == "30s", "30 s")
    with dropin(agent, f"[Service]\nWatchdogSec={WATCHDOG_S}\n"):
        agent.run("systemctl", "restart", "vigia-agent")
        was = pid(agent)
        agent.shell(f"kill -STOP {was}")
        stopped = time.clock_gettime(time.CLOCK_MONOTONIC)
        agent.until(another(was), WATCHDOG_S + BACK_S)
        back_s = since_boot_s(agent, "ActiveEnter") - stopped
    log.holds(
        f"READY=1 again within {BACK_S:g} s after the watchdog's {WATCHDOG_S} s",
        back_s < WATCHDOG_S + BACK_S,
        f"{back_s:.1f} s after SIGSTOP",
    )
    journal = agent.journal(lines=400)
    log.holds("the watchdog killed it", "Watchdog timeout" in journal)
    log.holds("the stack of every thread is in the journal", "most recent call first" in journal)
    log.holds("detections again", serves(agent) < READY_S)


def test_exit_code_of_a_wanted_restart_is_no_failure(agent: Container, log: Record):
    """The process ends as it does when an operator's command asks for a restart, once."""
    mark = "/var/lib/vigia/asked"
    agent.shell(f"rm -f {mark}")
    script = f"test -e {mark} && exec {RUN}; touch {mark}; exit {RESTART_CODE}"
    with dropin(agent, f'[Service]\nType=exec\nExecStart=\nExecStart=/bin/sh -c "{script}"\n'):
        agent.shell("systemctl reset-failed vigia-agent; systemctl restart vigia-agent || true")
        back_s = agent.until(f"systemctl is-active vigia-agent && test -e {mark}", BACK_S)
        agent.until("[ $(systemctl show -P NRestarts vigia-agent) = 1 ]", BACK_S)
        served_s = serves(agent)
        log.holds("started again", agent.show("NRestarts") == "1", f"{back_s + served_s:.1f} s")
        log.holds("no failure", agent.show("Result") == "success", agent.show("Result"))
    agent.shell(f"rm {mark}; systemctl reset-failed vigia-agent; systemctl restart vigia-agent")


def test_groups_are_made_again_at_every_start(agent: Container, log: Record):
    log.holds("its part of the tree is its own", agent.show("Delegate") == "yes")
    agent.run("systemctl", "restart", "vigia-agent")
    place = agent.shell(f"grep ^0:: /proc/{pid(agent)}/cgroup").strip()
    log.holds("after a restart the agent sits in `main`", place.endswith("agent.service/main"))
    agent.shell(f"test -f {GROUP}/build/cgroup.procs")
    log.holds("beside `build`", True)
    offered = set(agent.shell(f"cat {GROUP}/cgroup.controllers").split())
    passed_on = set(agent.shell(f"cat {GROUP}/cgroup.subtree_control").split())
    wanted = {"cpu", "io", "memory", "pids"}
    if offered & wanted:
        log.holds("every controller that is offered is passed on", passed_on == offered & wanted,
                  " ".join(sorted(passed_on)))  # fmt: skip
    else:
        log.left_out(
            "controllers passed on to both",
            "this kernel gives them to version 1 of control groups, so the container has "
            f"{' '.join(sorted(offered)) or 'none'}",
        )


def test_stop_is_clean_and_in_time(agent: Container, log: Record):
    began = time.monotonic()
    agent.run("systemctl", "stop", "vigia-agent")
    took_s = time.monotonic() - began
    log.holds(f"stopped within {STOP_S:g} s (systemd would wait 15)", took_s < STOP_S,
              f"{took_s:.1f} s")  # fmt: skip
    log.holds("without a failure", agent.show("Result") == "success")
    log.holds("inactive", agent.show("ActiveState") == "inactive")
    # No plaintext can be left: the folder in memory is gone, and so is everybody of that user.
    log.holds("/run/vigia is gone", agent.shell("ls -d /run/vigia 2>/dev/null || true") == "")
    left = agent.shell("find /proc -maxdepth 1 -user vigia 2>/dev/null || true")
    log.holds("no process of its user is left", left == "")
    log.holds("no control group is left", agent.shell(f"ls -d {GROUP} 2>/dev/null || true") == "")
    done = agent.run("/usr/local/bin/vigia", "service", "status", check=False)
    log.holds("vigia service status: exit code 3", done.returncode == 3, done.returncode)
    done = agent.run("/usr/local/bin/vigia", "status", "-c", "/etc/vigia/agent.yaml", check=False)
    log.holds("vigia status: exit code 3", done.returncode == 3, done.stdout.splitlines()[-1][:80])
    agent.run("systemctl", "start", "vigia-agent")
    ready_s = since_boot_s(agent, "ActiveEnter") - since_boot_s(agent, "InactiveExit")
    log.holds("started again", serves(agent) < READY_S, f"READY=1 after {ready_s:.2f} s")


def test_what_fails_again_and_again_rests_and_a_stop_ends_the_rest(agent: Container, log: Record):
    failing = "[Service]\nType=exec\nExecStart=\nExecStart=/bin/false\nRestartSec=50ms\n"
    try:
        with dropin(agent, failing):
            agent.shell("systemctl restart vigia-agent || true")
            agent.until(
                "systemctl is-failed vigia-agent && systemctl is-active vigia-agent-rest.timer",
                BACK_S,
            )
            restarts = int(agent.show("NRestarts"))
            log.holds("given up after eight starts, then it rests", restarts <= 8, restarts)
            agent.run("systemctl", "stop", "vigia-agent")
            state = agent.show("ActiveState", "vigia-agent-rest.timer")
            log.holds("a stop by hand ends the rest", state == "inactive", state)
    finally:
        agent.shell("systemctl stop vigia-agent-rest.timer")
    # What the timer starts, without its minutes.
    agent.run("systemctl", "start", "vigia-agent-rest.service")
    back_s = agent.until("systemctl is-active vigia-agent", READY_S)
    log.holds("what the rest's timer starts brings it back", back_s < READY_S, f"{back_s:.1f} s")
    agent.run("systemctl", "reset-failed", "vigia-agent")
