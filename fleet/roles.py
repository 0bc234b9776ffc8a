"""What each role of operator may do. Pure.

Two things keep an operator within a role, and they are not alike:

- **This program** asks `Role.allows` before each command, and has the operator prove who they are
  with their own key. Who can write to the fleet folder and knows the passphrase of the online
  keys can go around it; the audit log then lacks their signature.
- **The devices** ask for signatures, which nobody can go around:
  - a *releaser* holds keys of TUF's `targets` role: without enough of them no bundle exists;
  - an *admin* holds keys of TUF's `root` role: without enough of them no key changes;
  - an *operator* (and each role above) has a key in the delegated role `operators`: devices obey
    commands only if such a key signed them, and ask for as many approvals of an assignment as the
    policy in the signed targets says;
  - a *viewer* has no key at all, only a certificate with which the broker lets them read.
  Removing an operator takes the key out of the metadata, and devices forget it at once.
"""

from __future__ import annotations

from enum import Enum


class Permission(str, Enum):
    """What can be allowed."""

    VIEW = "look at the fleet"
    GROUP = "put devices into groups"
    ASSIGN = "assign models to devices, command devices, approve roll-outs"
    CONFIGURE = "send settings to devices"
    REVOKE = "revoke a device"
    RELEASE = "pack, sign and publish bundles"
    ENROLL = "enrol devices"
    ADMINISTER = "change operators and keys"


class Role(str, Enum):
    """Who an operator is; each role may do what the ones before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    RELEASER = "releaser"
    ADMIN = "admin"

    def allows(self, permission: Permission) -> bool:
        """Whether this role may do that."""
        ranks = list(Role)
        return ranks.index(self) >= ranks.index(LEAST_ROLE[permission])

    @property
    def has_key(self) -> bool:
        """Whether its operators sign."""
        return self is not Role.VIEWER


LEAST_ROLE = {
    Permission.VIEW: Role.VIEWER,
    Permission.GROUP: Role.OPERATOR,
    Permission.ASSIGN: Role.OPERATOR,
    Permission.CONFIGURE: Role.OPERATOR,
    # Taking a right away is urgent and can be mended; giving one lets a device read models.
    Permission.REVOKE: Role.OPERATOR,
    Permission.RELEASE: Role.RELEASER,
    Permission.ENROLL: Role.ADMIN,
    Permission.ADMINISTER: Role.ADMIN,
}
