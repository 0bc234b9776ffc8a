"""Control groups of the service: builds and trials weigh less than what serves.

systemd gives the unit its own part of the tree (`Delegate=`, systemd.resource-control(5)). In it,
two groups are made: `main` for the agent, `build` for its children that may wait. Where there is no
such right (no systemd, version 1 of control groups, another unit), nothing happens: the children's
nice value and I/O class remain. See https://docs.kernel.org/admin-guide/cgroup-v2.html.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path, PurePosixPath

log = logging.getLogger(__name__)

UNIT = "vigia-agent.service"
"""Only a group of this name is rearranged: anybody else's session is not ours to touch."""

TREE = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")

MAIN = "main"
BUILD = "build"

CONTROLLERS = ("cpu", "io", "memory", "pids")

BUILD_WEIGHT = 10
"""Of builds where both want the processor or the disk; what serves has the kernel's default 100."""


def claim(tree: Path = TREE, own: Path = OWN) -> bool:
    """Make the groups below the unit's and move this process into its own; at the start, once.

    Returns:
        Whether children can be put aside.
    """
    group = _group(own)
    if group is None or group.name != UNIT:
        return False
    unit = tree / group.relative_to("/")
    try:
        for name in (MAIN, BUILD):
            (unit / name).mkdir(exist_ok=True)
        # A group that controls its children may hold no process itself.
        _write(unit / MAIN / "cgroup.procs", "0")
    except OSError as error:
        log.info("builds get no lower weight: %s: %s", unit, error.strerror)
        return False
    for controller in CONTROLLERS:
        # Those that the kernel or the manager does not give are done without.
        with contextlib.suppress(OSError):
            _write(unit / "cgroup.subtree_control", f"+{controller}")
    for file in ("cpu.weight", "io.weight"):
        with contextlib.suppress(OSError):
            _write(unit / BUILD / file, str(BUILD_WEIGHT))
    return True


def put_aside(pid: int, tree: Path = TREE, own: Path = OWN) -> bool:
    """Move a child into the group of what may wait.

    Returns:
        Whether it is there.
    """
    group = _group(own)
    if group is None or group.name != MAIN or group.parent.name != UNIT:
        return False
    try:
        _write(tree / group.parent.relative_to("/") / BUILD / "cgroup.procs", str(pid))
    except OSError:
        return False
    return True


def _group(own: Path) -> PurePosixPath | None:
    """This process's group in version 2 of the tree, see cgroups(7)."""
    try:
        lines = own.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    return next((PurePosixPath(line[3:]) for line in lines if line.startswith("0::/")), None)


def _write(path: Path, text: str) -> None:
    # Never made: a file that is missing is a controller that is missing.
    with path.open("r+", encoding="ascii") as file:
        file.write(text)
