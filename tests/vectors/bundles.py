"""Builds bundles for tests: good ones by the packer itself, hostile ones by altering what it made.

A hostile manifest is one that the release keys could have signed: its hashes are right, what it
says is not. `tests/vectors/hostileonnx.py` has models to put into bundles.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from agent.bundle.index import BlockIndex
from agent.bundle.manifest import digest_of, parse_manifest
from agent.bundle.seal import INDEX, MANIFEST, PAYLOAD, Facts, Packed, Source, pack, seal
from tests.vectors.models import make_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.bundle.manifest import Manifest

ROOT = Path(__file__).parents[2]
CONVEYOR = ROOT / "examples" / "conveyor" / "conveyor-n.onnx"
"""A trained detector of 3 MB."""

CONVEYOR_NAMES = ("box", "tube", "bag", "envelope")
CREATED_S = 1_700_000_000
EXPIRES_S = 4_000_000_000

ROLES = {
    "model.onnx": "model",
    "model-int8.onnx": "model-int8",
    "truth.json": "truth",
    "labels.txt": "labels",
}


@lru_cache
def tiny_model(seed: int = 0) -> bytes:
    """A detector of some kilobytes with the classes of examples/conveyor, random but whole."""
    names = repr(dict(enumerate(CONVEYOR_NAMES)))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        return make_model(
            path, nc=len(CONVEYOR_NAMES), metadata={"names": names}, seed=seed
        ).read_bytes()


def facts(**changes: Any) -> Facts:
    """Facts of a release that is valid from 2023 to 2096."""
    usual = {
        "family": "conveyor",
        "version": "1.0.0",
        "release_counter": 1,
        "created": CREATED_S,
        "expires": EXPIRES_S,
    }
    return Facts(**{**usual, **changes})


def sources(folder: Path, files: Mapping[str, bytes]) -> list[Source]:
    """Write files to be packed.

    Args:
        folder: where to.
        files: content by place: "model.onnx", "model-int8.onnx", "truth.json", "labels.txt",
            "golden/<name>", "calibration/<name>"; anything else is a card.
    """
    found = []
    for place, content in files.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        role = path.parent.name if "/" in place else ROLES.get(place, "card")
        found.append(Source(path.name, role, path))
    return found


def make_bundle(
    folder: Path,
    files: Mapping[str, bytes] | None = None,
    *,
    checked: bool = False,
    **changes: Any,
) -> Packed:
    """Write a bundle.

    Args:
        folder: gets `manifest.json`, `index` and `payload`; made if it is missing.
        files: content by place, see `sources`; default: the tiny model alone.
        checked: whether models must hold what models may.
        **changes: facts that are not the usual ones.
    """
    with TemporaryDirectory() as plain:
        found = sources(Path(plain), files or {"model.onnx": tiny_model()})
        make = pack if checked else seal
        return make(found, facts(**changes), folder, lambda _done, _total: None)


@dataclass(frozen=True)
class Opened:
    """What lies in the folder of a bundle."""

    manifest: Manifest
    index: BlockIndex
    payload: Path


def read_bundle(folder: Path) -> Opened:
    """Read a bundle as a device does whose hashes have matched."""
    manifest = parse_manifest((folder / MANIFEST).read_bytes())
    index = BlockIndex.parse((folder / INDEX).read_bytes(), manifest)
    return Opened(manifest, index, folder / PAYLOAD)


def alter(manifest: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """A manifest with something changed in its JSON, checked by nobody."""
    document = json.loads(manifest)
    change(document)
    return json.dumps(document).encode()


def forge_manifest(
    folder: Path, packed: Packed, change: Callable[[dict[str, Any]], None]
) -> Packed:
    """Put an altered manifest in the place of a bundle's own."""
    data = alter(packed.manifest, change)
    (folder / MANIFEST).write_bytes(data)
    return Packed(data, digest_of(data), packed.data_key)
