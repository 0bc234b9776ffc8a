"""From a sealed bundle on disk to an opened one in memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.bundle.content import check_model
from agent.bundle.grant import grant_info
from agent.bundle.index import BlockIndex
from agent.bundle.manifest import parse_manifest
from agent.bundle.open import open_bundle
from agent.errors import BundleError, KeyStoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.bundle.documents import Grant
    from agent.bundle.keys import DeviceKeys
    from agent.bundle.manifest import Manifest
    from agent.bundle.open import ModelBundle
    from agent.update.memoryfolder import MemoryFolder
    from agent.update.staging import Staging


@dataclass(frozen=True, slots=True)
class Opener:
    """Opens bundles that lie sealed in a staging folder.

    Attributes:
        device: device id.
        keys: of the device.
        memory: where plaintext may lie.
    """

    device: str
    keys: DeviceKeys
    memory: MemoryFolder

    def manifest(self, staging: Staging, digest: str) -> Manifest:
        """The staged manifest, if it is the one with this digest.

        Raises:
            BundleError: it is not there, or another.
            StoreError: it cannot be read.
        """
        data = staging.manifest()
        if data is None or hashlib.sha256(data).hexdigest() != digest:
            raise BundleError(f"the manifest of bundle {digest[:12]} is missing or damaged")
        return parse_manifest(data)

    def index(self, staging: Staging, manifest: Manifest) -> BlockIndex:
        """The staged index, if it is the manifest's.

        Raises:
            BundleError: it is not there, or another.
            StoreError: it cannot be read.
        """
        data = staging.index()
        if data is None:
            raise BundleError(f"the index of {manifest.target} is missing")
        return BlockIndex.parse(data, manifest)

    def open(
        self,
        staging: Staging,
        digest: str,
        grant: Grant,
        counter: int,
        tell: Callable[[int, int], None],
    ) -> ModelBundle:
        """Decrypt a bundle into memory, and check everything in it.

        What lies in memory of this bundle already is removed first.

        Args:
            staging: where it lies sealed.
            digest: of its manifest.
            grant: the data key, for this device.
            counter: of the assignment that the grant belongs to.
            tell: takes bytes done and in all.

        Raises:
            BundleError: it is damaged, or its content is not acceptable.
            KeyStoreError: the device's key cannot be used, or the grant is not for it.
            StoreError: there is no room in memory.
        """
        manifest = self.manifest(staging, digest)
        index = self.index(staging, manifest)
        try:
            data_key = self.keys.open_grant(grant, grant_info(digest, self.device, counter))
        except BundleError as error:
            # The assignment is at fault, not the bundle.
            raise KeyStoreError(f"the grant does not open bundle {digest[:12]}: {error}") from error
        folder = self.memory.make(digest, manifest.plaintext_bytes)
        try:
            bundle = open_bundle(manifest, index, staging.payload, data_key, folder, tell)
            check_model(bundle.model, manifest)
        except BaseException:
            self.memory.remove(digest)
            raise
        return bundle
