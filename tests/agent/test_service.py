"""Installing, upgrading and removing below a root folder of the test's; systemd is a
fake that keeps what it was asked. The real one: tests/system."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import service
from agent.errors import ServiceError
from agent.servicelayout import UNIT, Layout, credentials_text, files, unit_folder
from agent.servicemanager import Manager, UnitState

ROOT = Path(__file__).parents[2]


class FakeManager(Manager):
    def __init__(self) -> None:
        self.asked: list[str] = []
        self.refuse: set[str] = set()
        self.layout: Layout | None = None

    def _run(self, command, *, check=True, timeout_s=0.0) -> str:
        self.asked.append(" ".join(command))
        if self.layout is not None and command[:2] == ["systemctl", "restart"]:
            served = str(self.layout.current.resolve())
            if served in self.refuse:
                raise ServiceError(f"{served} is not ready")
        return ""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "root")


@pytest.fixture
def manager(layout: Layout) -> FakeManager:
    manager = FakeManager()
    manager.layout = layout
    return manager


def release(layout: Layout, name: str) -> Path:
    folder = layout.releases / name
    (folder / "bin").mkdir(parents=True)
    return folder


def configure(layout: Layout, text: str = "mqtt: {}\n") -> None:
    layout.config.parent.mkdir(parents=True, exist_ok=True)
    layout.config.write_text(text)


def install(manager: FakeManager, layout: Layout, folder: Path, **options) -> service.Report:
    return service.install(manager, layout, release=folder, check=False, **options)


def test_first_installation_without_a_configuration_does_not_start(manager, layout):
    report = install(manager, layout, release(layout, "1"))
    assert not report.started
    assert not any("restart" in asked for asked in manager.asked)
    assert (layout.units / UNIT).read_text() == (ROOT / "systemd" / UNIT).read_text()
    assert layout.current.resolve().name == "1"
    assert any(str(layout.config) in line for line in report.lines)


def test_configuration_that_is_there_stays(manager, layout, tmp_path):
    configure(layout, "mine\n")
    other = tmp_path / "other.yaml"
    other.write_text("other\n")
    install(manager, layout, release(layout, "1"), config=other)
    assert layout.config.read_text() == "mine\n"


def test_configuration_to_begin_with_is_not_for_everybody(manager, layout, tmp_path):
    (layout.root / "etc/vigia").mkdir(parents=True)
    other = tmp_path / "other.yaml"
    other.write_text("other\n")
    assert install(manager, layout, release(layout, "1"), config=other).started
    assert layout.config.stat().st_mode & 0o777 == 0o640


def test_second_time_writes_nothing(manager, layout):
    one = release(layout, "1")
    install(manager, layout, one)
    stamps = {path: path.stat().st_mtime_ns for path in files(layout, unit_folder())}
    report = install(manager, layout, one)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert "files of the service written: 0" in report.lines


def test_upgrade_keeps_the_release_before_and_no_older_one(manager, layout):
    configure(layout)
    for name in ("1", "2", "3"):
        install(manager, layout, release(layout, name))
    assert {folder.name for folder in layout.releases.iterdir()} == {"2", "3"}
    assert layout.current.resolve().name == "3"


def test_release_that_does_not_start_is_undone(manager, layout):
    configure(layout)
    install(manager, layout, release(layout, "1"))
    bad = release(layout, "2")
    manager.refuse.add(str(bad.resolve()))
    with pytest.raises(ServiceError, match="1 serves again"):
        install(manager, layout, bad)
    assert layout.current.resolve().name == "1"
    assert manager.asked[-1] == f"systemctl restart {UNIT}"


def test_first_release_that_does_not_start_is_told(manager, layout):
    configure(layout)
    bad = release(layout, "1")
    manager.refuse.add(str(bad.resolve()))
    with pytest.raises(ServiceError, match="is not ready"):
        install(manager, layout, bad)


def test_jetson_gets_its_drop_in_and_loses_it_elsewhere(manager, layout):
    mark = layout.root / "etc/nv_tegra_release"
    mark.parent.mkdir(parents=True)
    mark.touch()
    one = release(layout, "1")
    install(manager, layout, one)
    assert "PrivateTmp=no" in (layout.dropins / "10-jetson.conf").read_text()
    mark.unlink()
    install(manager, layout, one)
    assert not (layout.dropins / "10-jetson.conf").exists()


def test_credentials_are_named_and_never_copied(manager, layout):
    layout.credentials.mkdir(parents=True)
    (layout.credentials / "mqtt-password").write_text("swordfish")
    install(manager, layout, release(layout, "1"))
    text = (layout.dropins / "20-credentials.conf").read_text()
    assert "LoadCredential=mqtt-password:/etc/vigia/credentials/mqtt-password" in text
    assert "swordfish" not in text


@pytest.mark.parametrize("name", ["a b", "a:b", "-x", "a%n", "a\nExecStart=x"])
def test_name_that_would_change_the_unit_is_refused(layout, name):
    layout.credentials.mkdir(parents=True)
    (layout.credentials / name).touch()
    with pytest.raises(ServiceError, match="rename it"):
        files(layout, unit_folder())


def test_each_credential_is_a_line(layout):
    assert credentials_text(["a", "b"]).count("LoadCredential=") == 2


def test_removal_leaves_what_is_the_users(manager, layout):
    configure(layout)
    install(manager, layout, release(layout, "1"))
    own = layout.dropins / "override.conf"
    own.parent.mkdir(parents=True, exist_ok=True)
    own.touch()
    report = service.uninstall(manager, layout)
    assert layout.config.exists()
    assert own.exists()
    assert not layout.prefix.exists()
    assert not (layout.units / UNIT).exists()
    assert any("--purge" in line for line in report.lines)
    assert not any("userdel" in asked for asked in manager.asked)


def test_purge_leaves_no_file(manager, layout):
    configure(layout)
    install(manager, layout, release(layout, "1"))
    service.uninstall(manager, layout, purge=True)
    assert [path for path in layout.root.rglob("*") if not path.is_dir()] == []
    assert "userdel vigia" in manager.asked


def test_removal_of_nothing_is_no_error(manager, layout):
    service.uninstall(manager, layout, purge=True)


def test_configuration_that_needs_credentials_is_left_to_the_service(manager, layout):
    configure(layout, f"x: ${{file:/run/credentials/{UNIT}/x}}\n")
    report = service.install(manager, layout, release=release(layout, "1"))
    assert any(line.startswith("not checked") for line in report.lines)


def test_missing_systemd_is_told():
    with pytest.raises(ServiceError, match="not run by systemd"):
        Manager()._run(["no-such-program-of-systemd"])


def test_failure_of_a_command_is_told_with_its_words():
    with pytest.raises(ServiceError, match="code 3: alas"):
        Manager()._run(["sh", "-c", "echo alas >&2; exit 3"])


def test_state_is_read_from_properties():
    state = UnitState({"LoadState": "loaded", "ActiveState": "reloading"})
    assert state.installed
    assert state.active
    assert not UnitState({"LoadState": "not-found", "ActiveState": "inactive"}).installed
