"""What devices are shown: online keys name, in snapshot and timestamp, what offline keys signed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from agent.bundle.trustmessage import TIMESTAMP, encode, file_name
from agent.bundle.trustset import bundle_errors, verify_set
from fleet.errors import FleetError
from fleet.metadatafolder import replace
from fleet.roledata import LIFETIME_S, role_keys, snapshot_of, stamp, timestamp_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from securesystemslib.signer import Signer
    from tuf.api.metadata import Signed

    from agent.bundle.trustset import TrustSet
    from fleet.metadatafolder import MetadataFolder

RENEW_SHARE = 0.5
"""Online roles are signed anew when less than this share of their lifetime is left."""

_Online = TypeVar("_Online", Snapshot, Timestamp)


class Publication:
    """Makes and reads the published set.

    Args:
        folder: where it lies.
        now: seconds since the epoch.
    """

    def __init__(self, folder: MetadataFolder, now: Callable[[], float]) -> None:
        self._folder = folder
        self._now = now

    def present(self) -> TrustSet | None:
        """What is published, verified; None before the first time.

        Raises:
            BundleError, FleetError: files are damaged or missing.
        """
        if self._folder.read(self._folder.metadata / TIMESTAMP) is None:
            return None
        files = {TIMESTAMP: self._folder.metadata_file(TIMESTAMP)}
        with bundle_errors():
            timestamp: Timestamp = Metadata[Timestamp].from_bytes(files[TIMESTAMP]).signed
            name = file_name("snapshot", timestamp.snapshot_meta.version)
            files[name] = self._folder.metadata_file(name)
            listed = Metadata[Snapshot].from_bytes(files[name]).signed.meta
            name = file_name("targets", listed["targets.json"].version)
            files[name] = self._folder.metadata_file(name)
            roots = self._roots(listed["root.json"].version)
            return verify_set(roots[file_name("root", 1)], files | roots)

    def renew(self, root: Root, targets: Targets, signers: Sequence[Signer]) -> bool:
        """Publish these, which are on disk; or sign anew what would end soon.

        Returns:
            Whether there is anything new.

        Raises:
            FleetError: a signer is missing, or an offline role has ended.
        """
        self._check_alive(root, targets)
        present = self.present()
        if (
            present is not None
            and (present.root.version, present.targets.version) == (root.version, targets.version)
            and not self._due(present.snapshot)
        ):
            if not self._due(present.timestamp):
                return False
            version = present.snapshot.version
            snapshot = present.files[file_name("snapshot", version)]
        else:
            version = present.snapshot.version + 1 if present else 1
            content = snapshot_of(
                (root.version, self._folder.metadata_file(file_name("root", root.version))),
                (
                    targets.version,
                    self._folder.metadata_file(file_name("targets", targets.version)),
                ),
            )
            snapshot = self._sign(stamp(content, version, self._now()), root, signers)
        timestamp = self._sign(
            stamp(
                timestamp_of(version, snapshot),
                present.timestamp.version + 1 if present else 1,
                self._now(),
            ),
            root,
            signers,
        )
        self._write(root, targets, (file_name("snapshot", version), snapshot), timestamp)
        return True

    def _write(
        self, root: Root, targets: Targets, snapshot: tuple[str, bytes], timestamp: bytes
    ) -> None:
        roots = self._roots(root.version)
        target_name = file_name("targets", targets.version)
        files = {
            **roots,
            target_name: self._folder.metadata_file(target_name),
            snapshot[0]: snapshot[1],
            TIMESTAMP: timestamp,
        }
        # A set that devices would refuse must not get out, nor one too large for a message.
        encode(verify_set(roots[file_name("root", 1)], files).files)
        replace(self._folder.metadata / snapshot[0], snapshot[1])
        replace(self._folder.metadata / TIMESTAMP, timestamp)
        self._folder.prune({snapshot[0], target_name})

    def _sign(self, signed: _Online, root: Root, signers: Sequence[Signer]) -> bytes:
        keys = role_keys(root, signed.type)
        ids = {key.keyid for key in keys.keys}
        own = [signer for signer in signers if signer.public_key.keyid in ids]
        if len({signer.public_key.keyid for signer in own}) < keys.threshold:
            wanted = ", ".join(sorted(key_id[:16] for key_id in ids))
            raise FleetError(
                f"{signed.type} needs {keys.threshold} of its keys, {len(own)} were given: {wanted}"
            )
        metadata = Metadata[Any](signed)
        for signer in own:
            metadata.sign(signer, append=True)
        return metadata.to_bytes()

    def _roots(self, newest: int) -> dict[str, bytes]:
        names = [file_name("root", version) for version in range(1, newest + 1)]
        return {name: self._folder.metadata_file(name) for name in names}

    def _due(self, signed: Signed) -> bool:
        left_s = signed.expires.timestamp() - self._now()
        return left_s < RENEW_SHARE * LIFETIME_S[signed.type]

    def _check_alive(self, *offline: Signed) -> None:
        for signed in offline:
            if self._now() >= signed.expires.timestamp():
                raise FleetError(
                    f"{signed.type} version {signed.version} has ended; have its keys renew it"
                )
