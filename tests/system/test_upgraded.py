"""Upgrades keep what is the user's; what cannot serve is undone."""

from __future__ import annotations

from tests.system.container import Container
from tests.system.device import (
    BROKEN,
    FIRST,
    READY_S,
    SECOND,
    VIGIA,
    install,
    pid,
    release,
    serves,
    since_boot_s,
    version,
)
from tests.system.record import Record


def test_upgrade_keeps_configuration_and_state(agent: Container, log: Record):
    agent.shell("echo kept >/var/lib/vigia/mark; chown vigia: /var/lib/vigia/mark; "
                "echo '# kept' >>/etc/vigia/agent.yaml")  # fmt: skip
    keep = (
        "sha256sum /etc/vigia/agent.yaml /var/lib/vigia/mark; find /var/lib/vigia -type d | sort; "
        "stat -c '%a %U:%G %n' /etc/vigia/agent.yaml /var/lib/vigia /var/lib/vigia/mark"
    )
    was = agent.shell(keep)
    log.holds("before", FIRST in version(agent), version(agent))
    install(agent, "first", "--package", release(SECOND), "--config", "/root/agent.yaml")
    log.holds("after", SECOND in version(agent), version(agent))
    log.holds("configuration and state stay, owners and modes too", agent.shell(keep) == was)
    mode = agent.shell("stat -c %a:%U:%G /etc/vigia/agent.yaml").strip()
    log.holds("root writes the configuration, the agent reads it", mode == "640:root:vigia", mode)
    kept = agent.shell("ls /opt/vigia/releases").split()
    log.holds("the release before it is kept", len(kept) == 2, f"{len(kept)} releases")
    away_s = since_boot_s(agent, "ActiveEnter") - since_boot_s(agent, "ActiveExit")
    log.holds("away for less than a start takes", away_s < READY_S, f"{away_s:.1f} s")
    log.holds("detections again", serves(agent) < READY_S)


def test_release_that_does_not_become_ready_is_undone(agent: Container, log: Record):
    done = agent.run("/src/first/scripts/install", "--package", release(BROKEN), check=False)
    log.holds("the installer fails", done.returncode == 1, f"exit code {done.returncode}")
    said = done.stderr.strip().splitlines()
    again = next((line for line in said if "serves again" in line), None)
    log.holds("and says that the one before serves", again is not None, again or said[-12:])
    log.holds("it does", SECOND in version(agent), version(agent))
    log.holds("active", agent.show("ActiveState") == "active")
    log.holds("detections again", serves(agent) < READY_S)


def test_configuration_that_cannot_be_used_leaves_what_serves(agent: Container, log: Record):
    was = pid(agent)
    agent.shell(
        "cp -p /etc/vigia/agent.yaml /root/good.yaml; echo 'camras: {}' >>/etc/vigia/agent.yaml"
    )
    done = agent.run(VIGIA, "service", "install", check=False)
    agent.shell("cp -p /root/good.yaml /etc/vigia/agent.yaml")
    log.holds("the installer fails", done.returncode == 1, f"exit code {done.returncode}")
    log.holds("and names the mistake", "camras" in done.stderr)
    log.holds("the same process serves", pid(agent) == was, was)
