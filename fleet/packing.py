"""Packs a model with its golden set and calibration pictures into a sealed bundle of the fleet.

Pictures get names of their own in the bundle (`golden-0001.jpg`): names of files are not always
such as a bundle allows, two folders may use the same, and they are nobody's business. The ground
truth is written with the new names.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from agent.bundle.manifest import bundle_id, target_path
from agent.bundle.seal import Facts, Source, pack
from agent.errors import BundleError, StoreError
from fleet.errors import FleetError
from fleet.tables import Bundle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy.orm import Session

    from agent.bundle.manifest import Role
    from agent.bundle.seal import Packed, Tell
    from fleet.database import Database

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

MAX_PICTURES = 1000
"""Of a golden set or for calibration; a device judges with far fewer."""

MAX_TRUTH_BYTES = 64 * 2**20
TRUTH_SCHEMA = "vigia.ground-truth/1"


@dataclass(frozen=True, slots=True)
class Contents:
    """The files that a bundle is made of.

    Attributes:
        model: FP32 ONNX.
        model_int8: the same, quantized (Q/DQ).
        golden: folder of pictures that a candidate is judged by on the device.
        truth: what is in them, JSON of schema vigia.ground-truth/1.
        calibration: folder of pictures for int8.
        labels: text file of class names.
        card: text about the model.
    """

    model: Path
    model_int8: Path | None = None
    golden: Path | None = None
    truth: Path | None = None
    calibration: Path | None = None
    labels: Path | None = None
    card: Path | None = None


def pack_bundle(
    database: Database,
    wrap: Callable[[bytes], bytes],
    bundles: Path,
    contents: Contents,
    facts: Facts,
    tell: Tell,
) -> Bundle:
    """Pack, and enter the bundle in the database with its wrapped data key.

    Args:
        database: of the fleet.
        wrap: encrypts the data key so that only the vault's passphrase opens it.
        bundles: the folder that gets a folder of this bundle.
        contents: the files.
        facts: the rest of the manifest; its release counter is replaced by the next of the family.
        tell: takes bytes done and in all.

    Returns:
        The row of the bundle.

    Raises:
        FleetError: the version was packed before.
        BundleError: a file is none that a device would accept.
        StoreError: the disk or database refuses.
    """
    with _work_folder(bundles) as work:
        sources = _sources(contents, work)
        facts = replace(facts, release_counter=_next_release(database, facts))
        packed = pack(sources, facts, work / "sealed", tell)
        return _keep(database, wrap, bundles, work / "sealed", facts, packed)


def _keep(
    database: Database,
    wrap: Callable[[bytes], bytes],
    bundles: Path,
    sealed: Path,
    facts: Facts,
    packed: Packed,
) -> Bundle:
    """Move the bundle to its place, and enter it; neither without the other."""
    folder = bundles / bundle_id(packed.digest)
    row = Bundle(
        digest=packed.digest,
        family=facts.family,
        version=facts.version,
        release_counter=facts.release_counter,
        target=target_path(facts.family, facts.version),
        folder=folder.name,
        data_key=wrap(packed.data_key),
        packed_at=facts.created,
    )
    try:
        sealed.rename(folder)
    except OSError as error:
        raise StoreError(f"{folder} cannot be made: {error.strerror}") from error
    try:
        with database.session() as session:
            _check_newest(session, facts)
            session.add(row)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return row


def _check_newest(session: Session, facts: Facts) -> None:
    newest = session.scalar(_newest_release(facts.family)) or 0
    if newest >= facts.release_counter:
        raise FleetError(
            f"another release of {facts.family} was packed meanwhile; pack this one again"
        )


def _next_release(database: Database, facts: Facts) -> int:
    with database.reading() as session:
        taken = select(Bundle).where(Bundle.family == facts.family, Bundle.version == facts.version)
        if session.scalar(taken) is not None:
            raise FleetError(
                f"{facts.family} {facts.version} was packed already; give it another version"
            )
        return (session.scalar(_newest_release(facts.family)) or 0) + 1


def _newest_release(family: str) -> Any:
    return select(func.max(Bundle.release_counter)).where(Bundle.family == family)


@contextlib.contextmanager
def _work_folder(bundles: Path) -> Any:
    """A folder beside the bundles, on the same disk, that is gone afterwards."""
    try:
        bundles.mkdir(mode=0o700, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".packing-", dir=bundles))
    except OSError as error:
        raise StoreError(f"{bundles} cannot be written: {error.strerror}") from error
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _sources(contents: Contents, work: Path) -> list[Source]:
    """The model first: a device that reads the payload's begin knows at once whether it opens."""
    sources = [Source("model.onnx", "model", contents.model)]
    if contents.model_int8 is not None:
        sources.append(Source("model-int8.onnx", "model-int8", contents.model_int8))
    if contents.labels is not None:
        sources.append(Source("labels.txt", "labels", contents.labels))
    if contents.card is not None:
        sources.append(Source("card.md", "card", contents.card))
    golden = _pictures(contents.golden, "golden")
    if contents.truth is not None:
        if not golden:
            raise BundleError("ground truth is of a golden set: give --golden too")
        truth = work / "truth.json"
        truth.write_bytes(_renamed_truth(contents.truth, golden))
        sources.append(Source("truth.json", "truth", truth))
    return [*sources, *golden, *_pictures(contents.calibration, "calibration")]


def _pictures(folder: Path | None, role: Role) -> list[Source]:
    if folder is None:
        return []
    try:
        found = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES)
    except OSError as error:
        raise BundleError(f"--{role} {folder}: {error.strerror}; give a folder") from error
    if not 0 < len(found) <= MAX_PICTURES:
        raise BundleError(
            f"--{role} {folder}: {len(found)} pictures; give 1 to {MAX_PICTURES} "
            f"({', '.join(PICTURE_SUFFIXES)})"
        )
    return [
        Source(f"{role}-{number:04d}{path.suffix.lower()}", role, path)
        for number, path in enumerate(found, 1)
    ]


def _renamed_truth(path: Path, golden: Sequence[Source]) -> bytes:
    """The ground truth of the pictures, by their names in the bundle."""
    try:
        if path.stat().st_size > MAX_TRUTH_BYTES:
            raise BundleError(f"--truth {path}: larger than {MAX_TRUTH_BYTES} bytes")
        value = json.loads(path.read_text("utf-8"))
        names, pictures = value["names"], value["pictures"]
        if value["schema"] != TRUTH_SCHEMA or not isinstance(pictures, dict):
            raise BundleError(f"--truth {path}: its schema is not {TRUTH_SCHEMA}")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BundleError(
            f"--truth {path}: no ground truth of pictures ({error}); see `vigia model collect`"
        ) from error
    missing = [source.path.name for source in golden if source.path.name not in pictures]
    if missing:
        raise BundleError(
            f"--truth {path}: {len(missing)} of {len(golden)} pictures of the golden set are not "
            f"in it, {missing[0]} for one"
        )
    renamed = {source.name: pictures[source.path.name] for source in golden}
    return json.dumps({"schema": TRUTH_SCHEMA, "names": names, "pictures": renamed}).encode()
