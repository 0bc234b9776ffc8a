"""What a board says of its heat and power: temperatures, rails, slowing down, GPU load.

Read from sysfs, so that it needs no privilege and no library; any Linux machine has some of it, a
Jetson all. What is not there is left out. `agent.doctor_host` knows the files that the doctor reads
too; here are those of the INA sensors and the GPU.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.doctor_host import GPU_NODES, HostFiles

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.doctor_host import Zone

MILLIWATTS = 1e3
MICROWATTS = 1e6

PERMILLE_TO_PERCENT = 0.1
"""The GPU's driver tells its load in thousandths."""

POWER_SENSORS = re.compile(r"^ina\d+")
"""Names in hwmon: `ina3221` up to Orin, `ina238` on Thor."""

WHOLE_BOARD = ("VDD_IN", "POM_5V_IN", "VIN")
"""Rails that all others hang on; a board without one of them (AGX) has separate rails to add up."""

UNUSED = ("", "NC")
"""Labels of channels that nothing is connected to."""

MAX_RAILS = 32
MAX_ZONES = 64
"""Far above any board's; a broken driver must not fill messages."""

WATTS_DIGITS = 3
CELSIUS_DIGITS = 2


@dataclass(frozen=True, slots=True)
class Readings:
    """One look.

    Attributes:
        zones: temperatures, each with where slowing down begins, if that is told.
        capping: cooling devices that slow something down now.
        overcurrent: how often each over-current alarm slowed the board down since it was started.
        hot_events: how often the processor slowed itself down for heat since it was started.
        rails: power by rail, watts.
        power_mode: name of nvpmodel's mode, or empty.
        gpu_percent: how busy the GPU is.
        gpu_mhz: its clock.
    """

    zones: tuple[Zone, ...] = ()
    capping: tuple[str, ...] = ()
    overcurrent: dict[str, int] = field(default_factory=dict)
    hot_events: int = 0
    rails: dict[str, float] = field(default_factory=dict)
    power_mode: str = ""
    gpu_percent: float | None = None
    gpu_mhz: float | None = None

    @property
    def total_w(self) -> float | None:
        """Power of the whole board, as far as its rails tell; None without any."""
        whole = next((self.rails[name] for name in WHOLE_BOARD if name in self.rails), None)
        if whole is not None or not self.rails:
            return whole
        return sum(self.rails.values())

    def tightest(self, limit_c: float) -> tuple[Zone, float] | None:
        """The zone nearest to where slowing down begins, and how far it is from there in kelvin.

        Args:
            limit_c: where it begins, used only if no zone's trip point says so.
        """
        told = [(zone, zone.passive - zone.celsius) for zone in self.zones if zone.passive]
        found = told or [(zone, limit_c - zone.celsius) for zone in self.zones]
        return min(found, key=lambda pair: pair[1], default=None)

    def as_dict(self) -> dict[str, object]:
        """For telemetry's `host`: `thermal`, `power`, `throttle`, `gpu`; what is not known is out.

        `temperature_max_c` is told too, of the same sensors.
        """
        told: dict[str, object] = {}
        if self.zones:
            told["thermal"] = {z.name: round(z.celsius, CELSIUS_DIGITS) for z in self.zones}
            told["temperature_max_c"] = round(max(z.celsius for z in self.zones), CELSIUS_DIGITS)
        power: dict[str, object] = {"mode": self.power_mode} if self.power_mode else {}
        if self.total_w is not None:
            power["rails_w"] = {n: round(w, WATTS_DIGITS) for n, w in self.rails.items()}
            power["total_w"] = round(self.total_w, WATTS_DIGITS)
        if power:
            told["power"] = power
        told["throttle"] = {
            "now": list(self.capping),
            "overcurrent": dict(self.overcurrent),
            "hot_events": self.hot_events,
        }
        gpu = {"load_percent": self.gpu_percent, "mhz": self.gpu_mhz}
        gpu = {name: value for name, value in gpu.items() if value is not None}
        if gpu:
            told["gpu"] = gpu
        return told


class BoardFiles(HostFiles):
    """Reads a board's sensors.

    Args:
        root: "/", or a folder with the files of another machine.
    """

    def look(self) -> Readings:
        """Look once; never raises for what is missing or unreadable."""
        clock = next(iter(self._gpu_clocks()), None)
        return Readings(
            zones=tuple(_distinct(self._zones())),
            capping=tuple(self._capping()),
            overcurrent=self._overcurrent(),
            hot_events=int(
                self._number("sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count")
                or 0
            ),
            rails=dict(list(self._rails())[:MAX_RAILS]),
            power_mode=self._power_mode()[0],
            gpu_percent=self._gpu_percent(),
            gpu_mhz=None if clock is None else clock.now,
        )

    def _rails(self) -> Iterator[tuple[str, float]]:
        for folder in self._folders("sys/class/hwmon/hwmon*"):
            if POWER_SENSORS.match(self._text(folder / "name").strip()):
                yield from self._channels(folder)
        # Up to JetPack 4 the same sensor was an industrial I/O device.
        for folder in self._folders("sys/bus/i2c/drivers/ina3221x/*/iio:device*"):
            for place in self._folders(f"{folder.relative_to(self._root)}/rail_name_*"):
                number = place.name.removeprefix("rail_name_")
                watts = self._scaled(folder / f"in_power{number}_input", MILLIWATTS)
                label = self._text(place).strip()
                if watts is not None and label not in UNUSED:
                    yield label, watts

    def _channels(self, folder: Path) -> Iterator[tuple[str, float]]:
        # INA238 and its like compute the power themselves and have one channel.
        watts = self._scaled(folder / "power1_input", MICROWATTS)
        if watts is not None:
            label = self._text(folder / "power1_label").strip()
            yield (
                label or self._text(folder / "device/of_node/label").strip("\0 \n") or "VIN",
                watts,
            )
            return
        # `curr4` of an INA3221 is the sum of others and has no voltage; channels without both
        # are left out.
        for place in self._folders(f"{folder.relative_to(self._root)}/in*_label"):
            number = place.name.removeprefix("in").removesuffix("_label")
            volts = self._scaled(folder / f"in{number}_input", MILLIWATTS)
            amperes = self._scaled(folder / f"curr{number}_input", MILLIWATTS)
            label = self._text(place).strip()
            if volts is not None and amperes is not None and label not in UNUSED:
                yield label, volts * amperes

    def _gpu_percent(self) -> float | None:
        for folder in self._folders("sys/class/devfreq/*"):
            if GPU_NODES.search(folder.name):
                load = self._number(folder / "device/load")
                if load is not None:
                    return round(load * PERMILLE_TO_PERCENT, 1)
        return None


def _distinct(zones: Iterator[Zone]) -> Iterator[Zone]:
    """The hottest of each name: PCs have several zones with the same one."""
    hottest: dict[str, Zone] = {}
    for zone in zones:
        name = zone.name or "zone"
        if name not in hottest or zone.celsius > hottest[name].celsius:
            hottest[name] = zone
    yield from list(hottest.values())[:MAX_ZONES]
