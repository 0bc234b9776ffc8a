"""Which settings may come from afar, and how they lie over those of the file. Pure.

Whoever holds an operator's key must be able to add a camera or move a threshold, and must not be
able to cut a device off, to have it believe somebody else, or to read or write its files. So only
what is listed here is taken; the rest is the file's alone.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from agent.config import CameraConfig, Config
from agent.configtree import section_at
from agent.errors import ConfigError
from agent.references import has_reference
from agent.yamlfile import dotted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from agent.yamlfile import Key

SECTIONS = ("cameras", "models", "pipeline", "log", "health", "governor", "mqtt")
"""Sections of which something is taken."""

MODEL_KEYS = (
    "confidence",
    "class_confidence",
    "iou",
    "agnostic_nms",
    "classes",
    "max_detections",
    "backend",
    "precision",
    "arrangement",
    "threads",
    "batch",
)
"""Of a model slot. Not which file it is, what it means and what its engines must prove: that comes
by signed bundles, or from the file."""

PIPELINE_KEYS = ("queue_frames", "shutdown_timeout_s", "cache_max_mb")
MQTT_KEYS = ("detections",)

SOURCES = {
    "rtsp": re.compile(r"rtsps?://[^\s!]+"),
    "http": re.compile(r"https?://[^\s!]+"),
    "v4l2": re.compile(r"\d{1,3}|/dev/(video\d{1,3}|v4l/by-(id|path)/[A-Za-z0-9:.@+_-]+)"),
    "csi": re.compile(r"csi://\d{1,3}"),
    "synthetic": re.compile(r"synthetic://[^\s!]+"),
}
"""By kind. Files and folders would be any that the agent can read; GStreamer pipelines write, too.
"""

SOURCES_TEXT = (
    "from afar come only rtsp://…, http(s)://…, csi://N, a number or /dev/videoN, and "
    "synthetic://…; write files and pipelines into the device's own file"
)

REFERENCES_TEXT = (
    "${env:…} and ${file:…} are filled in only in the device's own file; write the camera there "
    "with `enabled: false`, and enable it from afar"
)

PLAIN = (str, int, float, bool, type(None))


def check(settings: Mapping[str, Any], models: Collection[str] | None = None) -> None:
    """Whether settings may come from afar.

    Args:
        settings: sections, as in the file; values are not judged.
        models: names of the slots that the device's own file has, where it is known.

    Raises:
        ConfigError: one line for every key that may not, with what to do.
    """
    problems = [f"{dotted(key)}: {what}" for key, what in _problems(settings, models)]
    if problems:
        raise ConfigError("\n".join(problems))


def overlaid(values: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a file with settings from afar over them, section by section, key by key.

    A camera that gets another source loses the file's `kind`, which was that of the old one.

    Args:
        values: of the file.
        settings: that `check` took.
    """
    merged = _merged(values, settings)
    for name, camera in settings.get("cameras", {}).items():
        if "source" in camera and "kind" not in camera:
            merged["cameras"][name].pop("kind", None)
    return merged


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        under = result.get(key)
        if isinstance(value, dict):
            result[key] = _merged(under if isinstance(under, dict) else {}, value)
        else:
            result[key] = value
    return result


def _problems(
    settings: Mapping[str, Any], models: Collection[str] | None
) -> Iterator[tuple[Key, str]]:
    for section, value in settings.items():
        key: Key = (section,)
        if section not in SECTIONS:
            yield key, _refusal(section)
        elif not isinstance(value, dict):
            yield key, "must be a section with settings of its own"
        elif section in ("cameras", "models"):
            for name, inner in value.items():
                if not isinstance(inner, dict):
                    yield (section, name), "must be a section with settings of its own"
                elif section == "models" and models is not None and name not in models:
                    yield (section, name), f"no such model; there: {', '.join(sorted(models))}"
                else:
                    yield from _named(section, name, inner)
        else:
            allowed = {"pipeline": PIPELINE_KEYS, "mqtt": MQTT_KEYS}.get(section)
            yield from _not_among(allowed, value, key)
        yield from _unsafe(value, key)


def _refusal(section: str) -> str:
    if section in Config.model_fields:
        return f"comes from the device's own file only; from afar come {', '.join(SECTIONS)}"
    return f"unknown section; from afar come {', '.join(SECTIONS)}"


def _named(section: str, name: str, inner: Mapping[str, Any]) -> Iterator[tuple[Key, str]]:
    key: Key = (section, name)
    if section == "models":
        yield from _not_among(MODEL_KEYS, inner, key)
        return
    yield from _not_among(tuple(CameraConfig.model_fields), inner, key)
    if "source" in inner:
        yield from _source(inner["source"], inner.get("kind", "auto"), key)
    elif "kind" in inner:
        yield (*key, "kind"), "comes from afar only together with `source`; add it"


def _source(source: object, kind: object, key: Key) -> Iterator[tuple[Key, str]]:
    kinds = tuple(SOURCES) if kind == "auto" else (kind,)
    if kind != "auto" and kind not in SOURCES:
        yield (*key, "kind"), f"from afar come only the kinds auto, {', '.join(SOURCES)}"
    elif not any(SOURCES[str(k)].fullmatch(str(source)) for k in kinds):
        yield (*key, "source"), SOURCES_TEXT


def _not_among(
    allowed: tuple[str, ...] | None, values: Mapping[str, Any], key: Key
) -> Iterator[tuple[Key, str]]:
    for name in values:
        if allowed is not None and name not in allowed:
            place = (*key, name)
            section = section_at(key)
            known = section is not None and name in section.model_fields
            what = "comes from the device's own file only" if known else "unknown key"
            yield place, f"{what}; from afar come {', '.join(allowed)}"


def _unsafe(value: object, key: Key) -> Iterator[tuple[Key, str]]:
    """References would send what stands in the device's files to wherever a source points."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _unsafe(inner, (*key, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _unsafe(inner, (*key, index))
    elif not isinstance(value, PLAIN):
        yield key, "must be a text, a number, true, false or null"
    elif isinstance(value, str) and has_reference(value):
        yield key, REFERENCES_TEXT
