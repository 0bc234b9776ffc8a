"""Is the machine as fast as it can be: cores, clocks, power mode, heat, load, memory?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.check import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.doctor_host import Clock, Host

CAPPED = 0.95
"""A highest allowed clock below this part of the hardware's is a cap."""

HOT_MARGIN_C = 5.0
"""Degrees below the point where slowing down begins from which it will soon begin."""

HOT_C = 90.0
"""Where that point is not told."""

BUSY_LOAD = 0.5
"""Processes running for each core, before the doctor itself does anything."""

BUSY_PRESSURE = 0.1
"""Share of the time in which somebody waits for a core."""

SHORT_MEMORY = 0.1
"""Share of memory that should be free."""

SWAP_USED_BYTES = 64 * 2**20
MEMORY_PRESSURE = 0.01

MB = 2**20

STEADY = 1.6
"""p95 of an inference's time to its median, on a quiet machine with fixed clocks."""

DENORMAL_RATIO = 1.4
"""A black picture takes as long as any other, unless tiny values slow the processor down."""

DYNAMIC_DRIVERS = frozenset({"intel_pstate", "amd-pstate-epp"})
"""With these the governor "powersave" is the ordinary, dynamic one."""

UNLIMITED_MODE = "MAXN"
"""Name of the mode without limits, or beginning of it: MAXN, MAXN_SUPER."""


def check_threads(host: Host, threads: int) -> Iterator[Finding]:
    """Threads beside the cores there are.

    Args:
        host: the machine.
        threads: that the engine uses.
    """
    name = "speed.threads"
    usable = min(float(host.affinity), host.quota or float("inf"))
    sound = True
    if host.quota is not None and host.quota < host.affinity:
        sound = False
        yield Finding(
            name,
            "warn",
            f"a control group gives {host.quota:g} of {host.affinity} cores: beyond it all threads "
            "stand still till the next period",
            f"raise the limit (systemd: CPUQuota=; docker: --cpus), or set models.<slot>.threads: "
            f"{max(1, int(host.quota))}",
        )
    if threads > usable + 0.5:
        sound = False
        yield Finding(
            name,
            "warn",
            f"{threads} threads share {usable:g} cores and wait for each other",
            f"set models.<slot>.threads: {max(1, int(usable))}",
        )
    elif threads * 2 <= host.affinity and threads < host.affinity:
        sound = False
        yield Finding(
            name,
            "warn",
            f"{threads} of {host.affinity} cores are used by the engine",
            "raise or remove models.<slot>.threads, if nothing else needs the others",
        )
    if host.cores < host.possible_cores:
        sound = False
        mode = f" by power mode {host.power_mode}" if host.power_mode else ""
        yield Finding(
            name,
            "warn",
            f"{host.cores} of {host.possible_cores} cores are switched on{mode}",
            "choose a power mode with all cores: nvpmodel -m" if host.jetson else "switch them on",
        )
    if sound:
        yield Finding(name, "ok", f"{threads} of {host.affinity} cores are used ({host.cpu})")


def check_power(host: Host) -> Iterator[Finding]:
    """A Jetson's power mode."""
    if not host.jetson:
        return
    name = "speed.power"
    best = next((mode for mode in host.power_modes if mode.startswith(UNLIMITED_MODE)), "")
    if not host.power_mode:
        yield Finding(name, "ok", "nvpmodel has not noted a mode; its default is in force")
    elif best and host.power_mode != best:
        yield Finding(
            name,
            "warn",
            f"power mode {host.power_mode} of {', '.join(host.power_modes)}",
            f"if cooling and supply allow it: sudo nvpmodel -m {host.power_modes[best]} ({best})",
        )
    else:
        yield Finding(name, "ok", f"power mode {host.power_mode}")


def check_clocks(host: Host) -> Iterator[Finding]:
    """Frequencies that are allowed and those that are run at."""
    name = "speed.clocks"
    if not host.clocks:
        yield Finding(name, "ok", "this system does not tell its clocks (a virtual machine?)")
        return
    capped = [clock for clock in host.clocks if _capped(clock)]
    for group in _alike(capped):
        clock = group[0]
        yield Finding(
            name,
            "warn",
            f"{_names(group)} may run at {clock.high:.0f} MHz, the hardware at {clock.most:.0f}",
            "choose a higher power mode (nvpmodel)" if host.jetson else "raise scaling_max_freq",
        )
    slow = [
        clock
        for clock in host.clocks
        if clock.governor == "powersave" and clock.driver not in DYNAMIC_DRIVERS
    ]
    if slow:
        yield Finding(
            name,
            "warn",
            f"{_names(slow)}: the governor powersave keeps them at {slow[0].low or 0:.0f} of "
            f"{slow[0].high or 0:.0f} MHz",
            "cpupower frequency-set -g schedutil, or performance",
        )
    gpu = next((clock for clock in host.clocks if clock.name == "gpu"), None)
    floating = gpu is not None and gpu.low is not None and gpu.low != gpu.high
    if host.jetson and gpu is not None and floating:
        yield Finding(
            name,
            "warn",
            f"the GPU's clock moves between {gpu.low:.0f} and {gpu.high:.0f} MHz (now "
            f"{gpu.now or 0:.0f}): short inferences often run at the lower end",
            "sudo jetson_clocks fixes it at the upper; do so before measuring, too",
        )
    if not capped and not slow and not floating:
        shown = "; ".join(
            f"{_names(group)} up to {group[0].high or 0:.0f} MHz, {group[0].governor or 'fixed'}"
            for group in _alike(list(host.clocks))
        )
        yield Finding(name, "ok", shown)


