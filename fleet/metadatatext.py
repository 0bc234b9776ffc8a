"""TUF metadata in sentences, for the people who sign it. Pure.

Each line begins with what becomes of the thing: `+` is new, `-` is gone, `~` is changed, `=` stays.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from tuf.api.metadata import Root, Targets

from agent.bundle.trustset import ISSUED, issued_at

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tuf.api.metadata import Role, Signed, TargetFile

ROLE_NAMES = {
    "root": "root keys",
    "targets": "release keys",
    "snapshot": "snapshot keys",
    "timestamp": "timestamp keys",
    "director": "director keys",
    "operators": "operator keys",
}


def describe(signed: Root | Targets, previous: Signed | None) -> list[str]:
    """All that `signed` says, and how that differs from `previous`."""
    made, end = _time(issued_at(signed)), _time(signed.expires.timestamp())
    lines = [f"{signed.type} version {signed.version}, made {made}, valid until {end}"]
    if isinstance(signed, Root):
        old = _root_facts(previous) if isinstance(previous, Root) else {}
        lines += _changes(_root_facts(signed), old)
    else:
        old = _targets_facts(previous) if isinstance(previous, Targets) else {}
        lines += _changes(_targets_facts(signed), old)
    return lines


def _changes(new: Mapping[str, str], old: Mapping[str, str]) -> list[str]:
    lines = []
    for name in sorted(new.keys() | old.keys()):
        if name not in old:
            lines.append(f"+ {name}: {new[name]}")
        elif name not in new:
            lines.append(f"- {name}: {old[name]}")
        elif new[name] != old[name]:
            lines.append(f"~ {name}: {new[name]} (was {old[name]})")
        else:
            lines.append(f"= {name}: {new[name]}")
    # What stays is least interesting.
    return sorted(lines, key=lambda line: line.startswith("="))


def _root_facts(root: Root) -> dict[str, str]:
    facts = {"consistent snapshots": str(root.consistent_snapshot), **_other(root)}
    for name, role in root.roles.items():
        facts |= _role_facts(name, role, root.keys)
    return facts


def _targets_facts(targets: Targets) -> dict[str, str]:
    facts = {f"bundle {_text(path)}": _target(file) for path, file in targets.targets.items()}
    facts |= _other(targets)
    delegations = targets.delegations
    for name, role in ((delegations.roles if delegations else None) or {}).items():
        facts |= _role_facts(name, role, delegations.keys if delegations else {})
        paths = role.paths or ["by hash"]
        facts[f"paths of {ROLE_NAMES.get(name, _text(name))}"] = ", ".join(map(_text, paths))
    return facts


def _role_facts(name: str, role: Role, keys: Mapping[str, object]) -> dict[str, str]:
    called = ROLE_NAMES.get(name, _text(name))
    facts = {f"threshold of {called}": f"{role.threshold} of {len(role.keyids)}"}
    for key_id in role.keyids:
        key = keys.get(key_id)
        scheme = getattr(key, "scheme", "unknown")
        public = getattr(key, "keyval", {}).get("public", "unknown")
        facts[f"{called}, {_text(key_id)}"] = f"{scheme} {public!r}"
    return facts


def _other(signed: Signed) -> dict[str, str]:
    return {
        f"field {_text(name)}": json.dumps(value, sort_keys=True)
        for name, value in signed.unrecognized_fields.items()
        if name != ISSUED
    }


def _target(file: TargetFile) -> str:
    digests = ", ".join(f"{_text(name)} {_text(value)}" for name, value in file.hashes.items())
    return f"{digests}, {file.length} bytes, {json.dumps(file.custom, sort_keys=True)}"


def _text(value: str) -> str:
    """Nothing that is signed may hide or move text on a terminal."""
    return value if value.isprintable() else repr(value)


def _time(seconds: float) -> str:
    if not seconds:
        return "at an unknown time"
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
