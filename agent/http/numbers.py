"""Parts whose values are told number by number, under the name of the part."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

if TYPE_CHECKING:
    from prometheus_client.core import Metric

MAX_NUMBERS = 200
"""Numbers of a part that are told; more would be a mistake of that part."""


def numbers(
    part: str, values: Mapping[str, Any], counted: Collection[str] = ()
) -> Iterator[Metric]:
    """A family for each number in nested values; names of lists' items become labels.

    Args:
        part: begins the names, after `vigia_`.
        values: nested; what is no number is left out.
        counted: keys of the first level that only grow: counters. All others are gauges.
    """
    families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
    with_names: set[str] = set()
    for count, (path, value) in enumerate(_leaves((part,), values)):
        if count >= MAX_NUMBERS:
            break
        *stem, last = path
        # Below the first level, keys are names of things: causes, zones, rails.
        name = "_".join(_clean(p) for p in (stem[:2] if len(stem) > 1 else path))
        labelled = len(stem) > 1
        label = ".".join([*stem[2:], last]) if labelled else ""
        key = f"vigia_{name}"
        if key not in families:
            if labelled:
                with_names.add(key)
            family = CounterMetricFamily if path[1] in counted else GaugeMetricFamily
            families[key] = family(
                key, f"{name.replace('_', ' ')}", labels=("name",) if labelled else None
            )
        elif labelled != (key in with_names):
            continue
        families[key].add_metric([label] if labelled else [], value)
    yield from families.values()


def _leaves(path: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], float]]:
    if isinstance(value, (bool, int, float)):
        yield path, float(value)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves((*path, str(key)), inner)
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            named = isinstance(inner, Mapping) and isinstance(inner.get("name"), str)
            yield from _leaves((*path, inner["name"] if named else str(number)), inner)


def _clean(text: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_]", "_", text)
