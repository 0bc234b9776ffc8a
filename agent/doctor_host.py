"""What the machine says of its own speed: power mode, clocks, temperatures, load, memory.

Everything is read from files below /proc, /sys, /etc and /var; what is not there is left out, since
no two boards have the same ones. Which file a value is from stands beside it.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

KHZ_PER_MHZ = 1e3
HZ_PER_MHZ = 1e6
MILLI = 1e3

MAX_CELSIUS = 150.0
"""No chip works above it: such a reading, or such a limit, is none."""

MIN_TRIP_CELSIUS = 40.0
"""No board slows itself down on a summer's day: such a limit is a placeholder."""

BYTES_PER_KB = 1024

GPU_NODES = re.compile(r"(^|\.)(gpu|gpu-gpc-0|gp10b|gv11b|ga10b)$")
"""Names of the GPU's folder in /sys/class/devfreq: of JetPack 6, of Thor, and of the chips in
JetPack 5 and before."""

CAPPING = re.compile(r"^(Processor|(thermal-)?cpufreq.*|.*-throttle-alert|hot-surface-alert)$")
"""Types of cooling devices that cool by slowing down; fans are none of them."""

HERTZ = re.compile(r"\d{1,12}", re.ASCII)
"""A frequency in Hz."""

NO_LIMIT_BYTES = 2**60
"""A memory limit above this is version 1's way to say that there is none."""


@dataclass(frozen=True, slots=True)
class Clock:
    """One clock, in MHz; None for what the system does not tell.

    Attributes:
        name: "cpu" and the policy's number, or "gpu".
        governor: who chooses the frequency.
        driver: whose governor it is; "powersave" is the ordinary one in Intel's and AMD's own.
        now: at present.
        low: least that may be chosen.
        high: most that may be chosen.
        most: most that the hardware can do.
    """

    name: str
    governor: str
    driver: str = ""
    now: float | None = None
    low: float | None = None
    high: float | None = None
    most: float | None = None


@dataclass(frozen=True, slots=True)
class Zone:
    """One temperature in degrees Celsius, and where slowing down begins, if that is told."""

    name: str
    celsius: float
    passive: float | None


@dataclass(frozen=True, slots=True)
class Host:
    """Everything that was found.

    Attributes:
        board: a Jetson's, Raspberry's ... name from the device tree, or empty.
        l4t: version of NVIDIA's system, like "36.4.3", or empty.
        cpu: the processor's name.
        features: its instruction sets by the names of /proc/cpuinfo.
        cores: switched on.
        possible_cores: cores that the board has.
        affinity: cores this process may use.
        quota: processor time of this control group, in cores; None for no limit.
        clocks: of processor and GPU.
        zones: temperatures.
        capping: cooling devices that slow something down now.
        power_mode: name of nvpmodel's mode, or empty.
        power_modes: numbers of all modes of this board by their names, in nvpmodel's order.
        overcurrent: how often each over-current alarm slowed a Jetson down since it was started.
        hot_events: how often the processor slowed itself down for heat since it was started.
        load: mean number of running processes in the last minute.
        cpu_pressure: share of the last ten seconds in which somebody waited for a core, 0..1.
        memory_pressure: likewise for memory.
        memory_total: bytes; of the control group, if it has less.
        memory_available: bytes.
        swap_used: bytes.
    """

    board: str = ""
    l4t: str = ""
    cpu: str = ""
    features: frozenset[str] = frozenset()
    cores: int = 1
    possible_cores: int = 1
    affinity: int = 1
    quota: float | None = None
    clocks: tuple[Clock, ...] = ()
    zones: tuple[Zone, ...] = ()
    capping: tuple[str, ...] = ()
    power_mode: str = ""
    power_modes: dict[str, int] = field(default_factory=dict)
    overcurrent: dict[str, int] = field(default_factory=dict)
    hot_events: int = 0
    load: float = 0.0
    cpu_pressure: float | None = None
    memory_pressure: float | None = None
    memory_total: int = 0
    memory_available: int = 0
    swap_used: int = 0

    @property
    def jetson(self) -> bool:
        """Whether this is one of NVIDIA's boards."""
        return bool(self.l4t or self.power_modes)

    def summary(self) -> dict[str, object]:
        """What measurements depend on, for JSON."""
        return {
            "board": self.board or None,
            "l4t": self.l4t or None,
            "cpu": self.cpu,
            "cores": self.affinity,
            "quota": self.quota,
            "power_mode": self.power_mode or None,
            "governors": sorted({clock.governor for clock in self.clocks if clock.governor}),
            "clocks_mhz": {c.name: {"now": c.now, "most": c.most} for c in self.clocks},
            "celsius_max": max((zone.celsius for zone in self.zones), default=None),
            "throttled": list(self.capping),
            "load": self.load,
        }


