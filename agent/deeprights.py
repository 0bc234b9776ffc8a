"""Whether files and devices can be used, and secrets are nobody else's."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from agent.check import Finding
from agent.redact import secrets_of
from agent.references import REFERENCE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.config import Config
    from agent.deepmachine import Machine

GPU_NODES = ("dev/nvmap", "dev/nvhost-ctrl-gpu", "dev/nvgpu/igpu0/ctrl", "dev/nvidia0")
"""JetPack 5 and 6, older ones, and 7; graphics cards."""

OTHERS = stat.S_IRWXG | stat.S_IRWXO


def look(
    config: Config, config_path: Path, places: Mapping[str, Path], machine: Machine
) -> Iterator[Finding]:
    """Everything that the agent reads, writes or opens, as the user who asks.

    Args:
        config: a valid configuration.
        config_path: where it is from.
        places: folders that the agent writes, by name.
        machine: for the GPU's devices.
    """
    yield from secrets(config, config_path)
    for name, place in places.items():
        yield folder(name, place)
    for name, camera in config.cameras.items():
        # One that is not there is told by the camera's own check.
        if camera.enabled and camera.source.startswith("/dev/") and Path(camera.source).exists():
            yield node(f"permissions.{name}", camera.source, "video")
    for gpu in GPU_NODES:
        if (machine.root / gpu).exists():
            yield node("permissions.gpu", str(machine.root / gpu), "video and render")


def secrets(config: Config, config_path: Path) -> Iterator[Finding]:
    """Files that only the agent may read."""
    mqtt = config.mqtt
    files: list[Path] = []
    with contextlib.suppress(OSError):
        text = config_path.read_text("utf-8", errors="replace")
        if any(secret and secret in text for secret in secrets_of(config)):
            files.append(config_path)
        # Those that `${file:...}` names.
        named = (r["name"] for r in REFERENCE.finditer(text) if r["kind"] == "file")
        files += [config_path.parent / name for name in named]
    if mqtt.tls is not None and mqtt.tls.key_file is not None:
        files.append(mqtt.tls.key_file)
    for path in files:
        try:
            mode = path.stat().st_mode
        except OSError as error:
            what = f"{path}: {error.strerror}"
            yield Finding("permissions.secrets", "fail", what, "give its right path")
            continue
        if mode & stat.S_IRWXO:
            what = f"{path} may be read by everybody, and it holds a secret"
            yield Finding("permissions.secrets", "warn", what, f"chmod o= {path}")
        else:
            yield Finding("permissions.secrets", "ok", f"{path} is closed to others")


def folder(name: str, place: Path) -> Finding:
    """A folder that is written, or can be made."""
    key = f"permissions.{name}"
    if place.exists() and not place.is_dir():
        return Finding(key, "fail", f"{place} is no folder", "move it away")
    there = next((p for p in (place, *place.parents) if p.exists()), place)
    if not os.access(there, os.W_OK | os.X_OK):
        what = f"{_who()} may not write {place}"
        fix = "run this as the service's user (sudo -u vigia vigia check --deep), or chown it"
        return Finding(key, "warn", what, fix)
    if place.exists() and place.stat().st_mode & stat.S_IWOTH:
        return Finding(key, "fail", f"{place} may be written by everybody", f"chmod 700 {place}")
    return Finding(
        key, "ok", f"{place} can be written" if place.exists() else f"{place} can be made"
    )


def node(key: str, path: str, groups: str) -> Finding:
    """A device that must be opened."""
    if os.access(path, os.R_OK | os.W_OK):
        return Finding(key, "ok", f"{path} can be opened by {_who()}")
    fix = f"add the user to the group {groups}: sudo usermod -aG video,render NAME, log in anew"
    return Finding(key, "fail", f"{path} may not be opened by {_who()}", fix)


def _who() -> str:
    return f"user {os.geteuid()}"
