"""The Debian package: installed, upgraded to the same, removed, purged. Last: it leaves nothing."""

from __future__ import annotations

import pytest

from tests.system.container import Container
from tests.system.device import CONFIG, READY_S, VIGIA, serves
from tests.system.record import Record
from tests.system.test_removed import check_nothing_left

PACKAGE = "/src/vigia-agent.deb"


@pytest.fixture(scope="module")
def packaged(machine: Container) -> Container:
    """The machine after the package's installation."""
    machine.write("/etc/vigia/agent.yaml", CONFIG)
    machine.run("dpkg", "-i", PACKAGE)
    return machine


def test_package_installs_the_service(packaged: Container, log: Record):
    architecture = packaged.shell(f"dpkg-deb -f {PACKAGE} Architecture").strip()
    size = int(packaged.shell(f"stat -c %s {PACKAGE}"))
    log.holds("one for every architecture", architecture == "all", f"{size >> 10} KiB")
    log.holds("active", packaged.show("ActiveState") == "active")
    log.holds("detections at the broker", serves(packaged) < READY_S)


def test_package_over_itself_keeps_what_is_the_users(packaged: Container, log: Record):
    packaged.shell("echo '# kept' >>/etc/vigia/agent.yaml; touch /var/lib/vigia/mark")
    packaged.run("dpkg", "-i", PACKAGE)
    packaged.shell("test -f /var/lib/vigia/mark && grep -q kept /etc/vigia/agent.yaml")
    log.holds("configuration and state stay", True)
    log.holds("active", packaged.show("ActiveState") == "active")


def test_removal_of_the_package(packaged: Container, before: set[str], log: Record):
    packaged.run("dpkg", "-r", "vigia-agent")
    packaged.shell(f"test -f /var/lib/vigia/mark && test ! -e /opt/vigia && test ! -e {VIGIA}")
    log.holds("dpkg -r keeps configuration and state, and removes the rest", True)
    packaged.run("dpkg", "-P", "vigia-agent")
    check_nothing_left(packaged, before, log)
