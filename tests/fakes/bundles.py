"""Sealed bundles whose model is random bytes: for what carries them and never looks inside."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.bundle.seal import Facts, Source, seal
from fleet.bundlefiles import BundleFiles

if TYPE_CHECKING:
    from pathlib import Path

CREATED = 1_700_000_000
EXPIRES = 4_000_000_000


@dataclass
class SealedBundle:
    files: BundleFiles
    data_key: bytes


def seal_bundle(
    folder: Path, size: int = 200_000, *, family: str = "demo", version: str = "1", counter: int = 1
) -> SealedBundle:
    """A bundle of `size` bytes of plaintext in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "plain"
    model.write_bytes(os.urandom(size))
    facts = Facts(family, version, counter, created=CREATED, expires=EXPIRES)
    packed = seal([Source("model.onnx", "model", model)], facts, folder / "sealed", _ignore)
    model.unlink()
    return SealedBundle(BundleFiles(folder / "sealed"), packed.data_key)


def make_bundle(folder: Path, size: int = 200_000) -> BundleFiles:
    """As `seal_bundle`, for those who need no key."""
    return seal_bundle(folder, size).files


def _ignore(_done: int, _total: int) -> None:
    pass
