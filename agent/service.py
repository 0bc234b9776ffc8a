"""Installs, upgrades and removes the service; every step can be repeated.

An upgrade is a new environment beside the old one and a link that is switched in one step. If the
new release does not become ready, the link is switched back.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import ServiceError
from agent.servicelayout import UNIT, USER, Layout, files, ours, unit_folder

if TYPE_CHECKING:
    from agent.servicemanager import Manager

log = logging.getLogger(__name__)

GROUPS = ("video", "render")
CHECK_TIMEOUT_S = 180.0
MISTAKE = 2
"""Exit code of `vigia check` for a configuration that no run could use."""

KEPT_RELEASES = 2
"""The one that serves, and the one before it."""

FILE_MODE = 0o644
CREDENTIALS_PLACE = f"/run/credentials/{UNIT}"
MAX_SHOWN = 4000


@dataclass(slots=True)
class Report:
    """What was done, for people.

    Attributes:
        lines: one each.
        started: the service runs with this release.
    """

    lines: list[str] = field(default_factory=list)
    started: bool = False


def install(
    manager: Manager,
    layout: Layout,
    *,
    config: Path | None = None,
    start: bool = True,
    check: bool = True,
    release: Path | None = None,
) -> Report:
    """Make this environment the one that serves.

    Args:
        manager: systemd.
        layout: where files go.
        config: a configuration to begin with; one that is there already stays.
        start: start, or restart, the service.
        check: try the configuration first.
        release: the environment, default: the one that runs this.

    Raises:
        ServiceError: what failed; what served before serves on.
    """
    release = release or Path(sys.prefix)
    report = Report()
    changed = _write_files(layout, files(layout, unit_folder(release)))
    report.lines.append(f"files of the service written: {len(changed)}")
    manager.create(str(layout.sysusers), str(layout.tmpfiles))
    if config is not None:
        report.lines.append(_begin_with(config, layout))
        manager.create(str(layout.sysusers), str(layout.tmpfiles))
    configured = layout.config.is_file()
    if configured and check:
        report.lines.append(_try(layout, release))
    before = layout.current.resolve() if layout.current.is_symlink() else None
    _link(layout.current, release)
    _link(layout.command, layout.current / "bin" / "vigia")
    manager.reload_units()
    manager.enable()
    if not configured:
        report.lines.append(f"write {layout.config}, then: systemctl start {UNIT}")
    elif start:
        _start(manager, layout, before, release)
        report.lines.append("the service is ready")
        report.started = True
    _prune(layout, {release.resolve(), before} - {None})
    return report


def uninstall(manager: Manager, layout: Layout, *, purge: bool = False) -> Report:
    """Remove the service.

    Args:
        manager: systemd.
        layout: where it lies.
        purge: remove configuration, state, cache and the user as well.

    Raises:
        ServiceError: something cannot be removed.
    """
    report = Report()
    manager.remove()
    try:
        for path in (*ours(layout), layout.command, layout.current):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            # An administrator's own drop-ins stay, but for --purge.
            layout.dropins.rmdir()
        _remove(layout.releases)
        for folder in (layout.prefix, layout.sysusers.parent, layout.tmpfiles.parent):
            # Others' files may lie there.
            with contextlib.suppress(OSError):
                folder.rmdir()
        if purge:
            for folder in (*layout.kept, layout.dropins):
                _remove(folder)
            manager.delete_user(USER)
    except OSError as error:
        raise ServiceError(f"cannot remove {error.filename}: {error.strerror}") from error
    manager.reload_units()
    manager.forget()
    report.lines.append("the service is removed")
    kept = [str(folder) for folder in layout.kept if folder.exists()]
    if kept:
        report.lines.append(f"kept: {', '.join(kept)}; --purge removes them too")
    return report


def _write_files(layout: Layout, wanted: dict[Path, str]) -> list[Path]:
    """Write what differs, remove what is not wanted any more; what was changed."""
    changed = []
    try:
        for path in ours(layout):
            if path not in wanted and path.exists():
                path.unlink()
                changed.append(path)
        for path, text in wanted.items():
            if not path.is_file() or path.read_text("utf-8", errors="replace") != text:
                path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                _replace(path, text.encode(), FILE_MODE)
                changed.append(path)
    except OSError as error:
        raise ServiceError(
            f"cannot write {error.filename}: {error.strerror}; run this as root"
        ) from error
    return changed


def _replace(path: Path, data: bytes, mode: int) -> None:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            # Not what the umask makes of it.
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _begin_with(config: Path, layout: Layout) -> str:
    if layout.config.exists():
        return f"{layout.config} stays as it is; {config} was not needed"
    try:
        _replace(layout.config, config.read_bytes(), 0o640)
    except OSError as error:
        raise ServiceError(f"cannot copy {config} to {layout.config}: {error.strerror}") from error
    return f"{layout.config} made of {config}"


def _try(layout: Layout, release: Path) -> str:
    """Run `vigia check` as the service's user; what it found.

    Raises:
        ServiceError: no run could use the configuration.
    """
    if CREDENTIALS_PLACE in layout.config.read_text("utf-8", errors="replace"):
        return "not checked: the configuration needs credentials that only the service is given"
    command = [str(release / "bin" / "vigia"), "check", "-c", str(layout.config)]
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": "/var/lib/vigia",
        "CACHE_DIRECTORY": "/var/cache/vigia",
        "STATE_DIRECTORY": "/var/lib/vigia",
        "NO_COLOR": "1",
    }
    try:
        done = subprocess.run(  # noqa: S603 - our own command
            command, capture_output=True, text=True, errors="replace", check=False,
            timeout=CHECK_TIMEOUT_S, env=environment, cwd="/",
            user=USER, group=USER, extra_groups=_groups(),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"`vigia check` took more than {CHECK_TIMEOUT_S:g} s"
    except OSError as error:
        raise ServiceError(f"`vigia check` cannot be run: {error.strerror}") from error
    if done.returncode == MISTAKE:
        raise ServiceError(f"{layout.config} cannot be used; mend it:\n{done.stderr[-MAX_SHOWN:]}")
    shown = done.stdout.strip()[-MAX_SHOWN:]
    return shown if done.returncode == 0 else f"{shown}\nnot all works yet; the agent tries on"


def _groups() -> list[str]:
    import grp  # noqa: PLC0415 - not on every platform that can import this

    known = {group.gr_name for group in grp.getgrall()}
    return [name for name in GROUPS if name in known]


def _link(link: Path, target: Path) -> None:
    """Make a link lead elsewhere in one step: there is no moment without it."""
    beside = link.with_name(f".{link.name}.{secrets.token_hex(4)}")
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        beside.symlink_to(target)
        beside.replace(link)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise ServiceError(f"cannot make the link {link}: {error.strerror}") from error


def _start(manager: Manager, layout: Layout, before: Path | None, release: Path) -> None:
    try:
        manager.restart()
    except ServiceError as error:
        if before is None or before == release.resolve() or not before.exists():
            raise
        _link(layout.current, before)
        _write_files(layout, files(layout, unit_folder(before)))
        manager.reload_units()
        manager.restart()
        raise ServiceError(
            f"{release} did not become ready; {before} serves again\n{error}"
        ) from error


def _prune(layout: Layout, keep: set[Path | None]) -> None:
    """Remove releases that neither serve nor served last."""
    if not layout.releases.is_dir():
        return
    for folder in layout.releases.iterdir():
        if folder.resolve() not in keep and folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)


def _remove(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder)
