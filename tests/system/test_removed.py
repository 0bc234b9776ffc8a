"""After the removal nothing is left but what is the user's; with `--purge` nothing at all."""

from __future__ import annotations

import re

from tests.system.container import Container
from tests.system.device import INVENTORY, SECOND, VIGIA, install, release
from tests.system.record import Record

# Backups and locks that useradd and userdel of the system leave.
ACCOUNTS = re.compile(r"^/etc/(passwd|group|shadow|gshadow|subuid|subgid)-$|^/etc/\.pwd\.lock$")
OTHERS = ("/var/lib/systemd", "/var/cache/ldconfig", "/var/lib/dpkg")


def test_removal_keeps_what_is_the_users(agent: Container, log: Record):
    said = agent.run(VIGIA, "service", "uninstall").stdout
    log.holds("says what it kept", "kept: " in said, said.strip().splitlines()[-1])
    agent.shell("test -f /etc/vigia/agent.yaml && test -f /var/lib/vigia/mark")
    log.holds("configuration and state are there", True)
    agent.shell("test ! -e /opt/vigia && test ! -e /usr/local/bin/vigia")
    log.holds("programs are not", True)
    gone = agent.run("systemctl", "cat", "vigia-agent", check=False).returncode != 0
    log.holds("systemd knows no unit", gone)


def test_purge_leaves_nothing(agent: Container, before: set[str], log: Record):
    said = install(agent, "first", "--package", release(SECOND), "--no-start")
    log.holds("installed again upon what was kept", "stays" in said or "written" in said)
    agent.run("/src/first/scripts/install", "--uninstall", "--purge")
    check_nothing_left(agent, before, log)


def check_nothing_left(agent: Container, before: set[str], log: Record) -> None:
    """Neither files, nor a user, nor anything that systemd remembers."""
    left = {p for p in set(agent.shell(INVENTORY).splitlines()) - before if not ACCOUNTS.match(p)}
    left = {p for p in left if not p.startswith(OTHERS)}
    log.holds(f"of {len(before)} files before the installation and those since, none is more",
              left == set(), " ".join(sorted(left)[:5]) or "0")  # fmt: skip
    log.holds("no user", agent.run("getent", "passwd", "vigia", check=False).returncode != 0)
    log.holds("no unit", agent.run("systemctl", "cat", "vigia-agent", check=False).returncode != 0)
    failed = agent.shell("systemctl --failed --no-legend --plain").strip()
    log.holds("no failed unit is remembered", "vigia" not in failed, failed or "none")
