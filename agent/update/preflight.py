"""Whether a device may and can have a bundle, before anything of it but the manifest is fetched."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from agent.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from agent.bundle.manifest import Compat, Manifest

BYTES_PER_MB = 2**20

RESERVE_BYTES = 64 * BYTES_PER_MB
"""What must stay free on the disk, for the database, logs, and a plan's sidecar."""

RELEASE = re.compile(r"\d+(?:\.\d+)*")
"""The beginning of a version that is compared; what follows, like `rc1`, is not."""


@dataclass(frozen=True, slots=True)
class Device:
    """What bundles must fit.

    Attributes:
        hw_class: hardware class.
        agent: version of the agent.
        jetpack, tensorrt: versions; None where there is none.
    """

    hw_class: str
    agent: str
    jetpack: str | None = None
    tensorrt: str | None = None


class Memory(Protocol):
    """What is remembered of earlier updates: `agent.update.reader.Reader`."""

    def floor(self, family: str) -> int:
        """The least release counter that is taken."""

    def quarantined(self, digest: str) -> str | None:
        """Why a bundle is not tried again."""


def refusal(
    manifest: Manifest,
    device: Device,
    *,
    digest: str,
    store: Memory,
    max_bundle_mb: int,
    folder: Path,
) -> str | None:
    """Why a bundle must not be fetched, for people; None if it may be.

    Args:
        manifest: signed.
        device: this device.
        digest: of the manifest.
        store: floors and quarantine.
        max_bundle_mb: larger payloads are refused, MiB.
        folder: where sealed bundles lie, or will.

    Raises:
        StoreError: the disk or the store cannot be looked at.
    """
    floor = store.floor(manifest.family)
    if manifest.release_counter < floor:
        return (
            f"release {manifest.release_counter} of {manifest.family} is older than release "
            f"{floor}, which was committed here"
        )
    ban = store.quarantined(digest)
    if ban is not None:
        return f"this bundle was tried here already and failed: {ban}"
    return (
        incompatible(manifest.compat, device)
        or too_large(manifest, max_bundle_mb)
        or no_room(manifest, free=_free(folder), staged=_staged(folder / digest))
    )


def incompatible(compat: Compat, device: Device) -> str | None:
    """Why a bundle is not for this device; None if it is."""
    if compat.hw_class is not None and device.hw_class not in compat.hw_class:
        return _for_others("hardware class", compat.hw_class, device.hw_class)
    if compat.jetpack is not None and not any(_begins(v, device.jetpack) for v in compat.jetpack):
        return _for_others("JetPack", compat.jetpack, device.jetpack)
    for what, least, most, here in (
        ("TensorRT", compat.tensorrt_min, compat.tensorrt_max, device.tensorrt),
        ("agent", compat.agent_min, None, device.agent),
    ):
        fault = _outside(least, most, here)
        if fault is not None:
            return f"it needs {what} {fault}; here is {here or 'none'}"
    return None


def too_large(manifest: Manifest, max_bundle_mb: int) -> str | None:
    """Why a bundle is larger than this device is configured to take; None if it is not."""
    if manifest.ciphertext.length <= max_bundle_mb * BYTES_PER_MB:
        return None
    size = _mb_up(manifest.ciphertext.length)
    return f"it has {size}; updates.max_bundle_mb allows {max_bundle_mb} MB"


def no_room(manifest: Manifest, *, free: int, staged: int) -> str | None:
    """Why the disk does not hold a bundle; None if it does.

    Args:
        manifest: says how large it is.
        free: bytes that may be used on the disk.
        staged: bytes that the bundle has there already.
    """
    needed = manifest.ciphertext.length + manifest.index.length
    wanted = max(0, needed - staged) + RESERVE_BYTES
    if free >= wanted:
        return None
    return f"it needs {_mb_up(wanted)} on the disk, {_mb(free)} are free; remove something"


def _for_others(what: str, wanted: tuple[str, ...], here: str | None) -> str:
    return f"it is for {what} {', '.join(wanted) or 'none'}; here is {here or 'none'}"


def _begins(wanted: str, here: str | None) -> bool:
    """Whether a version is of a wanted series: 6 has 6.1."""
    series, version = _numbers(wanted), _numbers(here)
    return series is not None and version is not None and version[: len(series)] == series


def _outside(least: str | None, most: str | None, here: str | None) -> str | None:
    """Which limit a version does not keep. `most` counts as far as it is written: 8.6 has 8.6.1."""
    version = _numbers(here)
    low, high = _numbers(least), _numbers(most)
    if least is not None and (low is None or version is None or version < low):
        return f"{least} or newer"
    if most is not None and (high is None or version is None or version[: len(high)] > high):
        return f"{most} or older"
    return None


def _numbers(version: str | None) -> tuple[int, ...] | None:
    found = RELEASE.match(version or "")
    if found is None:
        return None
    numbers = [int(part) for part in found.group().split(".")]
    # 8.6 and 8.6.0 are one version.
    while len(numbers) > 1 and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def _free(folder: Path) -> int:
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    try:
        disk = os.statvfs(folder)
    except OSError as error:
        raise StoreError(f"{folder}: cannot look at the disk: {error.strerror or error}") from error
    return disk.f_bavail * disk.f_frsize


def _staged(folder: Path) -> int:
    total = 0
    try:
        for path in folder.iterdir() if folder.is_dir() else ():
            # Blocks, not the length: a file of holes takes no room yet.
            total += path.lstat().st_blocks * 512
    except OSError as error:
        raise StoreError(f"{folder}: cannot look at it: {error.strerror or error}") from error
    return total


def _mb(size: int) -> str:
    return f"{size // BYTES_PER_MB} MB"


def _mb_up(size: int) -> str:
    return f"{-(-size // BYTES_PER_MB)} MB"
