"""The controller's TUF repository: what root keys, release keys and online keys have signed.

A change has three steps, which may be on three machines and days apart:

1. **Staged** here: a signing request lies in `pending/` (`fleet.signing`). Staging again before it
   is complete adds to the request, and signatures over the earlier one count no more.
2. **Signed** by enough holders of offline keys: `add_signature` where the key is, `attach` here.
3. **Completed** here, then **published**: online keys sign a snapshot and a timestamp that name it.

`message` gives what is published, checked as a device checks it. Until step 3 it is the old set.
"""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING

from tuf.api.metadata import Root, TargetFile, Targets

from agent.bundle.manifest import digest_of, parse_manifest
from agent.bundle.trustmessage import encode, file_name
from agent.bundle.trustset import MAX_APPROVALS, POLICY, policy_of, release_counter
from fleet.errors import FleetError
from fleet.metadatafolder import MetadataFolder
from fleet.offlineroles import ROLES, OfflineRoles, signed_for
from fleet.pending import Pending
from fleet.publication import Publication
from fleet.roledata import (
    DIRECTOR,
    OPERATORS,
    check_apart,
    delegate,
    delegated_keys,
    role_keys,
    root_with,
)
from fleet.signing import KeySet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from securesystemslib.signer import Key, Signer

    from agent.bundle.trustset import TrustSet


