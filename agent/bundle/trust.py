"""What a device trusts: which bundles exist, who assigns and who commands.

TUF's client workflow is python-tuf's; it reads the trust message as if it were a server. It keeps
its files in a temporary folder, and only when all of a message was accepted is the new set handed
to the store, at once: there is never a mixture of old and new.

**Time.** Expiry is judged once, when a set is accepted, at the later of the clock and the time
floor. What was accepted stays usable with any clock or none. The floor only rises, by what offline
keys signed: were an online key believed, its thief could carry all devices' clocks away for good.
The time that the online timestamp claims counts in `now` too, but is forgotten with its key.

**Recovery.** When the root names new keys for timestamp and snapshot, versions that the old keys
signed are forgotten (TUF specification, 5.3.11), so a thief who set them to the highest number has
not locked anybody out.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from agent.bundle.manifest import MAX_MANIFEST_BYTES
from agent.bundle.strict import MAX_WALL_S
from agent.bundle.trustmessage import MAX_FILES, ROLE_BYTES, TIMESTAMP, file_name, parse
from agent.bundle.trustset import (
    Policy,
    TrustSet,
    bundle_errors,
    issued_at,
    read_root,
    release_counter,
    verify_set,
)
from agent.errors import BundleError, ExpiredError, ManifestError, SignatureError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from securesystemslib.signer import Key

__all__ = ["Policy", "TargetInfo", "Trust", "TrustStore"]

DIRECTOR = "director"
OPERATORS = "operators"

_URL = "trust:/"


@dataclass(frozen=True, slots=True)
class TargetInfo:
    """A bundle's manifest as the release keys signed it.

    Attributes:
        sha256: of its bytes, hexadecimal.
        length: bytes.
        release_counter: what the anti-rollback floor compares.
    """

    sha256: str
    length: int
    release_counter: int


class TrustStore(Protocol):
    """Where accepted metadata outlives a power cut. All raise `agent.errors.StoreError`."""

    def load(self) -> dict[str, bytes]:
        """What was saved last, whole; empty if nothing ever was."""

    def save(self, files: Mapping[str, bytes]) -> None:
        """Put `files` in the place of all that was saved, durably, in one transaction."""

    def time_floor(self) -> float:
        """The latest time that was proven, seconds since the epoch; 0 at first."""

    def raise_time_floor(self, t: float) -> None:
        """Raise the floor to `t`; an earlier `t` changes nothing."""


class Trust:
    """The device's view of the fleet's TUF metadata. For one thread.

    Args:
        root: root metadata that came with the enrolment. If another one is given later, the device
            was enrolled anew, and what was accepted under the old one is forgotten.
        store: keeps what was accepted.
        clock: seconds since the epoch; may be wrong.

    Raises:
        ManifestError, SignatureError: `root` is not root metadata that signs itself.
        StoreError: what was kept cannot be read, or was damaged.
    """

    def __init__(self, root: bytes, store: TrustStore, clock: Callable[[], float]) -> None:
        self._anchor = root
        self._anchor_root = read_root(root)
        self._store = store
        self._clock = clock
        self._set = self._load()

    @property
    def ready(self) -> bool:
        """Whether any set was accepted yet; until then all is refused."""
        return self._set is not None

    def now(self) -> float:
        """Seconds since the epoch: the clock, but never before what signatures have proven."""
        accepted = issued_at(self._set.timestamp) if self._set else 0.0
        return max(self._clock(), self._floor(), accepted)

    def refresh(self, message: bytes) -> None:
        """Accept a trust message, or leave all as it is.

        Raises:
            SignatureError: signatures are missing.
            RollbackError: something is older than what was accepted.
            ExpiredError: something is over.
            ManifestError: it is no trust message, or its parts do not belong together.
            StoreError: it could not be saved; what was accepted before stays valid.
        """
        files = parse(message)
        if self._known(files):
            return
        with bundle_errors():
            new = verify_set(self._anchor, _roots_of(files) | self._workflow(files))
        if self._set is None or dict(new.files) != dict(self._set.files):
            self._store.save(new.files)
            self._set = new
        self._store.raise_time_floor(self._floor())

    def check_fresh(self) -> None:
        """See that what was accepted is still valid: to be asked once, when an update begins.

        A broker that withholds newer metadata is found out by this; an update that has begun, and a
        model that serves, must not be stopped by it.

        Raises:
            SignatureError: no set was accepted yet.
            ExpiredError: newer metadata should have come by now.
        """
        accepted, now = self._accepted(), self.now()
        for signed in (accepted.root, accepted.timestamp, accepted.snapshot, accepted.targets):
            late_s = now - signed.expires.timestamp()
            if late_s >= 0:
                raise ExpiredError(
                    f"trust metadata: {signed.type} ended {late_s:.0f} s ago and nothing newer has "
                    "come; see whether the controller publishes, and this device's clock"
                )

    def target(self, path: str) -> TargetInfo:
        """What the release keys signed under this name.

        Raises:
            SignatureError: nothing.
            ManifestError: it is no manifest.
        """
        found = self._accepted().targets.targets.get(path)
        if found is None:
            raise SignatureError(f"{path}: the release keys have not signed such a bundle")
        sha256 = found.hashes.get("sha256", "")
        if len(sha256) != 64 or found.length > MAX_MANIFEST_BYTES:  # noqa: PLR2004 - SHA-256 in hex
            raise ManifestError(f"{path}: the signed hash or length is not a manifest's")
        return TargetInfo(sha256, found.length, release_counter(found.custom))

    def director_keys(self) -> tuple[tuple[Key, ...], int]:
        """Who may assign, and how many of them must sign together.

        Raises:
            SignatureError: no set was accepted yet.
        """
        return self._delegated(DIRECTOR)

    def operator_keys(self) -> tuple[tuple[Key, ...], int]:
        """Who may command and approve; as `director_keys`."""
        return self._delegated(OPERATORS)

    def policy(self) -> Policy:
        """What assignments must carry.

        Raises:
            SignatureError: no set was accepted yet.
        """
        return self._accepted().policy

    def _known(self, files: Mapping[str, bytes]) -> bool:
        """Whether it is the very set that was accepted; brokers repeat it at each connection.

        Its expiry was judged then, and is not again.
        """
        if self._set is None or file_name("root", self._set.root.version + 1) in files:
            return False
        return all(files.get(name) == data for name, data in self._set.files.items())

    def _accepted(self) -> TrustSet:
        if self._set is None:
            raise SignatureError("no trust metadata has been accepted yet; nothing can be checked")
        return self._set

    def _delegated(self, role: str) -> tuple[tuple[Key, ...], int]:
        delegations = self._accepted().targets.delegations
        found = (delegations.roles or {}).get(role) if delegations else None
        if delegations is None or found is None:
            return (), 1
        keys = tuple(delegations.keys[k] for k in found.keyids if k in delegations.keys)
        return keys, found.threshold

    def _load(self) -> TrustSet | None:
        files = self._store.load()
        if files.get(file_name("root", self._anchor_root.version)) != self._anchor:
            return None
        try:
            return verify_set(self._anchor, files)
        except BundleError as error:
            raise StoreError(
                f"the trust metadata in the state folder was damaged ({error}); updates are "
                "refused; enrol this device anew"
            ) from error

    def _floor(self) -> float:
        times = [issued_at(self._anchor_root)]
        if self._set:
            times += [issued_at(self._set.root), issued_at(self._set.targets)]
        return max(self._store.time_floor(), *times)

    def _workflow(self, files: Mapping[str, bytes]) -> dict[str, bytes]:
        """TUF's detailed client workflow; gives the files that were accepted."""
        try:
            with tempfile.TemporaryDirectory(prefix="vigia-trust-") as name:
                folder = Path(name)
                self._seed(folder)
                updater = Updater(
                    str(folder),
                    _URL,
                    fetcher=_Files(files),
                    config=_LIMITS,
                    bootstrap=self._anchor,
                )
                when = min(max(self._clock(), self._floor(), 0.0), MAX_WALL_S)
                # It has no other way to be told the time, and ours may be wiser than the clock.
                updater._trusted_set.reference_time = datetime.fromtimestamp(  # noqa: SLF001
                    when, timezone.utc
                )
                updater.refresh()
                return _collect(folder)
        except OSError as error:
            raise StoreError(
                f"no temporary folder for trust metadata ({error}); make room there"
            ) from error

    def _seed(self, folder: Path) -> None:
        history = folder / "root_history"
        history.mkdir()
        if self._set is None:
            return
        for name, data in self._set.files.items():
            if name.endswith(".root.json"):
                (history / name).write_bytes(data)
            else:
                # The client calls them by their roles alone.
                (folder / f"{name.split('.')[-2]}.json").write_bytes(data)


class _Files(FetcherInterface):
    """Answers python-tuf's requests from a message."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.removeprefix(_URL)
        if name not in self._files:
            raise DownloadHTTPError(f"{name} is missing", 404)
        return iter((self._files[name],))


_LIMITS = UpdaterConfig(
    max_root_rotations=MAX_FILES,
    root_max_length=ROLE_BYTES["root"],
    timestamp_max_length=ROLE_BYTES["timestamp"],
    snapshot_max_length=ROLE_BYTES["snapshot"],
    targets_max_length=ROLE_BYTES["targets"],
)


def _collect(folder: Path) -> dict[str, bytes]:
    files = {path.name: path.read_bytes() for path in (folder / "root_history").iterdir()}
    files[TIMESTAMP] = (folder / TIMESTAMP).read_bytes()
    for role in ("snapshot", "targets"):
        data = (folder / f"{role}.json").read_bytes()
        files[file_name(role, _version(data))] = data
    return files


def _version(data: bytes) -> int:
    return int(json.loads(data)["signed"]["version"])


def _roots_of(files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name.endswith(".root.json")}
