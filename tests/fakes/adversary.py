"""A device under attack, and what must hold whatever the attacker does.

It serves release 3 and could go back to release 2. After each attack `unharmed` looks: the same
verified model serves, also after a restart; no floor fell; no plaintext lies on the disk; and the
next honest release still gets in.
"""

from __future__ import annotations

import base64
import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from cryptography.hazmat.primitives.hashes import SHA512

from agent.bundle.documents import Grant
from agent.bundle.grant import grant_info, seal_grant
from agent.bundle.manifest import Manifest, bundle_id, parse_manifest
from agent.bundle.seal import Packed
from agent.update.staging import FOLDER
from tests.fakes.tufrepository import TufRepository, key, target
from tests.fakes.updating import DEVICE, SLOT, Controller, Site
from tests.vectors.bundles import forge_manifest, tiny_model
from tests.vectors.chunkedencryption import encrypt

FAMILY = "conveyor"
SERVING = 3
NEXT = 50
"""The honest release after an attack; attackers use numbers between."""

EVIL = 9
"""The release that an attacker wants to run."""

THIEVES = [key("thief"), key("second thief")]

RUN_BYTES = 32


class Stand:
    """See the module.

    Args:
        folder: for everything.

    Attributes:
        old: release 1, signed but never assigned to this device.
        before, now: releases 2 and 3, committed.
        replayed: an honest trust message of before release 3.
    """

    def __init__(self, folder: Path) -> None:
        self.controller = Controller(folder / "controller")
        self.site = Site(folder, self.controller)
        self.site.start()
        self._secrets: list[bytes] = []
        self._noise = 0
        self.old, self.before = self.release(1), self.release(2)
        self.replayed = self.controller.trust()
        self.now = self.release(SERVING)
        self.site.trust()
        for packed in (self.before, self.now):
            self.commit(packed)

    def close(self) -> None:
        self.site.proofs.hold.clear()
        self.site.stop()

    def release(self, number: int, ballast: int = 0) -> Packed:
        """An honestly signed release with a model of its own; `ballast` bytes make it larger."""
        model = tiny_model(number)
        more = {"ballast.bin": random.Random(number).randbytes(ballast)} if ballast else {}
        packed = self.controller.release(number, files={"model.onnx": model, **more})
        self._secrets += [*runs(model), *forms(packed.data_key)]
        return packed

    def thief(self, number: int) -> tuple[TufRepository, Packed]:
        """A copy of the repository with all of its keys, in which there is one release more."""
        owner = self.controller.repository
        packed = self.release(number)
        thief = copy.copy(owner)
        for name in ("root", "targets", "snapshot", "timestamp", "roots", "files", "_former"):
            signed = name in owner.keys
            setattr(thief, name, (copy.deepcopy if signed else copy.copy)(getattr(owner, name)))
        thief.keys = dict(owner.keys)
        del owner.targets.targets[parse_manifest(packed.manifest).target]
        return thief, packed

    def pass_time(self, seconds: float) -> None:
        """For the device and the controller."""
        self.site.clock += seconds
        self.controller.now = self.controller.repository.now = self.site.clock

    def commit(self, packed: Packed) -> None:
        count = len(self.site.reports) + 1
        self.site.assign(packed)
        report = self.site.wait_outcome(count)
        assert (report.outcome, report.sha256) == ("COMMITTED", packed.digest), report.reason

    def assigned(self, packed: Packed, **changes: Any) -> bytes:
        """What the director signs for this device, honest or robbed."""
        return self.controller.assign(packed, self.site.keys.kem_public, **changes)

    def rejected(self, envelope: bytes) -> str:
        """Send an assignment that is accepted and fails; gives the reason."""
        count = len(self.site.reports) + 1
        self.site.inbox.assignment("", envelope)
        report = self.site.wait_outcome(count)
        assert report.outcome == "REJECTED"
        return report.reason

    def heard(self) -> None:
        """Wait until all that was sent has been looked at."""
        # The first may be heard in the same turn as what was sent before it, or even before that.
        for _ in range(2):
            self._noise += 1
            self.site.inbox.command("", b"noise")
            self.site.wait_refused("command", self._noise)

    def attacked(self, envelope: bytes) -> None:
        """Send an assignment that must not be begun."""
        began = self.site.record()
        self.site.inbox.assignment("", envelope)
        self.heard()
        assert self.site.record() == began
        assert began.resting

    def grant(self, packed: Packed) -> Grant:
        """The data key of a bundle, for the next assignment of this device."""
        info = grant_info(packed.digest, DEVICE, self.controller.counter + 1)
        return seal_grant("p256", self.site.keys.kem_public, packed.data_key, info)

    def forged(self, number: int, change: Callable[[dict[str, Any]], None]) -> Callable[[], bytes]:
        """A release whose manifest says something else, signed as it is by the release keys.

        Returns:
            Makes the director's assignment of it.
        """
        packed = self.controller.release(number, files={"model.onnx": tiny_model(number)})
        path = parse_manifest(packed.manifest).target
        folder = self.controller.folder / bundle_id(packed.digest)
        forged = forge_manifest(folder, packed, change)
        folder.rename(self.controller.folder / bundle_id(forged.digest))
        self.controller.repository.targets.targets[path] = target(forged.manifest, number, path)
        self.site.trust()
        return lambda: self.assigned(
            packed,
            sha256=forged.digest,
            release_counter=number,
            grant=self.grant(forged),
        )

    def unharmed(self, *, also_committed: bool = True) -> None:
        """See the module.

        Args:
            also_committed: whether the next honest release is brought in at the end.
        """
        self._serves()
        self.site.stop()
        self.site.start()
        # Garbage is counted anew.
        self._noise = 0
        self._serves()
        if also_committed:
            packed = self.release(NEXT)
            self.site.trust()
            self.commit(packed)
            assert self.site.proofs.serving == packed.digest
            assert self.site.store.floor(FAMILY) == NEXT
        self.no_plaintext()

    def no_plaintext(self) -> None:
        """No file below the state folder has anything of a model, or a data key."""
        for path in self.site.state.rglob("*"):
            content = path.read_bytes() if path.is_file() else b""
            assert not [secret for secret in self._secrets if secret in content], path

    def _serves(self) -> None:
        site = self.site
        installed = site.store.active(SLOT)
        assert installed is not None
        assert site.proofs.serving == installed.digest == self.now.digest
        assert site.store.floor(FAMILY) == SERVING
        assert {self.now.digest} <= {p.name for p in (site.state / FOLDER).iterdir()}


def forge_payload(manifest: Manifest, data_key: bytes, plaintext: bytes) -> bytes:
    """A valid ciphertext of another plaintext under a bundle's own key, salt and commitment."""
    sealed = manifest.encryption
    return encrypt(plaintext, data_key, sealed.context.encode(), sealed.salt_bytes, SHA512())


def runs(model: bytes) -> list[bytes]:
    """Stretches of a model's largest weight, which no other file has."""
    weights = onnx.load_from_string(model).graph.initializer
    content = max((weight.raw_data for weight in weights), key=len)
    assert len(content) > 4 * RUN_BYTES
    step = len(content) // 4
    return [content[at : at + RUN_BYTES] for at in range(0, len(content) - RUN_BYTES, step)]


def forms(key: bytes) -> list[bytes]:
    """A key as it could lie in a file."""
    return [key, key.hex().encode(), base64.b64encode(key), base64.urlsafe_b64encode(key)]
