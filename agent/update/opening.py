"""From a sealed bundle on disk to an opened one in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.bundle.documents import Grant
from agent.bundle.grant import grant_info
from agent.bundle.index import BlockIndex
from agent.bundle.manifest import digest_of, parse_manifest
from agent.bundle.open import open_bundle
from agent.bundle.strict import decode
from agent.errors import BundleError, DamageError, KeyStoreError, ManifestError
from agent.update.offer import rules
from agent.update.ports import Candidate
from agent.update.staging import Staging

if TYPE_CHECKING:
    from pathlib import Path

    from agent.bundle.documents import Assignment
    from agent.bundle.keys import DeviceKeys
    from agent.bundle.manifest import Manifest
    from agent.bundle.seal import Tell
    from agent.update.memoryfolder import MemoryFolder
    from agent.update.record import Installed

MAX_GRANT_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Opener:
    """Opens bundles that lie sealed on disk.

    Attributes:
        device: device id.
        keys: of the device.
        memory: where plaintext may lie.
        bundles: folder of sealed bundles.
    """

    device: str
    keys: DeviceKeys
    memory: MemoryFolder
    bundles: Path

    def staging(self, digest: str) -> Staging:
        """Where a bundle lies sealed."""
        return Staging(self.bundles, digest)

    def manifest(self, digest: str) -> Manifest:
        """The staged manifest of a bundle, if it is the one with this digest.

        Raises:
            DamageError: it is not there, or another.
            ManifestError: it is no manifest.
            StoreError: it cannot be read.
        """
        data = self.staging(digest).manifest()
        if data is None or digest_of(data) != digest:
            raise DamageError(f"the manifest of bundle {digest[:12]} is missing or damaged")
        return parse_manifest(data)

    def index(self, digest: str, manifest: Manifest) -> BlockIndex:
        """The staged index, if it is the manifest's.

        Raises:
            DamageError: it is not there, or another.
            StoreError: it cannot be read.
        """
        data = self.staging(digest).index()
        try:
            return BlockIndex.parse(data or b"", manifest)
        except ManifestError as error:
            # It was looked at before it was put there.
            raise DamageError(
                f"the index of bundle {digest[:12]} is missing or damaged: {error}"
            ) from error

    def place(self, slot: str, digest: str) -> str:
        """The name of the folder in memory of a slot's bundle.

        Each slot has its own, so that a bundle that two slots share is not taken from one when the
        other is done with it.
        """
        return f"{digest}.{slot}"

    def installed(self, installed: Installed, tell: Tell = lambda _done, _total: None) -> Candidate:
        """Open what is installed; see `open`."""
        return self.open(
            installed.slot, installed.digest, installed.grant, installed.counter, None, tell
        )

    def open(
        self,
        slot: str,
        digest: str,
        grant: bytes,
        counter: int,
        assignment: Assignment | None,
        tell: Tell,
    ) -> Candidate:
        """Decrypt a bundle into memory, and check everything in it.

        What lies in memory of this bundle for this slot already is removed first.

        Args:
            slot: that it is for.
            digest: of its manifest.
            grant: the data key, for this device, as JSON.
            counter: of the assignment that the grant belongs to.
            assignment: whose rules count where they are stricter, or None.
            tell: takes bytes done and in all.

        Raises:
            DamageError: it is not on the disk as it was put there.
            BundleError: its content is not acceptable.
            KeyStoreError: the device's key cannot be used, or the grant is not for it.
            StoreError: there is no room in memory.
        """
        manifest = self.manifest(digest)
        index = self.index(digest, manifest)
        data_key = self._data_key(digest, grant, counter)
        folder = self.memory.make(self.place(slot, digest), manifest.plaintext_bytes)
        payload = self.staging(digest).payload
        bundle = open_bundle(manifest, index, payload, data_key, folder, tell)
        return Candidate(slot, digest, manifest, bundle.folder, rules(manifest, assignment))

    def _data_key(self, digest: str, grant: bytes, counter: int) -> bytes:
        try:
            sealed = decode(Grant, grant, "grant", MAX_GRANT_BYTES)
            return self.keys.open_grant(sealed, grant_info(digest, self.device, counter))
        except BundleError as error:
            # The assignment is at fault, not the bundle.
            raise KeyStoreError(f"the grant does not open bundle {digest[:12]}: {error}") from error
