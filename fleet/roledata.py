"""The content of each TUF role, before it is signed. Pure.

Roles: `root` and `targets` are signed by offline keys, `snapshot` and `timestamp` by online keys.
Targets delegate `director/*` to the director and `operators/*` to the operators: names that no
bundle has, so that these keys are known, and can be changed, but vouch for no bundle. Neither role
has metadata of its own: what they sign are documents (`agent.bundle.documents`).
"""

from __future__ import annotations

import copy
from datetime import datetime, timezone
from typing import TYPE_CHECKING, TypeVar

from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    MetaFile,
    Role,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)

from agent.bundle.trustset import ISSUED
from fleet.errors import FleetError
from fleet.signing import KeySet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from securesystemslib.signer import Key

DAY_S = 86_400.0

LIFETIME_S = {
    "root": 365 * DAY_S,
    "targets": 365 * DAY_S,
    "snapshot": 30 * DAY_S,
    "timestamp": 7 * DAY_S,
}

DIRECTOR = "director"
OPERATORS = "operators"

_Kind = TypeVar("_Kind", Root, Timestamp, Snapshot, Targets)


def stamp(signed: _Kind, version: int, now: float) -> _Kind:
    """The same content as a new version, made now and valid for its role's lifetime."""
    new = type(signed).from_dict(copy.deepcopy(signed.to_dict()))
    assert isinstance(new, type(signed))
    new.version = version
    new.unrecognized_fields[ISSUED] = int(now)
    new.expires = datetime.fromtimestamp(int(now + LIFETIME_S[signed.type]), timezone.utc)
    return new


def root_with(root: Root, sets: Mapping[str, KeySet]) -> Root:
    """Root with the keys of the named roles replaced, and no key that no role uses.

    Raises:
        FleetError: an online key would be an offline key too.
    """
    all_sets = {name: role_keys(root, name) for name in root.roles if root.roles[name].keyids}
    all_sets |= sets
    new = Root(
        version=root.version,
        expires=root.expires,
        keys={key.keyid: key for keys in all_sets.values() for key in keys.keys},
        roles={
            name: Role([key.keyid for key in keys.keys], keys.threshold)
            for name, keys in all_sets.items()
        },
        consistent_snapshot=True,
        unrecognized_fields=dict(root.unrecognized_fields),
    )
    for online in ("snapshot", "timestamp"):
        check_apart(new, all_sets[online].keys, f"{online} keys")
    return new


def role_keys(root: Root, role: str) -> KeySet:
    """The keys of one of root's roles."""
    found = root.roles[role]
    return KeySet(tuple(root.keys[key_id] for key_id in found.keyids), found.threshold)


def delegate(targets: Targets, role: str, keys: Sequence[Key]) -> None:
    """Give a delegated role these keys, each of which may sign alone; none: no such role."""
    old = targets.delegations or Delegations(keys={}, roles={})
    sets = {
        name: [old.keys[key_id] for key_id in found.keyids]
        for name, found in (old.roles or {}).items()
    }
    sets[role] = list(KeySet(tuple(keys)).keys) if keys else []
    targets.delegations = Delegations(
        keys={key.keyid: key for keys in sets.values() for key in keys},
        roles={
            name: DelegatedRole(
                name, [key.keyid for key in keys], 1, terminating=True, paths=[f"{name}/*"]
            )
            for name, keys in sorted(sets.items())
            if keys
        },
    )


def delegated_keys(targets: Targets, role: str) -> tuple[Key, ...]:
    """The keys of a delegated role."""
    delegations = targets.delegations
    found = ((delegations.roles if delegations else None) or {}).get(role)
    if delegations is None or found is None:
        return ()
    return tuple(delegations.keys[key_id] for key_id in found.keyids)


def check_apart(root: Root, online: Sequence[Key], called: str) -> None:
    """Make sure that keys which are in use all day can sign neither root nor targets.

    Raises:
        FleetError: one can.
    """
    offline = {
        str(key.keyval) for role in ("root", "targets") for key in role_keys(root, role).keys
    }
    if any(str(key.keyval) in offline for key in online):
        raise FleetError(
            f"one of the {called} is a root or release key too; online keys are the first to be "
            "stolen and must be able to sign neither: make a key of its own"
        )


def snapshot_of(root: tuple[int, bytes], targets: tuple[int, bytes]) -> Snapshot:
    """A snapshot that names these versions of root and targets, with their hashes."""
    return Snapshot(
        meta={
            "root.json": MetaFile.from_data(*root, ["sha256"]),
            "targets.json": MetaFile.from_data(*targets, ["sha256"]),
        }
    )


def timestamp_of(version: int, snapshot: bytes) -> Timestamp:
    """A timestamp that names this snapshot."""
    return Timestamp(snapshot_meta=MetaFile.from_data(version, snapshot, ["sha256"]))
