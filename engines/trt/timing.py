"""Timing caches: what the builder has measured of kernels, so that the next build is quick.

One file for each TensorRT, GPU and driver: a SHA-256 digest, then what TensorRT gave. Whatever is
wrong with it, the build goes on with an empty cache: it costs minutes, never an engine. Damaged
bytes never reach TensorRT, which reads them with native code.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from typing import TYPE_CHECKING, Any

from engines.durable import read_bounded, replace_file
from engines.filelock import file_lock

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

MAX_BYTES = 256 << 20
"""Larger files are not ours; caches are a few megabytes."""

LOCK_TIMEOUT_S = 10.0
"""Others hold the lock for the time of a read and a write."""

DIGEST_BYTES = hashlib.sha256().digest_size

NAME_LENGTH = 16
"""Hexadecimal digits of a file's name."""


def cache_path(folder: Path, version: str, compute_capability: str, driver: str) -> Path:
    """The file for this TensorRT, GPU and driver: another one's is refused or ignored."""
    parts = f"{version}\0{compute_capability}\0{driver}"
    return folder / f"{hashlib.sha256(parts.encode()).hexdigest()[:NAME_LENGTH]}.timing"


def attach(config: Any, path: Path | None) -> str:
    """Give a builder's configuration the cache it starts from.

    Args:
        config: TensorRT's.
        path: the file, or None to keep none.

    Returns:
        "loaded", "empty" or "none", for the report.
    """
    if path is None:
        return "none"
    known = _load(path)
    if known and _set(config, known):
        return "loaded"
    if known:
        log.warning("the timing cache %s is refused by TensorRT and is begun anew", path)
        with contextlib.suppress(OSError):
            path.unlink()
    return "empty" if _set(config, b"") else "none"


def save(config: Any, path: Path | None) -> bool:
    """Add what a build has measured to the file, with what others have added meanwhile.

    Returns:
        Whether it was written; why not stands in the log.
    """
    cache = None if path is None else config.get_timing_cache()
    if path is None or cache is None:
        return False
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with file_lock(path.with_suffix(".lock"), LOCK_TIMEOUT_S) as held:
            if not held:
                log.warning("the timing cache %s is locked; what was measured is not kept", path)
                return False
            known = _load(path)
            if known:
                _combine(config, cache, known, path)
            content = cache.serialize()
            if content is None:
                log.warning("TensorRT does not give its timing cache; it is not kept")
                return False
            plain = bytes(content)
            replace_file(path, hashlib.sha256(plain).digest() + plain)
    except OSError as error:
        log.warning("the timing cache %s cannot be written: %s", path, error)
        return False
    return True


def _load(path: Path) -> bytes:
    """The file's bytes; none if it cannot be read."""
    try:
        content = read_bounded(path, MAX_BYTES)
    except FileNotFoundError:
        return b""
    except OSError as error:
        log.warning("the timing cache %s cannot be read: %s", path, error)
        return b""
    if content is None:
        return b""
    digest, cache = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    if hashlib.sha256(cache).digest() != digest:
        log.warning("the timing cache %s is damaged and is begun anew", path)
        return b""
    return cache


def _set(config: Any, content: bytes) -> bool:
    cache = config.create_timing_cache(content)
    # A cache of another version, GPU or driver must not be taken: its times mean nothing here.
    return cache is not None and bool(config.set_timing_cache(cache, False))


def _combine(config: Any, cache: Any, known: bytes, path: Path) -> None:
    other = config.create_timing_cache(known)
    if other is None or not cache.combine(other, False):
        log.warning("the timing cache %s does not fit this TensorRT and is replaced", path)