class HostFiles:
    """Reads a machine's files.

    Args:
        root: "/", or a folder with the files of another machine.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._here = root == Path("/")

    def read(self) -> Host:
        """Look once; never raises for what is missing or unreadable."""
        features, cpu = self._cpuinfo()
        cores = _count(self._text("sys/devices/system/cpu/online")) or os.cpu_count() or 1
        mode, modes = self._power_mode()
        memory = self._meminfo()
        return Host(
            board=self._text("proc/device-tree/model").strip("\0 \n"),
            l4t=self._l4t(),
            cpu=cpu,
            features=features,
            cores=cores,
            possible_cores=_count(self._text("sys/devices/system/cpu/present")) or cores,
            affinity=len(os.sched_getaffinity(0)) if self._here else cores,
            quota=self._quota(),
            clocks=(*self._cpu_clocks(), *self._gpu_clocks()),
            zones=tuple(self._zones()),
            capping=tuple(self._capping()),
            power_mode=mode,
            power_modes=modes,
            overcurrent=self._overcurrent(),
            hot_events=int(
                self._number("sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count")
                or 0
            ),
            load=self._load(),
            cpu_pressure=self._pressure("cpu"),
            memory_pressure=self._pressure("memory"),
            memory_total=memory["MemTotal"],
            memory_available=memory["MemAvailable"],
            swap_used=max(0, memory["SwapTotal"] - memory["SwapFree"]),
        )

    def _text(self, name: str | Path) -> str:
        try:
            return (self._root / name).read_text("utf-8", "replace")
        # A path made of a file's content may be none.
        except (OSError, ValueError):
            return ""

    def _number(self, name: str | Path) -> float | None:
        try:
            value = float(self._text(name))
        except ValueError:
            return None
        return value if math.isfinite(value) else None

    def _folders(self, pattern: str) -> Iterator[Path]:
        try:
            yield from sorted(self._root.glob(pattern))
        except OSError:
            return

    def _l4t(self) -> str:
        """First line of /etc/nv_tegra_release: "# R36 (release), REVISION: 4.3, GCID: ..."."""
        found = re.search(
            r"R(\d+) \(release\), REVISION: ([\d.]+)", self._text("etc/nv_tegra_release")
        )
        return f"{found[1]}.{found[2]}" if found else ""

    def _cpuinfo(self) -> tuple[frozenset[str], str]:
        text = self._text("proc/cpuinfo")
        flags = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.MULTILINE)
        name = re.search(r"^(?:model name|Model)\s*:\s*(.*)$", text, re.MULTILINE)
        machine = os.uname().machine if self._here else ""
        return frozenset(flags[1].split() if flags else ()), name[1].strip() if name else machine

    def _quota(self) -> float | None:
        """Control groups: `cpu.max` of version 2, `cpu.cfs_*` of version 1, here and above."""
        least: float | None = None
        for line in self._text("proc/self/cgroup").splitlines():
            number, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            place = Path(path.lstrip("/"))
            for folder in (place, *place.parents):
                if number == "0":
                    limit = self._text(Path("sys/fs/cgroup") / folder / "cpu.max").split()
                elif "cpu" in controllers.split(","):
                    base = Path("sys/fs/cgroup/cpu") / folder
                    names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
                    limit = [self._text(base / name).strip() for name in names]
                else:
                    break
                if all(re.fullmatch(r"\d+", part) for part in limit) and len(limit) == 2:  # noqa: PLR2004 - quota and period
                    cores = int(limit[0]) / max(1, int(limit[1]))
                    least = cores if least is None else min(least, cores)
        return least

    def _cpu_clocks(self) -> Iterator[Clock]:
        for folder in self._folders("sys/devices/system/cpu/cpufreq/policy*"):
            yield Clock(
                name=folder.name.replace("policy", "cpu"),
                governor=self._text(folder / "scaling_governor").strip(),
                driver=self._text(folder / "scaling_driver").strip(),
                now=self._scaled(folder / "scaling_cur_freq", KHZ_PER_MHZ),
                low=self._scaled(folder / "scaling_min_freq", KHZ_PER_MHZ),
                high=self._scaled(folder / "scaling_max_freq", KHZ_PER_MHZ),
                most=self._scaled(folder / "cpuinfo_max_freq", KHZ_PER_MHZ),
            )

    def _gpu_clocks(self) -> Iterator[Clock]:
        for folder in self._folders("sys/class/devfreq/*"):
            if not GPU_NODES.search(folder.name):
                continue
            steps = self._text(folder / "available_frequencies").split()
            yield Clock(
                name="gpu",
                governor=self._text(folder / "governor").strip(),
                now=self._scaled(folder / "cur_freq", HZ_PER_MHZ),
                low=self._scaled(folder / "min_freq", HZ_PER_MHZ),
                high=self._scaled(folder / "max_freq", HZ_PER_MHZ),
                most=max((int(n) / HZ_PER_MHZ for n in steps if HERTZ.fullmatch(n)), default=None),
            )

    def _scaled(self, name: Path, unit: float) -> float | None:
        value = self._number(name)
        return None if value is None else value / unit

    def _zones(self) -> Iterator[Zone]:
        for folder in self._folders("sys/class/thermal/thermal_zone*"):
            value = self._number(folder / "temp")
            # Jetsons give a sensor that is switched off a value far below freezing; a broken one,
            # or one whose bus does not answer, is often read as thousands of degrees.
            if value is None or not 0 < value <= MAX_CELSIUS * MILLI:
                continue
            passive = [
                self._number(kind.with_name(kind.name.replace("_type", "_temp")))
                for kind in folder.glob("trip_point_*_type")
                if self._text(kind).strip() == "passive"
            ]
            limits = [
                limit / MILLI
                for limit in passive
                if limit is not None and MIN_TRIP_CELSIUS * MILLI <= limit <= MAX_CELSIUS * MILLI
            ]
            yield Zone(
                self._text(folder / "type").strip(), value / MILLI, min(limits, default=None)
            )

    def _capping(self) -> Iterator[str]:
        for folder in self._folders("sys/class/thermal/cooling_device*"):
            kind = self._text(folder / "type").strip()
            if CAPPING.match(kind) and (self._number(folder / "cur_state") or 0) > 0:
                yield kind

    def _power_mode(self) -> tuple[str, dict[str, int]]:
        """`pmode:0002` in nvpmodel's state, and `< POWER_MODEL ID=2 NAME=15W >` in its table.

        The number says nothing by itself: the fastest mode is 0 on some boards and 2 on others.
        """
        table = re.findall(
            r"^<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>",
            self._text("etc/nvpmodel.conf"),
            re.MULTILINE,
        )
        modes = {name: int(number) for number, name in table}
        found = re.search(r"pmode:(\d+)", self._text("var/lib/nvpmodel/status"))
        if not found:
            return "", modes
        number = int(found[1])
        return next((name for name, one in modes.items() if one == number), str(number)), modes

    def _overcurrent(self) -> dict[str, int]:
        """Counters of Orin's `soctherm_oc` in hwmon: 1 under-voltage, 2 mean, 3 peak current."""
        return {
            path.name.removesuffix("_event_cnt"): int(value)
            for path in self._folders("sys/class/hwmon/hwmon*/oc*_event_cnt")
            if (value := self._number(path)) is not None
        }

    def _load(self) -> float:
        found = re.match(r"\d+\.\d+", self._text("proc/loadavg"))
        return float(found[0]) if found else 0.0

    def _pressure(self, what: str) -> float | None:
        found = re.search(r"^some avg10=(\d+\.\d+)", self._text(f"proc/pressure/{what}"))
        return float(found[1]) / 100 if found else None

    def _meminfo(self) -> dict[str, int]:
        found = dict(re.findall(r"^(\w+):\s+(\d+) kB", self._text("proc/meminfo"), re.MULTILINE))
        names = ("MemTotal", "MemAvailable", "SwapTotal", "SwapFree")
        values = {name: int(found.get(name, 0)) * BYTES_PER_KB for name in names}
        limit = self._number("sys/fs/cgroup/memory.max")
        if limit is not None and limit < min(values["MemTotal"], NO_LIMIT_BYTES):
            used = self._number("sys/fs/cgroup/memory.current") or 0
            values["MemTotal"] = int(limit)
            values["MemAvailable"] = min(values["MemAvailable"], int(limit - used))
        return values


def _count(ranges: str) -> int:
    """Number of processors in a list like "0-5,7"."""
    total = 0
    for part in ranges.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            total += max(0, int(last) - int(first)) + 1 if last.isdigit() else 1
    return total
