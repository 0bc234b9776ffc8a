"""A TUF repository in memory whose owner has all keys and no scruples.

It is made without the controller's code, so that what the controller would never do can be done:
change the content of a role, say who signs it, and send. An attack is two lines:

    repo.targets.targets["models/evil/1/manifest.json"] = target(b"evil")
    message = repo.publish(signers={"targets": [repo.keys["director"][0]]})

Keys are made from their names, so that messages are the same each time.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from agent.bundle.trustmessage import encode, parse
from agent.errors import StoreError

NOW = 1_800_000_000.0
"""A morning in January 2027."""

DAY = 86_400.0

LIFE = {"root": 365 * DAY, "targets": 365 * DAY, "snapshot": 30 * DAY, "timestamp": 7 * DAY}

ONLINE = ("snapshot", "timestamp")

MANIFEST = b'{"a": "manifest"}'
PATH = "models/line/1/manifest.json"


def key(name: str) -> CryptoSigner:
    """The key of that name."""
    return CryptoSigner(
        Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())
    )


def target(manifest: bytes = MANIFEST, counter: int = 1, path: str = PATH, **custom) -> TargetFile:
    """What targets say of a manifest."""
    made = TargetFile.from_data(path, manifest)
    made.unrecognized_fields["custom"] = {"release_counter": counter, **custom}
    return made


def moment(t: float) -> datetime:
    """As metadata has times."""
    return datetime.fromtimestamp(int(t), timezone.utc)


def edit(message: bytes, name: str, old: bytes, new: bytes) -> bytes:
    """The message with bytes of one file altered, as anybody on the way could."""
    files = parse(message)
    assert old in files[name]
    return encode({**files, name: files[name].replace(old, new)})


class MemoryStore:
    """Keeps what was accepted; `failing` names the calls that fail."""

    def __init__(self, files: Mapping[str, bytes] | None = None, floor: float = 0.0) -> None:
        self.files = dict(files or {})
        self.floor = floor
        self.saves = 0
        self.failing: set[str] = set()

    def load(self) -> dict[str, bytes]:
        self._may_fail("load")
        return dict(self.files)

    def save(self, files: Mapping[str, bytes]) -> None:
        self._may_fail("save")
        self.files = dict(files)
        self.saves += 1

    def time_floor(self) -> float:
        return self.floor

    def raise_time_floor(self, t: float) -> None:
        self._may_fail("raise_time_floor")
        self.floor = max(self.floor, t)

    def _may_fail(self, call: str) -> None:
        if call in self.failing:
            raise StoreError(f"{call}: the disk is full")


class TufRepository:
    """See the module. `root`, `targets`, `snapshot` and `timestamp` are what is signed next.

    Args:
        now: when it signs, seconds since the epoch. `now` and `life`, the seconds that each role is
            valid from then, can be changed later.
        name: another name makes other keys.
    """

    def __init__(
        self,
        now: float = NOW,
        *,
        name: str = "",
        root_threshold: int = 2,
        release_threshold: int = 2,
    ) -> None:
        self.now = now
        self.life = dict(LIFE)
        self.keys: dict[str, list[CryptoSigner]] = {
            "root": [key(f"{name}root{n}") for n in range(3)],
            "targets": [key(f"{name}release{n}") for n in range(2)],
            "snapshot": [key(f"{name}snapshot")],
            "timestamp": [key(f"{name}timestamp")],
            "director": [key(f"{name}director")],
            "operators": [key(f"{name}operator{n}") for n in range(2)],
        }
        thresholds = {"root": root_threshold, "targets": release_threshold}
        self.root = Root()
        self.root.version = 0
        for role in LIFE:
            self.set_keys(role, self.keys[role], thresholds.get(role, 1))
        self.targets = Targets(targets={PATH: target()}, delegations=self._delegations())
        self.snapshot = Snapshot()
        self.timestamp = Timestamp()
        for signed in (self.targets, self.snapshot, self.timestamp):
            signed.version = 0
        self.roots: list[bytes] = []
        self._former: list[CryptoSigner] = []
        self.files: dict[str, bytes] = {}
        self.add_root()

    @property
    def anchor(self) -> bytes:
        """The first root."""
        return self.roots[0]

    def set_keys(
        self, role: str, signers: Sequence[CryptoSigner], threshold: int | None = None
    ) -> None:
        """Name other keys for a role in the next root."""
        old = self.root.roles[role]
        self.keys[role] = list(signers)
        self.root.roles[role] = Role(
            [s.public_key.keyid for s in signers], threshold or old.threshold
        )
        for signer in signers:
            self.root.keys[signer.public_key.keyid] = signer.public_key

    def set_directors(self, signers: Sequence[CryptoSigner]) -> None:
        """Name other director keys in the next targets."""
        self.keys["director"] = list(signers)
        self.targets.delegations = self._delegations()

    def set_operators(self, signers: Sequence[CryptoSigner]) -> None:
        """Name other operator keys in the next targets."""
        self.keys["operators"] = list(signers)
        self.targets.delegations = self._delegations()

    def add_root(
        self, signers: Sequence[CryptoSigner] | None = None, *, version: int | None = None
    ) -> None:
        """Sign the next root; by its present and former keys if nothing else is said."""
        self.root.version = version or self.root.version + 1
        by = {s.public_key.keyid: s for s in [*self._former, *self.keys["root"]]}
        data = self.sign(self.root, list(by.values()) if signers is None else signers)
        self.roots.append(data)
        self.files[f"{self.root.version}.root.json"] = data
        self._former = list(self.keys["root"])

    def publish(self, **how: Any) -> bytes:
        """The message with what `publish_files`, which see, has signed."""
        self.publish_files(**how)
        return self.message()

    def publish_files(
        self,
        *,
        same: Sequence[str] = (),
        signers: Mapping[str, Sequence[CryptoSigner]] | None = None,
        hashes: bool = True,
    ) -> None:
        """Sign targets, snapshot and timestamp as they stand, each one version up.

        Args:
            same: roles that keep their version and time; e.g. because the test has set them.
            signers: who signs which role, where it is not its own keys.
            hashes: whether hashes and lengths are listed.
        """
        by = {**self.keys, **(signers or {})}
        for signed in (self.targets, self.snapshot, self.timestamp):
            if signed.type not in same:
                signed.version += 1
        data = self.sign(self.targets, by["targets"], stamp="targets" not in same)
        self.files[f"{self.targets.version}.targets.json"] = data
        root_version = len(self.roots)
        self.snapshot.meta["targets.json"] = self._listed(self.targets.version, data, hashes)
        self.snapshot.meta["root.json"] = MetaFile(root_version)
        data = self.sign(self.snapshot, by["snapshot"], stamp="snapshot" not in same)
        self.files[f"{self.snapshot.version}.snapshot.json"] = data
        self.timestamp.snapshot_meta = self._listed(self.snapshot.version, data, hashes)
        data = self.sign(self.timestamp, by["timestamp"], stamp="timestamp" not in same)
        self.files["timestamp.json"] = data

    def message(self, **changes: bytes | None) -> bytes:
        """The current set; `changes` are other texts by name, None: left out."""
        files: dict[str, Any] = {name: self.files[name] for name in self.names()}
        files |= changes
        return encode({name: data for name, data in files.items() if data is not None})

    def names(self) -> list[str]:
        """The files of the current set."""
        return [
            *(name for name in self.files if name.endswith(".root.json")),
            f"{self.targets.version}.targets.json",
            f"{self.snapshot.version}.snapshot.json",
            "timestamp.json",
        ]

    def sign(self, signed: Any, signers: Sequence[CryptoSigner], *, stamp: bool = True) -> bytes:
        """The content with these signatures; made now if `stamp`."""
        if stamp:
            signed.expires = moment(self.now + self.life[signed.type])
            signed.unrecognized_fields["x-vigia-issued"] = int(self.now)
        metadata = Metadata(copy.deepcopy(signed))
        for signer in signers:
            metadata.sign(signer, append=True)
        return metadata.to_bytes()

    def _listed(self, version: int, data: bytes, hashes: bool) -> MetaFile:
        return MetaFile.from_data(version, data, ["sha256"]) if hashes else MetaFile(version)

    def _delegations(self) -> Delegations:
        roles = ("director", "operators")
        return Delegations(
            keys={s.public_key.keyid: s.public_key for role in roles for s in self.keys[role]},
            roles={
                role: DelegatedRole(
                    role,
                    [s.public_key.keyid for s in self.keys[role]],
                    1,
                    terminating=True,
                    paths=[f"{role}/*"],
                )
                for role in roles
            },
        )
