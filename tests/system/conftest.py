"""Where these tests can run, and the machine that they share: one boot, one life of a device."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import container
from tests.system.container import Container
from tests.system.device import CONFIG, INVENTORY, booted, install
from tests.system.record import Record

ASKED = "VIGIA_TEST_SYSTEM"
"""Set by scripts/test-system: a container is minutes of work, and not for every test run."""

LOG = "VIGIA_SYSTEM_LOG"
"""Where the log shall lie."""

ORDER = ("test_installed", "test_sandbox", "test_supervised", "test_stalls", "test_upgraded",
         "test_removed", "test_packaged")  # fmt: skip
"""A device's life: each file goes on where the one before it ended."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    why = container.missing()
    if why is None and not os.environ.get(ASKED):
        why = "run by scripts/test-system"
    ours = [item for item in items if "tests/system/" in str(item.path)]
    for item in ours:
        item.add_marker(pytest.mark.system)
        item.add_marker(pytest.mark.slow)
        item.add_marker(pytest.mark.timeout(420))
        if why is not None:
            item.add_marker(pytest.mark.skip(reason=why))
    ours.sort(key=lambda item: ORDER.index(item.path.stem))
    items[:] = [item for item in items if "tests/system/" not in str(item.path)] + ours


@pytest.fixture(scope="session")
def log(request: pytest.FixtureRequest) -> Iterator[Record]:
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    file = os.environ.get(LOG)
    log = Record(reporter.write_line, Path(file) if file else None)
    reporter.ensure_newline()
    log.head()
    yield log
    reporter.ensure_newline()
    log.foot(request.session.testsfailed)


@pytest.fixture(scope="session")
def machine(log: Record) -> Iterator[Container]:
    began = time.monotonic()
    with booted() as machine:
        version = machine.run("systemctl", "--version").stdout.splitlines()[0]
        log.line(f"{version}, booted by systemd-nspawn after {time.monotonic() - began:.1f} s")
        yield machine


@pytest.fixture(scope="session")
def before(machine: Container) -> set[str]:
    """Every file of the system before the installation."""
    machine.shell("mkdir -p /opt/belt && cp /src/conveyor/*.onnx /src/conveyor/sample.mp4 /opt/belt"
                  " && chmod -R a+rX /opt/belt")  # fmt: skip
    machine.write("/root/agent.yaml", CONFIG)
    return set(machine.shell(INVENTORY).splitlines())


@pytest.fixture(scope="session")
def agent(machine: Container, before: set[str], log: Record) -> Container:
    """The machine with the service."""
    began = time.monotonic()
    said = install(machine, "first", "--wheels", "/wheels", "--config", "/root/agent.yaml")
    log.line(f"installed from the source tree and wheels in {time.monotonic() - began:.1f} s")
    assert "the service is ready" in said
    return machine


@pytest.fixture(autouse=True)
def _told(request: pytest.FixtureRequest, agent: Container, log: Record) -> Iterator[None]:
    log.line()
    log.line(f"{request.node.path.stem}: {request.node.name.removeprefix('test_')}")
    began = time.monotonic()
    failed = request.session.testsfailed
    yield
    log.line(f"        {time.monotonic() - began:.1f} s")
    if request.session.testsfailed > failed:
        print(agent.journal(lines=200))
