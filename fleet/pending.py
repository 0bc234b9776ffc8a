"""Signing requests that are not complete yet, and the signatures that came back for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tuf.api.metadata import Metadata

from fleet.errors import FleetError
from fleet.metadatafolder import replace
from fleet.signing import (
    SIGNATURE_SUFFIX,
    SigningRequest,
    parse_request,
    read_signature,
    signed_by,
    verifies,
)

if TYPE_CHECKING:
    from pathlib import Path

    from securesystemslib.signer import Signature

    from fleet.metadatafolder import MetadataFolder


class Pending:
    """One request for each offline role at most.

    Args:
        folder: where they lie.
    """

    def __init__(self, folder: MetadataFolder) -> None:
        self._folder = folder

    def path(self, role: str) -> Path:
        """Where a role's request lies."""
        return self._folder.pending / f"{role}.json"

    def request(self, role: str) -> SigningRequest | None:
        """A role's request, if there is one."""
        data = self._folder.read(self.path(role))
        if data is None:
            return None
        request = parse_request(data)
        # A crash may have left one that was accepted.
        stale = request.signed.version <= self._folder.accepted().get(role, 0)
        return None if stale else request

    def put(self, request: SigningRequest) -> None:
        """Ask for this instead of what was asked."""
        replace(self.path(request.role), request.encode())

    def discard(self, role: str) -> None:
        """Ask for nothing any more."""
        self._folder.discard([self.path(role), *self._signature_paths(role)])

    def attach(self, path: Path) -> None:
        """Take in a signature; raises as `fleet.repository.Repository.attach`."""
        signature = read_signature(path)
        request = self.request(signature.role)
        if request is None or request.digest != signature.digest:
            raise FleetError(
                f"{path} signs something else than what is pending; it may be of an earlier "
                "request: have the present one signed"
            )
        keys = [key for ask in request.asks for key in ask.wanted.keys]
        if not any(
            key.keyid == signature.key_id and verifies(key, signature.signature, request.content)
            for key in keys
        ):
            raise FleetError(f"{path} is no valid signature of a key that is asked for")
        name = f"{signature.role}.{signature.key_id[:16]}{SIGNATURE_SUFFIX}"
        replace(self._folder.pending / name, signature.encode())

    def missing(self, role: str) -> list[str]:
        """Which signatures are still wanted for a role's request."""
        request = self.request(role)
        return request.missing(self._signatures(request)) if request else []

    def wholly_signed(self, role: str) -> Metadata[Any] | None:
        """A role's request as metadata, once it has all the signatures it needs."""
        request = self.request(role)
        if request is None:
            return None
        signatures = self._signatures(request)
        if request.missing(signatures):
            return None
        keys = {key.keyid: key for ask in request.asks for key in ask.wanted.keys}
        content = request.content
        good = {
            key_id: signature
            for key_id, signature in sorted(signatures.items())
            if key_id in keys and verifies(keys[key_id], signature, content)
        }
        return Metadata[Any](request.signed, good)

    def _signatures(self, request: SigningRequest) -> dict[str, Signature]:
        files = [read_signature(path) for path in self._signature_paths(request.role)]
        return signed_by(files, request)

    def _signature_paths(self, role: str) -> list[Path]:
        return sorted(self._folder.pending.glob(f"{role}.*{SIGNATURE_SUFFIX}"))
