"""Root and targets, which offline keys sign: what is accepted, and what is asked to follow it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from tuf.api.metadata import Metadata, Root, Targets

from agent.bundle.trustmessage import file_name
from agent.bundle.trustset import bundle_errors
from fleet.errors import FleetError
from fleet.metadatafolder import replace
from fleet.roledata import role_keys, stamp
from fleet.signing import Ask, SigningRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from fleet.metadatafolder import MetadataFolder
    from fleet.pending import Pending

_Offline = TypeVar("_Offline", Root, Targets)

ROLES = ("root", "targets")


class OfflineRoles:
    """See the module.

    Args:
        folder: the metadata.
        pending: what is asked for.
        now: seconds since the epoch.
    """

    def __init__(self, folder: MetadataFolder, pending: Pending, now: Callable[[], float]) -> None:
        self._folder = folder
        self._pending = pending
        self._now = now

    def missing(self) -> list[str]:
        """Which signatures are still wanted, in sentences."""
        return [text for role in ROLES for text in self._pending.missing(role)]

    def ask(self, signed: _Offline) -> None:
        """Ask for signatures over what is to follow the accepted version."""
        version = self._folder.accepted().get(signed.type, 0)
        previous = self._metadata(signed.type, version) if version else None
        pending = self._pending.request(signed.type)
        # Content that is asked for already stays as it is, and so do the signatures over it.
        same = pending is not None and pending.signed == signed
        new = signed if same else stamp(signed, version + 1, self._now())
        request = SigningRequest(new, previous, self._asks(new, previous))
        self._pending.put(request)

    def _asks(self, signed: Root | Targets, previous: Metadata[Any] | None) -> tuple[Ask, ...]:
        if not isinstance(signed, Root):
            return (Ask("release keys", role_keys(self.base(Root), "targets")),)
        new = Ask("root keys", role_keys(signed, "root"))
        if previous is None or role_keys(previous.signed, "root") == new.wanted:
            return (new,)
        return (
            Ask("root keys in force", role_keys(previous.signed, "root")),
            Ask("new root keys", new.wanted),
        )

    def base(self, kind: type[_Offline]) -> _Offline:
        """What the next change builds on: what is pending, or what was accepted."""
        pending = self._pending.request(kind.type)
        signed = pending.signed if pending else self.current(kind).signed
        assert isinstance(signed, kind)
        return signed

    def current(self, kind: type[_Offline]) -> Metadata[_Offline]:
        """What was accepted last; `FleetError` if nothing was."""
        accepted = self._folder.accepted()
        if not accepted:
            raise FleetError(
                "; ".join(self.missing()) or "there is no repository here; create one first"
            )
        return self._metadata(kind.type, accepted[kind.type])

    def _metadata(self, role: str, version: int) -> Metadata[Any]:
        with bundle_errors():
            return Metadata[Any].from_bytes(self._folder.metadata_file(file_name(role, version)))

    def accept(self, root: Metadata[Root], targets: Metadata[Targets]) -> list[str]:
        """Keep these as accepted, and ask for them no more; the roles that are new."""
        have = self._folder.accepted()
        new = [m for m in (root, targets) if m.signed.version != have.get(m.signed.type)]
        for metadata in new:
            name = file_name(metadata.signed.type, metadata.signed.version)
            replace(self._folder.metadata / name, metadata.to_bytes())
        self._folder.accept(root.signed.version, targets.signed.version)
        roles = [metadata.signed.type for metadata in new]
        for role in roles:
            self._pending.discard(role)
        return roles


def signed_for(root: Root, targets: Metadata[Targets]) -> bool:
    """Whether the release keys of this root have signed these targets."""
    return bool(
        root.get_verification_result(Targets.type, targets.signed_bytes, targets.signatures)
    )
