"""A whole set of TUF metadata, and whether it fits together; says nothing of expiry. Pure.

What a device has accepted is kept in this form, and checked again whenever it is read. What a
controller publishes is checked with it before it leaves.

Two fields are ours, both signed: `x-vigia-issued`, when it was signed, in seconds since the epoch;
and `x-vigia-policy` of targets. The snapshot also lists `root.json`, so that nobody can show a new
set beside an old root.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from tuf.api import exceptions
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from agent.bundle.strict import MAX_U64, MAX_WALL_S
from agent.bundle.trustmessage import TIMESTAMP, file_name
from agent.errors import (
    BundleError,
    ExpiredError,
    ManifestError,
    RollbackError,
    SignatureError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from securesystemslib.signer import Signature
    from tuf.api.metadata import MetaFile, Signed

ISSUED = "x-vigia-issued"
POLICY = "x-vigia-policy"

MAX_APPROVALS = 16
"""As many as an assignment can carry."""

MAX_CAUSES = 5

_Role = TypeVar("_Role", Root, Timestamp, Snapshot, Targets)


@dataclass(frozen=True, slots=True)
class Policy:
    """What the release keys demand of assignments.

    Attributes:
        approvals: how many operators must have approved a roll-out.
    """

    approvals: int = 0


@dataclass(frozen=True, slots=True)
class TrustSet:
    """Metadata whose signatures, versions, hashes and lengths agree.

    Attributes:
        files: exact bytes by name, as in a trust message; no others.
        root, timestamp, snapshot, targets: what they say.
        policy: as signed in targets.
    """

    files: Mapping[str, bytes]
    root: Root
    timestamp: Timestamp
    snapshot: Snapshot
    targets: Targets
    policy: Policy


@contextlib.contextmanager
def bundle_errors() -> Iterator[None]:
    """Turn what python-tuf raises at metadata into our family.

    Raises:
        SignatureError: too few signatures of keys that have the right.
        RollbackError: a version is not the one that must come.
        ExpiredError: it is over.
        ManifestError: it does not fit together, or is no metadata at all.
    """
    try:
        yield
    except BundleError:
        raise
    except exceptions.UnsignedMetadataError as error:
        raise SignatureError(f"trust metadata: {error}") from error
    except exceptions.BadVersionNumberError as error:
        raise RollbackError(f"trust metadata: {error}") from error
    except exceptions.ExpiredMetadataError as error:
        raise ExpiredError(
            f"trust metadata: {error}; if the controller publishes, look at this device's clock"
        ) from error
    except (exceptions.RepositoryError, exceptions.DownloadError, ValueError) as error:
        raise ManifestError(f"trust metadata: {_causes(error)}") from error


def _causes(error: BaseException) -> str:
    texts: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(texts) < MAX_CAUSES:
        texts.append(str(cause)[:200] or type(cause).__name__)
        cause = cause.__cause__
    return ": ".join(texts)


def verify_set(anchor: bytes, files: Mapping[str, bytes]) -> TrustSet:
    """Check a set from the root on that is trusted; expiry is not looked at.

    Args:
        anchor: root metadata that is trusted as it is.
        files: the set, by name; the anchor itself may be missing, older roots too.

    Raises:
        SignatureError: a file lacks signatures.
        RollbackError: a file has another version than its name or its parent says.
        ManifestError: a file is missing or damaged, or they are of different sets.
    """
    with bundle_errors():
        kept: dict[str, bytes] = {}
        root = _roots(anchor, files, kept)
        timestamp, data = _load(Timestamp, files, TIMESTAMP, root)
        kept[TIMESTAMP] = data
        name = file_name("snapshot", timestamp.snapshot_meta.version)
        snapshot, data = _load(Snapshot, files, name, root)
        _agree(name, timestamp.snapshot_meta, snapshot, data)
        kept[name] = data
        _check_root_version(root, snapshot)
        listed = snapshot.meta.get("targets.json")
        if listed is None:
            raise ManifestError("trust metadata: the snapshot does not list targets.json")
        name = file_name("targets", listed.version)
        targets, data = _load(Targets, files, name, root)
        _agree(name, listed, targets, data)
        kept[name] = data
        return TrustSet(kept, root, timestamp, snapshot, targets, policy_of(targets))


def read_root(data: bytes) -> Root:
    """Read root metadata that signs itself.

    Raises:
        SignatureError: its own keys have not signed it.
        ManifestError: it is no root metadata.
    """
    with bundle_errors():
        root, content, signatures = _read(Root, data)
        root.verify_delegate(Root.type, content, signatures)
        return root


def follow_roots(anchor: bytes, later: Iterable[bytes]) -> bytes:
    """Go from a trusted root to the newest that later ones lead to, each signed by the one before.

    Args:
        anchor: root metadata that is trusted as it is.
        later: root metadata in any order; what is not newer than the anchor is passed over.

    Raises:
        SignatureError: one is not signed by the root before it.
        ManifestError: one is no root metadata, or one in between is missing.
    """
    with bundle_errors():
        first = read_root(anchor).version
        versions = {read_root(data).version: data for data in later}
        files = {file_name(Root.type, n): data for n, data in versions.items() if n > first}
        kept: dict[str, bytes] = {}
        newest = _roots(anchor, files, kept)
        return kept[file_name(Root.type, newest.version)]


def issued_at(signed: Signed) -> float:
    """When it was signed, by its own word, seconds since the epoch; 0 if it does not say.

    A time at or after its own expiry is none: nobody signs what is over.
    """
    value = signed.unrecognized_fields.get(ISSUED)
    if type(value) is not int or not 0 <= value < min(signed.expires.timestamp(), MAX_WALL_S):
        return 0.0
    return float(value)


def _roots(anchor: bytes, files: Mapping[str, bytes], kept: dict[str, bytes]) -> Root:
    root = read_root(anchor)
    kept[file_name(Root.type, root.version)] = anchor
    while (data := files.get(name := file_name(Root.type, root.version + 1))) is not None:
        new, content, signatures = _read(Root, data)
        root.verify_delegate(Root.type, content, signatures)
        new.verify_delegate(Root.type, content, signatures)
        if new.version != root.version + 1:
            raise RollbackError(f"trust metadata: {name} has version {new.version}")
        kept[name] = data
        root = new
    newest = max(
        (int(name.partition(".")[0]) for name in files if name.endswith(".root.json")), default=0
    )
    if newest > root.version:
        raise ManifestError(
            f"trust metadata: root {root.version + 1} is missing before root {newest}"
        )
    return root


def _load(
    kind: type[_Role], files: Mapping[str, bytes], name: str, root: Root
) -> tuple[_Role, bytes]:
    data = files.get(name)
    if data is None:
        raise ManifestError(f"trust metadata: {name} is missing")
    signed, content, signatures = _read(kind, data)
    root.verify_delegate(kind.type, content, signatures)
    return signed, data


def _read(kind: type[_Role], data: bytes) -> tuple[_Role, bytes, dict[str, Signature]]:
    metadata = Metadata[_Role].from_bytes(data)
    if not isinstance(metadata.signed, kind):
        raise ManifestError(
            f"trust metadata: {metadata.signed.type} stands where {kind.type} belongs"
        )
    return metadata.signed, metadata.signed_bytes, metadata.signatures


def _agree(name: str, listed: MetaFile, signed: Signed, data: bytes) -> None:
    listed.verify_length_and_hashes(data)
    if signed.version != listed.version:
        raise RollbackError(
            f"trust metadata: {name} has version {signed.version}, {listed.version} is listed"
        )


def _check_root_version(root: Root, snapshot: Snapshot) -> None:
    listed = snapshot.meta.get("root.json")
    if listed is not None and listed.version != root.version:
        raise ManifestError(
            f"trust metadata: the set belongs to root {listed.version}, but is shown with root "
            f"{root.version}"
        )


def policy_of(targets: Targets) -> Policy:
    """What the release keys demand of roll-outs.

    Raises:
        ManifestError: it is not understood.
    """
    value = targets.unrecognized_fields.get(POLICY, {"approvals": 0})
    approvals = value.get("approvals") if isinstance(value, dict) and len(value) == 1 else None
    # A policy that is not understood must not be passed over: it may ask for more.
    if type(approvals) is not int or not 0 <= approvals <= MAX_APPROVALS:
        raise ManifestError(
            f"trust metadata: {POLICY} is not understood; this agent may be too old for it"
        )
    return Policy(approvals)


def release_counter(custom: object) -> int:
    """The release counter in a target's `custom` field.

    Raises:
        ManifestError: there is none.
    """
    value = custom.get("release_counter") if isinstance(custom, dict) else None
    if type(value) is not int or not 0 <= value <= MAX_U64:
        raise ManifestError("trust metadata: a target has no release_counter")
    return value
