"""Power mode, heat, memory and disk. Pure, but for asking how full disks are."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agent.check import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from agent.doctor_host import Host
    from agent.jetson import Readings

MB = 2**20

LOW_DISK_BYTES = 512 * MB
"""An update of a model and its engine fit."""

FULL_DISK_BYTES = 64 * MB
LOW_INODES = 1000
LOW_MEMORY_BYTES = 512 * MB

NEAR_C = 5.0
"""So near to where slowing down begins it is a matter of the next warm day."""

HOT_C = 85.0
"""Where no zone tells its limit."""

SPACE = "free space: `journalctl --vacuum-size=100M`, `vigia engine prune`, `apt clean`"
COOL = "see to heat sink, fan and sun; `governor:` does less before the board slows down"


def power(host: Host) -> Iterator[Finding]:
    """Power mode and clocks."""
    if not host.jetson:
        governors = sorted({c.governor for c in host.clocks if c.governor})
        slow = "powersave" in governors and all(
            c.driver not in ("intel_pstate", "amd-pstate-epp") for c in host.clocks
        )
        if slow:
            what = "the processor's governor is `powersave`: its lowest clock"
            yield Finding("power", "warn", what, "cpupower frequency-set -g schedutil")
        else:
            clocks = f"the processor's governor is {', '.join(governors)}" if governors else ""
            yield Finding(
                "power", "ok", clocks or "this machine has no power modes or clocks to set"
            )
        return
    if not host.power_mode:
        what = "the power mode is not known: nvpmodel has written no state"
        yield Finding("power", "warn", what, "sudo nvpmodel -q, and look for nvpmodel.service")
        return
    best = next((name for name in host.power_modes if name.startswith("MAXN")), None)
    if best is not None and host.power_mode != best:
        what = f"the mode is {host.power_mode}; the fastest is {best}"
        fix = f"if supply and cooling allow: sudo nvpmodel -m {host.power_modes[best]}"
        yield Finding("power", "warn", what, fix)
    else:
        yield Finding("power", "ok", f"mode {host.power_mode}")
    if host.possible_cores > host.cores:
        what = f"{host.cores} of {host.possible_cores} cores are on in this mode"
        yield Finding("power.cores", "warn", what, "choose a mode with all: sudo nvpmodel -q")


def heat(readings: Readings, limit_c: float = HOT_C) -> Iterator[Finding]:
    """Temperatures, and what has slowed down."""
    if readings.capping:
        what = f"is slowing down now for heat: {', '.join(readings.capping)}"
        yield Finding("thermal", "fail", what, COOL)
    tight = readings.tightest(limit_c)
    if tight is None:
        yield Finding("thermal", "ok", "this machine tells no temperatures")
    else:
        zone, room = tight
        what = f"{zone.name} has {zone.celsius:.0f} °C, {room:.0f} K below where slowing begins"
        near = room < NEAR_C
        yield Finding("thermal", "warn" if near else "ok", what, COOL if near else "")
    stopped = {name: n for name, n in readings.overcurrent.items() if n}
    if stopped:
        what = "over-current alarms since the start: "
        what += ", ".join(f"{name} {n} times" for name, n in stopped.items())
        fix = "use a supply that can give more, shorter and thicker leads, or a lower power mode"
        yield Finding("power.overcurrent", "warn", what, fix)
    if readings.hot_events:
        what = f"the processor slowed itself down {readings.hot_events} times since the start"
        yield Finding("thermal.events", "warn", what, COOL)


def memory(host: Host) -> Iterator[Finding]:
    """Memory that is left."""
    left, total = host.memory_available, host.memory_total
    what = f"{left // MB} of {total // MB} MB available"
    if total and left < LOW_MEMORY_BYTES:
        fix = "end what else runs (a desktop: `systemctl set-default multi-user.target`), add swap"
        yield Finding("memory", "warn", what, fix)
    else:
        yield Finding("memory", "ok", what)


def disks(places: Mapping[str, Path]) -> Iterator[Finding]:
    """Space, inodes and write protection.

    Args:
        places: what the agent writes, by name, like `state`.
    """
    for name, place in places.items():
        folder = next((p for p in (place, *place.parents) if p.exists()), place)
        try:
            found = os.statvfs(folder)
        except OSError as error:
            yield Finding(f"disk.{name}", "fail", f"{folder}: {error.strerror}", "see its rights")
            continue
        yield _disk(f"disk.{name}", place, found)


def _disk(name: str, place: Path, found: os.statvfs_result) -> Finding:
    free = found.f_bavail * found.f_frsize
    if not found.f_blocks:
        fix = "set a folder on a disk: updates.state_dir, spool.dir or pipeline.cache_dir"
        return Finding(name, "fail", f"{place} is on a file system that keeps no files", fix)
    what = f"{place}: {free // MB} MB free"
    if found.f_flag & os.ST_RDONLY:
        fix = "mount it writable, or look in `dmesg` whether the card is failing"
        return Finding(name, "fail", f"{place} is on a read-only file system", fix)
    if free < FULL_DISK_BYTES:
        return Finding(name, "fail", what, SPACE)
    if free < LOW_DISK_BYTES:
        return Finding(name, "warn", what, SPACE)
    if found.f_files and found.f_favail < LOW_INODES:
        what = f"{place}: {found.f_favail} files can still be made"
        return Finding(name, "warn", what, "look for folders with very many files: `du --inodes`")
    return Finding(name, "ok", what)
