"""Cases for a TUF client, in the spirit of tuf-conformance: init, refresh, download, from a file.

`python -m tests.vectors.trustcases` writes them anew to `trust/cases.json`, which any client can be
run against: nothing of this repository is needed to read it.

    {"texts": [...], "cases": [{"name", "root": i, "steps": [step, ...]}, ...]}
    {"do": "refresh", "now": t, "files": {name: i}, "error": null | kind, "versions": {role: n}}
    {"do": "download", "path": p, "content": i, "error": null | kind}

`i` is the number of a text. `versions` are what the client must trust after the step, `kind` is one
of signature, rollback, expired and malformed. A client may be started anew between any two steps.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from securesystemslib.signer import CryptoSigner

from agent.bundle.trustmessage import parse
from tests.fakes.tufrepository import DAY, MANIFEST, NOW, PATH, TufRepository, key, target

CASES = Path(__file__).parent / "trust" / "cases.json"


class Script:
    """One case as it is written: a repository that changes, and what the client must say to it."""

    def __init__(self, name: str, texts: list[str]) -> None:
        self.repo = TufRepository()
        self.steps: list[dict[str, Any]] = []
        self.name = name
        self._texts = texts
        self._trusted: dict[str, int] = {}

    def refresh(
        self, error: str | None = None, *, message: bytes | None = None, **how: Any
    ) -> None:
        """Publish, or take `message`; the client accepts it, or gives an error and stays."""
        message = message or self.repo.publish(**how)
        if error is None:
            roles = ("timestamp", "snapshot", "targets")
            self._trusted = {role: getattr(self.repo, role).version for role in roles}
            self._trusted["root"] = len(self.repo.roots)
        self.steps.append({
            "do": "refresh",
            "now": self.repo.now,
            "files": {name: self._text(data) for name, data in parse(message).items()},
            "error": error,
            "versions": dict(self._trusted),
        })  # fmt: skip

    def download(self, content: bytes, error: str | None = None, path: str = PATH) -> None:
        """The client looks a target up and is given `content` for it."""
        self.steps.append(
            {"do": "download", "path": path, "content": self._text(content), "error": error}
        )

    def case(self) -> dict[str, Any]:
        return {"name": self.name, "root": self._text(self.repo.roots[0]), "steps": self.steps}

    def _text(self, data: bytes) -> int:
        text = data.decode()
        if text not in self._texts:
            self._texts.append(text)
        return self._texts.index(text)


SCRIPTS: list[Callable[[Script], None]] = []


def script(function: Callable[[Script], None]) -> Callable[[Script], None]:
    SCRIPTS.append(function)
    return function


@script
def basic_init_refresh_and_download(s: Script) -> None:
    s.refresh()
    s.download(MANIFEST)


@script
def metadata_without_hashes_and_lengths(s: Script) -> None:
    s.refresh(hashes=False)
    s.refresh(hashes=True)
    s.refresh(hashes=False)


@script
def nothing_changes(s: Script) -> None:
    s.refresh()
    s.refresh(message=s.repo.message())


@script
def only_the_timestamp_changes(s: Script) -> None:
    s.refresh()
    s.refresh(same=["snapshot", "targets"])


@script
def timestamp_of_the_same_version_with_other_content_is_passed_over(s: Script) -> None:
    s.refresh()
    s.repo.timestamp.unrecognized_fields["other"] = True
    message = s.repo.publish(same=["timestamp", "snapshot", "targets"])
    s.refresh(message=message)


@script
def timestamp_rollback(s: Script) -> None:
    s.refresh()
    s.refresh()
    s.repo.timestamp.version = 1
    s.refresh("rollback", same=["timestamp"])


@script
def snapshot_rollback(s: Script) -> None:
    s.refresh()
    s.refresh()
    s.repo.snapshot.version = 1
    s.refresh("rollback", same=["snapshot"])


@script
def targets_rollback(s: Script) -> None:
    s.refresh()
    s.refresh()
    s.repo.targets.version = 1
    s.refresh("rollback", same=["targets"])


@script
def targets_rollback_though_the_local_snapshot_no_longer_fits_its_hash(s: Script) -> None:
    s.refresh(hashes=False)
    s.refresh()
    s.repo.targets.version = 1
    s.refresh("rollback", same=["targets"], hashes=False)


@script
def snapshot_that_forgets_the_targets(s: Script) -> None:
    s.refresh()
    s.repo.publish()
    del s.repo.snapshot.meta["targets.json"]
    s.repo.snapshot.version += 1
    data = s.repo.sign(s.repo.snapshot, s.repo.keys["snapshot"])
    s.repo.timestamp.version += 1
    s.repo.timestamp.snapshot_meta.version = s.repo.snapshot.version
    s.repo.timestamp.snapshot_meta.hashes = s.repo.timestamp.snapshot_meta.length = None
    timestamp = s.repo.sign(s.repo.timestamp, s.repo.keys["timestamp"])
    changes = {f"{s.repo.snapshot.version}.snapshot.json": data, "timestamp.json": timestamp}
    s.repo.files |= changes
    s.refresh("malformed", message=s.repo.message())


@script
def snapshot_fast_forward_recovery(s: Script) -> None:
    s.repo.snapshot.version = s.repo.timestamp.version = 99_998
    s.refresh()
    s.repo.snapshot.version = s.repo.timestamp.version = 0
    s.refresh("rollback")
    for role in ("snapshot", "timestamp"):
        s.repo.set_keys(role, [key(f"recovered {role}")])
    s.repo.add_root()
    s.refresh()
    s.refresh()


@script
def timestamp_fast_forward_recovery(s: Script) -> None:
    s.repo.timestamp.version = 99_998
    s.refresh()
    s.repo.timestamp.version = 0
    s.refresh("rollback")
    s.repo.set_keys("timestamp", [key("recovered timestamp")])
    s.repo.add_root()
    s.refresh()


@script
def targets_of_another_hash(s: Script) -> None:
    s.refresh()
    s.repo.publish()
    name = f"{s.repo.targets.version}.targets.json"
    s.repo.targets.unrecognized_fields["other"] = 1
    other = s.repo.sign(s.repo.targets, s.repo.keys["targets"])
    s.refresh("malformed", message=s.repo.message(**{name: other}))


@script
def targets_of_another_version(s: Script) -> None:
    s.refresh()
    old = s.repo.files["1.targets.json"]
    s.repo.publish(hashes=False)
    s.refresh("rollback", message=s.repo.message(**{"2.targets.json": old}))


@script
def snapshot_of_another_version(s: Script) -> None:
    s.refresh()
    old = s.repo.files["1.snapshot.json"]
    s.repo.publish(hashes=False)
    s.refresh("rollback", message=s.repo.message(**{"2.snapshot.json": old}))


@script
def timestamp_missing(s: Script) -> None:
    s.repo.publish()
    s.refresh("malformed", message=s.repo.message(**{"timestamp.json": None}))


@script
def role_without_signatures(s: Script) -> None:
    s.refresh()
    for role in ("timestamp", "snapshot", "targets"):
        s.refresh("signature", signers={role: []})


@script
def role_with_wrong_signatures(s: Script) -> None:
    for role in ("timestamp", "snapshot", "targets"):
        s.refresh("signature", signers={role: [key("wrong 1"), key("wrong 2")]})


@script
def threshold_of_targets(s: Script) -> None:
    s.refresh("signature", signers={"targets": s.repo.keys["targets"][:1]})
    s.refresh()


@script
def duplicate_signatures_of_one_key(s: Script) -> None:
    s.repo.publish()
    metadata = json.loads(s.repo.files["1.targets.json"])
    metadata["signatures"][1] = metadata["signatures"][0]
    changes = {"1.targets.json": json.dumps(metadata).encode()}
    s.refresh("malformed", message=s.repo.message(**changes))


@script
def duplicate_key_ids_in_root(s: Script) -> None:
    s.refresh()
    s.repo.root.roles["timestamp"].keyids *= 2
    s.repo.add_root()
    s.refresh("malformed")


@script
def root_rotation(s: Script) -> None:
    s.refresh()
    s.repo.set_keys("root", [key(f"second root {n}") for n in range(3)])
    s.repo.add_root()
    s.refresh()
    s.repo.set_keys("root", [key(f"third root {n}") for n in range(2)], 1)
    s.repo.add_root()
    s.refresh()


@script
def several_root_rotations_at_once(s: Script) -> None:
    for number in range(6):
        s.repo.set_keys("root", [key(f"root {number} {n}") for n in range(3)])
        s.repo.add_root()
    s.refresh()


@script
def root_not_signed_by_the_former_keys(s: Script) -> None:
    s.refresh()
    s.repo.set_keys("root", [key("thief 1"), key("thief 2")])
    s.repo.add_root(s.repo.keys["root"])
    s.refresh("signature")


@script
def root_not_signed_by_its_own_keys(s: Script) -> None:
    s.refresh()
    former = s.repo.keys["root"]
    s.repo.set_keys("root", [key("new 1"), key("new 2")])
    s.repo.add_root(former)
    s.refresh("signature")


@script
def root_with_a_threshold_that_it_does_not_reach(s: Script) -> None:
    s.refresh()
    s.repo.root.roles["root"].threshold = 3
    s.repo.add_root(s.repo.keys["root"][:2])
    s.refresh("signature")


@script
def root_version_skipped(s: Script) -> None:
    s.refresh()
    s.repo.add_root(version=3)
    s.repo.files["2.root.json"] = s.repo.files.pop("3.root.json")
    s.refresh("rollback")


@script
def intermediate_root_that_is_expired(s: Script) -> None:
    s.refresh()
    s.repo.life["root"] = -DAY
    s.repo.add_root()
    s.repo.life["root"] = 365 * DAY
    s.repo.add_root()
    s.refresh()


@script
def final_root_that_is_expired(s: Script) -> None:
    s.repo.life["root"] = -DAY
    s.repo.add_root()
    s.refresh("expired")


@script
def expired_timestamp(s: Script) -> None:
    s.repo.life["timestamp"] = -1
    s.refresh("expired")


@script
def expired_snapshot(s: Script) -> None:
    s.repo.life["snapshot"] = -1
    s.refresh("expired")


@script
def expired_targets(s: Script) -> None:
    s.repo.life["targets"] = -1
    s.refresh("expired")


@script
def expired_local_metadata_still_protects_from_rollback(s: Script) -> None:
    s.refresh()
    s.refresh()
    s.repo.now += 100 * DAY
    s.repo.timestamp.version = 1
    s.repo.snapshot.version = 1
    s.refresh("rollback", same=["timestamp", "snapshot"])
    s.repo.timestamp.version = s.repo.snapshot.version = 2
    s.refresh()


@script
def keys_of_timestamp_replaced(s: Script) -> None:
    s.refresh()
    old = s.repo.keys["timestamp"]
    s.repo.set_keys("timestamp", [key("new timestamp")])
    s.repo.add_root()
    s.refresh("signature", signers={"timestamp": old})
    s.refresh()


@script
def keys_of_other_schemes(s: Script) -> None:
    number = int.from_bytes(hashlib.sha256(b"ecdsa").digest(), "big") >> 1
    ecdsa = CryptoSigner(ec.derive_private_key(number, ec.SECP256R1()))
    s.repo.set_keys("timestamp", [ecdsa])
    s.repo.add_root()
    s.refresh()


@script
def download_of_other_content(s: Script) -> None:
    s.refresh()
    s.download(b'{"A": "manifest"}', "malformed")
    s.download(MANIFEST + b" ", "malformed")
    s.download(MANIFEST[:-1], "malformed")
    s.download(MANIFEST)


@script
def download_of_what_is_not_listed(s: Script) -> None:
    s.refresh()
    s.download(MANIFEST, "signature", "models/line/2/manifest.json")
    s.download(MANIFEST, "signature", "director/manifest.json")


@script
def download_before_any_refresh(s: Script) -> None:
    s.download(MANIFEST, "signature")


@script
def download_after_the_target_has_changed(s: Script) -> None:
    s.refresh()
    s.repo.targets.targets[PATH] = target(b"other", 2)
    s.refresh()
    s.download(MANIFEST, "malformed")
    s.download(b"other")


@script
def download_with_metadata_that_has_expired_since(s: Script) -> None:
    s.refresh()
    s.repo.now = NOW + 400 * DAY
    s.refresh("expired")
    s.download(MANIFEST)


def main() -> None:
    texts: list[str] = []
    cases = []
    for write in SCRIPTS:
        made = Script(write.__name__, texts)
        write(made)
        cases.append(made.case())
    CASES.write_text(json.dumps({"texts": texts, "cases": cases}, indent=0) + "\n")


if __name__ == "__main__":
    main()
