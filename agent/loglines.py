"""Lines of the agent's log, made readable again. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

LEVELS = ("debug", "info", "warning", "error", "critical")

KNOWN = ("timestamp", "level", "logger", "event", "exception")
"""Fields with a place of their own."""

MARK = re.compile(r"^<\d>")
"""A priority, where a log was written to a file from the journal's stream."""

LEVEL_NAME = re.compile(
    r"\[(debug|info|warning|error|critical)\s*\]|\b(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b"
)


def level_of(line: str) -> str:
    """How important a line is; of one that does not say, "info"."""
    entry = _entry(line)
    if entry is not None:
        level = str(entry.get("level", "info"))
        return level if level in LEVELS else "info"
    found = LEVEL_NAME.search(line)
    return (found[1] or found[2]).lower() if found else "info"


def wanted(line: str, least: str) -> bool:
    """Whether a line is at least so important."""
    return LEVELS.index(level_of(line)) >= LEVELS.index(least)


def readable(line: str) -> str:
    """For people: time, level, logger and event of a JSON line; any other as it is."""
    entry = _entry(line)
    if entry is None:
        return MARK.sub("", line)
    head = (
        entry.get("timestamp", ""),
        str(entry.get("level", "")).upper(),
        entry.get("logger", ""),
    )
    rest = "".join(f" {key}={value}" for key, value in entry.items() if key not in KNOWN)
    text = f"{' '.join(str(part) for part in head if part)}: {entry.get('event', '')}{rest}"
    trace = entry.get("exception")
    return f"{text}\n{trace}" if trace else text


def _entry(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(MARK.sub("", line))
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and "event" in entry else None