class Repository:
    """Stages, completes and publishes. All methods raise `FleetError`; see each for when.

    Args:
        folder: the metadata, mode 0700; holds no secret.
        now: seconds since the epoch.
    """

    def __init__(self, folder: Path, now: Callable[[], float] = time.time) -> None:
        self._folder = MetadataFolder(folder)
        self._pending = Pending(self._folder)
        self._publication = Publication(self._folder, now)
        self._offline = OfflineRoles(self._folder, self._pending, now)

    def create(
        self,
        *,
        root: KeySet,
        release: KeySet,
        snapshot_key: Key,
        timestamp_key: Key,
        director_key: Key,
        operator_keys: Sequence[Key] = (),
    ) -> list[Path]:
        """Stage the first root and the first, empty targets.

        Returns:
            Their signing requests.

        Raises:
            FleetError: there is a repository already, or keys are not kept apart.
        """
        with self._folder.alone():
            if self._folder.accepted():
                raise FleetError("there is a repository already; take another folder")
            sets = {
                "root": root,
                "targets": release,
                "snapshot": KeySet((snapshot_key,)),
                "timestamp": KeySet((timestamp_key,)),
            }
            first = root_with(Root(), sets)
            check_apart(first, [director_key], "director keys")
            targets = Targets()
            delegate(targets, DIRECTOR, [director_key])
            delegate(targets, OPERATORS, operator_keys)
            self._offline.ask(first)
            self._offline.ask(targets)
            return [self._pending.path(role) for role in ROLES]

    def stage_target(self, manifest: bytes) -> Path:
        """Stage a bundle's release.

        Returns:
            The signing request for the release keys.

        Raises:
            FleetError: it is released already, or its version or counter is used.
            ManifestError: it is no manifest.
        """
        new = parse_manifest(manifest)
        digest = digest_of(manifest)

        def add(targets: Targets) -> None:
            old = targets.targets.get(new.target)
            if old is not None and old.hashes.get("sha256") != digest:
                raise FleetError(
                    f"{new.target} is another bundle already; give this one a version of its own"
                )
            family = new.target.split("/")[1]
            for path, file in targets.targets.items():
                counter = release_counter(file.custom)
                if path != new.target and path.split("/")[1] == family:
                    _check_counter(path, counter, new.release_counter)
            targets.targets[new.target] = TargetFile(
                len(manifest),
                {"sha256": digest},
                new.target,
                {"custom": {"release_counter": new.release_counter}},
            )

        if self.has_target(manifest):
            raise FleetError(f"{new.target} is released already")
        return self._stage_targets(add)

    def has_target(self, manifest: bytes) -> bool:
        """Whether the release keys have signed this very manifest."""
        found = self._offline.current(Targets).signed.targets.get(parse_manifest(manifest).target)
        return found is not None and found.hashes.get("sha256") == digest_of(manifest)

    def withdraw_target(self, path: str) -> Path:
        """Stage that a bundle is released no longer: no device begins with it any more."""

        def remove(targets: Targets) -> None:
            if targets.targets.pop(path, None) is None:
                raise FleetError(f"{path} is not released")

        return self._stage_targets(remove)

    def set_directors(self, keys: Sequence[Key]) -> Path:
        """Stage other director keys; assignments of the old ones count no more."""
        if not keys:
            raise FleetError("without a director key nothing can be assigned; give one")
        return self._stage_targets(lambda targets: delegate(targets, DIRECTOR, keys))

    def set_operators(self, keys: Sequence[Key]) -> Path:
        """Stage who may command and approve; never fewer than must approve a roll-out."""

        def change(targets: Targets) -> None:
            delegate(targets, OPERATORS, keys)
            _check_approvals(policy_of(targets).approvals, len(keys))

        return self._stage_targets(change)

    def set_policy(self, approvals: int) -> Path:
        """Stage how many operators must approve a roll-out."""
        if not 0 <= approvals <= MAX_APPROVALS:
            raise FleetError(f"{approvals} approvals cannot be asked; take 0 to {MAX_APPROVALS}")

        def change(targets: Targets) -> None:
            _check_approvals(approvals, len(delegated_keys(targets, OPERATORS)))
            targets.unrecognized_fields[POLICY] = {"approvals": approvals}

        return self._stage_targets(change)

    def renew_targets(self) -> Path:
        """Stage the same targets with a new expiry."""
        return self._stage_targets(lambda _targets: None)

    def rotate_root(
        self,
        *,
        root: KeySet | None = None,
        release: KeySet | None = None,
        snapshot: KeySet | None = None,
        timestamp: KeySet | None = None,
    ) -> list[Path]:
        """Stage a new root with the given keys replaced; without any: a new expiry.

        After a theft of online keys replace both, snapshot and timestamp: only then devices forget
        the versions that the thief may have signed.

        Returns:
            The signing requests: root's, and that of targets where they must be signed anew.
        """
        given = {"root": root, "targets": release, "snapshot": snapshot, "timestamp": timestamp}
        sets = {name: keys for name, keys in given.items() if keys}
        with self._folder.alone():
            base = self._offline.base(Root)
            self._offline.ask(root_with(base, sets))
            pending = self._pending.request("targets")
            targets = self._offline.current(Targets)
            if pending:
                # Others may have to sign it now.
                assert isinstance(pending.signed, Targets)
                self._offline.ask(pending.signed)
            elif not signed_for(self._offline.base(Root), targets):
                self._offline.ask(targets.signed)
            return self.pending()

    def revoke_release_key(self, key_id: str, replacement: Key | None = None) -> list[Path]:
        """Stage a root without this release key; returns as `rotate_root`."""
        present = role_keys(self._offline.base(Root), "targets")
        kept = tuple(key for key in present.keys if key.keyid != key_id)
        if len(kept) == len(present.keys):
            raise FleetError(f"{key_id[:16]} is no release key")
        keys = (*kept, replacement) if replacement else kept
        return self.rotate_root(release=KeySet(keys, present.threshold))

    def add_release_key(self, key: Key) -> list[Path]:
        """Stage a root with one more release key; returns as `rotate_root`."""
        present = role_keys(self._offline.base(Root), "targets")
        return self.rotate_root(release=KeySet((*present.keys, key), present.threshold))

    def pending(self) -> list[Path]:
        """The signing requests that are not complete."""
        return [self._pending.path(role) for role in ROLES if self._pending.request(role)]

    def attach(self, path: Path) -> None:
        """Take in a signature that was made elsewhere.

        Raises:
            FleetError: it is not over what is pending, or of no key that is asked.
            ManifestError: it is no signature.
        """
        with self._folder.alone():
            self._pending.attach(path)

    def missing(self) -> list[str]:
        """Which signatures are still wanted, in sentences."""
        return self._offline.missing()

    def complete(self) -> list[str]:
        """Accept what is wholly signed and fits together.

        Returns:
            The roles that are new: "root", "targets".

        Raises:
            FleetError: nothing is; says which signatures are wanted.
        """
        with self._folder.alone():
            root, targets = (
                self._pending.wholly_signed("root"),
                self._pending.wholly_signed("targets"),
            )
            have = self._folder.accepted()
            old_root = self._offline.current(Root) if have else None
            old_targets = self._offline.current(Targets) if have else None
            # A new root may need new targets with it, and the other way round.
            for pair in ((root, targets), (root, old_targets), (old_root, targets)):
                if pair[0] and pair[1] and signed_for(pair[0].signed, pair[1]):
                    return self._offline.accept(pair[0], pair[1])
        raise FleetError("; ".join(self.missing()) or "nothing is pending")

    def publish_online(self, signers: Sequence[Signer]) -> bool:
        """Publish what was completed, or renew what online keys signed before it ends.

        Args:
            signers: with the keys of snapshot and timestamp.

        Returns:
            Whether there is a new message; otherwise nothing was due.

        Raises:
            FleetError: a signer is missing, or an offline role has ended.
        """
        with self._folder.alone():
            root, targets = self._offline.current(Root), self._offline.current(Targets)
            for role in ROLES:
                if self._pending.request(role) is None:
                    # A crash may have left what was accepted.
                    self._pending.discard(role)
            return self._publication.renew(root.signed, targets.signed, signers)

    def published(self) -> TrustSet:
        """What is published, verified.

        Raises:
            FleetError: nothing is published yet, or files are missing.
            BundleError: files are damaged.
        """
        present = self._publication.present()
        if present is None:
            raise FleetError("nothing is published yet; complete and publish first")
        return present

    def message(self) -> bytes:
        """What is published, as the trust message; raises as `published`."""
        return encode(self.published().files)

    def anchor(self) -> bytes:
        """The newest published root: what a device is enrolled with; raises as `published`."""
        published = self.published()
        return published.files[file_name("root", published.root.version)]

    def earlier_roots(self) -> list[bytes]:
        """The published roots before the newest, the oldest first; raises as `published`."""
        published = self.published()
        versions = range(1, published.root.version)
        return [published.files[file_name("root", version)] for version in versions]

    def accepted_root(self) -> Root:
        """The newest completed root, published or not; `FleetError` if there is none."""
        return self._offline.current(Root).signed

    def next_root(self) -> Root:
        """The root that the next change builds on: what is pending, or the newest completed."""
        return self._offline.base(Root)

    def accepted_targets(self) -> Targets:
        """The newest completed targets, published or not; `FleetError` if there are none."""
        return self._offline.current(Targets).signed

    def expiries(self) -> dict[str, float]:
        """When each published role ends, seconds since the epoch; raises as `published`."""
        present = self.published()
        roles = (present.root, present.targets, present.snapshot, present.timestamp)
        return {signed.type: signed.expires.timestamp() for signed in roles}

    def _stage_targets(self, change: Callable[[Targets], None]) -> Path:
        with self._folder.alone():
            targets = copy.deepcopy(self._offline.base(Targets))
            change(targets)
            check_apart(
                self._offline.base(Root), delegated_keys(targets, DIRECTOR), "director keys"
            )
            self._offline.ask(targets)
            return self._pending.path("targets")


def _check_approvals(needed: int, known: int) -> None:
    if needed > known:
        raise FleetError(
            f"{needed} approvals, but only {known} operators have keys: no roll-out could begin; "
            "add operators, or ask for fewer approvals with `vigia fleet operator approvals`"
        )


def _check_counter(path: str, counter: int, new: int) -> None:
    if counter >= new:
        raise FleetError(f"{path} has release counter {counter}, this has {new}; it must be above")