def check_heat(host: Host) -> Iterator[Finding]:
    """Heat, and current."""
    name = "speed.heat"
    sound = True
    if host.capping:
        sound = False
        yield Finding(
            name,
            "fail",
            f"it is slowed down at this moment: {', '.join(sorted(set(host.capping)))}",
            "better cooling (fan, heat sink, dust), or a lower power mode that can be held",
        )
    hot = [
        zone
        for zone in host.zones
        if zone.celsius >= (HOT_C if zone.passive is None else zone.passive - HOT_MARGIN_C)
    ]
    if hot and not host.capping:
        sound = False
        worst = max(hot, key=lambda zone: zone.celsius)
        limit = "" if worst.passive is None else f"; from {worst.passive:.0f} on it is slowed down"
        yield Finding(
            name, "warn", f"{worst.name} is at {worst.celsius:.0f} degrees{limit}", "better cooling"
        )
    alarms = {alarm: count for alarm, count in host.overcurrent.items() if count}
    if alarms:
        sound = False
        told = ", ".join(f"{alarm} {count} times" for alarm, count in sorted(alarms.items()))
        yield Finding(
            "speed.supply",
            "warn",
            f"slowed down for current or voltage since it was started: {told}",
            "a stronger supply or cable (oc1 is under-voltage, oc2 and oc3 over-current), or a "
            "lower power mode",
        )
    if host.hot_events:
        sound = False
        yield Finding(
            name,
            "warn",
            f"the processor has slowed itself down {host.hot_events} times since it was started",
            "better cooling",
        )
    if sound:
        warmest = max(host.zones, key=lambda zone: zone.celsius, default=None)
        what = (
            "this system tells no temperatures"
            if warmest is None
            else f"{warmest.celsius:.0f} degrees at the most ({warmest.name}), nothing is slowed"
        )
        yield Finding(name, "ok", what)


def check_load(host: Host) -> Iterator[Finding]:
    """What else is running."""
    share = host.load / max(1, host.affinity)
    pressure = host.cpu_pressure
    what = f"{host.load:.1f} processes run on {host.affinity} cores on average"
    if pressure is not None:
        what += f"; {pressure:.0%} of the time somebody waits for one"
    if share > BUSY_LOAD or (pressure or 0.0) > BUSY_PRESSURE:
        yield Finding(
            "speed.load",
            "warn",
            what + " (before this examination)",
            "see what else runs (top); stop it, or give the agent cores of its own "
            "(systemd: CPUAffinity=, CPUWeight=)",
        )
    else:
        yield Finding("speed.load", "ok", what)


def check_memory(host: Host) -> Iterator[Finding]:
    """Memory and swapping."""
    name = "speed.memory"
    if not host.memory_total:
        yield Finding(name, "ok", "this system does not tell its memory")
        return
    free = host.memory_available / host.memory_total
    what = f"{host.memory_available // MB} of {host.memory_total // MB} MB are free"
    if host.swap_used:
        what += f", {host.swap_used // MB} MB are swapped out"
    if free < SHORT_MEMORY or (host.memory_pressure or 0.0) > MEMORY_PRESSURE:
        yield Finding(
            name,
            "fail" if free < SHORT_MEMORY / 2 else "warn",
            what + "; what waits for memory waits for the disk",
            "fewer cameras or a smaller model; on a Jetson, do without the desktop "
            "(sudo systemctl set-default multi-user.target)",
        )
    elif host.swap_used > SWAP_USED_BYTES:
        yield Finding(name, "warn", what, "see what has been swapped out; the agent should not be")
    else:
        yield Finding(name, "ok", what)


def check_steadiness(p50_ms: float, p95_ms: float) -> Iterator[Finding]:
    """Whether inferences take about the same time each."""
    what = f"one inference takes {p50_ms:.2f} ms, p95 {p95_ms:.2f} ms"
    if p95_ms > STEADY * p50_ms:
        yield Finding(
            "speed.steadiness",
            "warn",
            f"{what}: every twentieth takes {p95_ms / p50_ms:.1f} x as long",
            "something else takes the cores, or the clocks move: see speed.load and speed.clocks",
        )
    else:
        yield Finding("speed.steadiness", "ok", what)


def check_denormals(picture_ms: float, black_ms: float) -> Iterator[Finding]:
    """Whether tiny values slow the processor down; a black picture makes most of them.

    Args:
        picture_ms: median time of an inference on a picture.
        black_ms: likewise on a black one, taken in turn.
    """
    if black_ms > DENORMAL_RATIO * picture_ms:
        yield Finding(
            "speed.denormals",
            "warn",
            f"a black picture takes {black_ms:.2f} ms, another one {picture_ms:.2f} ms: values "
            "near 0 are computed slowly",
            "set very small weights to 0 when exporting, or try another backend",
        )
    else:
        yield Finding(
            "speed.denormals",
            "ok",
            f"a black picture takes as long as any other ({black_ms:.2f} and {picture_ms:.2f} ms)",
        )


def _capped(clock: Clock) -> bool:
    return clock.high is not None and clock.most is not None and clock.high < CAPPED * clock.most


def _alike(clocks: list[Clock]) -> list[list[Clock]]:
    """Clocks with the same limits and governor together."""
    groups: dict[tuple[object, ...], list[Clock]] = {}
    for clock in clocks:
        groups.setdefault((clock.high, clock.most, clock.governor), []).append(clock)
    return list(groups.values())


def _names(clocks: list[Clock]) -> str:
    return ", ".join(clock.name for clock in clocks)
