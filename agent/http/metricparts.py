"""Metrics of the machine, the spool and other parts, with the names, types and units they have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from agent.http.numbers import numbers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.core import Metric

    from agent.http.ports import Sources

COUNTED = {
    "broker": (
        "connects", "disconnects", "failures", "sent", "acknowledged", "refused", "too_large",
        "given_up",
    ),
    "publisher": ("published", "dropped", "withheld"),
    "spool": (
        "taken", "acknowledged", "given_up", "written", "transactions", "failures",
        "damaged_files",
    ),
    "governor": ("steps_down", "steps_up"),
    "updates": ("refused", "not_taken"),
}  # fmt: skip
"""What only grows, by part; the parts' other numbers are as they are now."""

NAMED = {
    "host": ("thermal", "temperature_max_c", "power", "throttle"),
    "spool": ("memory_messages", "memory_bytes", "disk_messages", "disk_bytes", "dropped"),
}
"""What `machine` and `spool` tell, by part."""


def parts(sources: Sources) -> Iterator[Metric]:
    """Everything of host, broker, publisher, spool, governor and updates, as far as they exist."""
    host, kept = sources.host(), sources.spool()
    yield from machine(host or {})
    if kept is not None:
        yield from spool(kept)
    found = {
        "host": host,
        "broker": sources.broker(),
        "publisher": sources.publisher(),
        "spool": kept,
        "governor": sources.governor(),
        "updates": sources.updates(),
    }
    for name, part in found.items():
        if part is not None:
            rest = {key: value for key, value in part.items() if key not in NAMED.get(name, ())}
            yield from numbers(name, rest, COUNTED.get(name, ()))


def machine(host: Mapping[str, Any]) -> Iterator[Metric]:
    """Temperatures, power and throttling."""
    heat = GaugeMetricFamily(
        "vigia_temperature_celsius", "Temperature of a zone of the board", labels=("zone",)
    )
    zones = dict(host.get("thermal") or {})
    if "temperature_max_c" in host:
        zones.setdefault("max", host["temperature_max_c"])
    for zone, celsius in zones.items():
        heat.add_metric([zone], celsius)
    power = host.get("power") or {}
    rails = GaugeMetricFamily("vigia_power_rail_watts", "Power of a rail", labels=("rail",))
    for rail, watts in (power.get("rails_w") or {}).items():
        rails.add_metric([rail], watts)
    yield from (heat, rails)
    if "total_w" in power:
        yield GaugeMetricFamily(
            "vigia_power_watts", "Power of the board, as far as it tells", value=power["total_w"]
        )
    throttle = host.get("throttle")
    if throttle is not None:
        yield GaugeMetricFamily(
            "vigia_throttled", "1 while the board slows itself down",
            value=float(bool(throttle.get("now"))),
        )  # fmt: skip
        current = CounterMetricFamily(
            "vigia_overcurrent", "Times a rail drew too much", labels=("rail",)
        )
        for rail, count in (throttle.get("overcurrent") or {}).items():
            current.add_metric([rail], count)
        yield current
        yield CounterMetricFamily(
            "vigia_hot_events", "Times the processor was too hot",
            value=throttle.get("hot_events", 0),
        )  # fmt: skip


def spool(kept: Mapping[str, Any]) -> Iterator[Metric]:
    """What waits for the broker, and what was given up."""
    messages = GaugeMetricFamily("vigia_spool_messages", "Messages kept", labels=("place",))
    size = GaugeMetricFamily("vigia_spool_bytes", "Size of what is kept", labels=("place",))
    for place in ("memory", "disk"):
        messages.add_metric([place], kept.get(f"{place}_messages", 0))
        size.add_metric([place], kept.get(f"{place}_bytes", 0))
    dropped = CounterMetricFamily(
        "vigia_spool_dropped", "Messages given up before the broker had them", labels=("cause",)
    )
    for cause, count in (kept.get("dropped") or {}).items():
        dropped.add_metric([cause], count)
    yield from (messages, size, dropped)
