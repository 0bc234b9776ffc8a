"""Operators' approvals of a campaign: made here, and judged as devices judge them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.bundle.documents import APPROVAL, MAX_ENVELOPE_BYTES, Approval
from agent.bundle.dsse import sign, verify
from agent.errors import BundleError
from engines.durable import read_bounded
from fleet.errors import FleetError
from fleet.roledata import OPERATORS, delegated_keys

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from securesystemslib.signer import Key

    from fleet.auditchain import Actor
    from fleet.fleetfolder import Fleet
    from fleet.tables import Bundle


def approve(fleet: Fleet, actor: Actor, row: Bundle, campaign: str) -> bytes:
    """An operator's agreement to a campaign of a bundle, signed."""
    document = Approval(campaign=campaign, sha256=row.digest, at=int(fleet.now()))
    return sign(APPROVAL, document, [actor.signer])


def gather(
    fleet: Fleet, actor: Actor, row: Bundle, campaign: str, files: Sequence[Path]
) -> list[str]:
    """The approvals of a campaign, one of each operator: of whoever orders it, and those given.

    Args:
        fleet: whose published metadata says who may approve, and how many must.
        actor: who orders it.
        row: the bundle.
        campaign: its name.
        files: with the approvals of others.

    Raises:
        FleetError: a file is no approval of this, or there are too few.
    """
    published = fleet.repository.published()
    known = delegated_keys(published.targets, OPERATORS)
    found = {}
    own = approve(fleet, actor, row, campaign)
    signer = _signer(own, known, row, campaign)
    if signer is not None:
        found[signer] = own.decode()
    for path in files:
        envelope = _read(path)
        signer = _signer(envelope, known, row, campaign)
        if signer is None:
            raise FleetError(
                f"{path} is no approval of campaign {campaign!r} with {row.family} {row.version} "
                "by an operator whom devices know; have it made anew with `vigia fleet approve`"
            )
        found[signer] = envelope.decode()
    needed = published.policy.approvals
    if len(found) < needed:
        raise FleetError(
            f"the release keys demand that {needed} operators approve, {len(found)} have: let "
            f"others say `vigia fleet approve` for campaign {campaign!r}, and give their files "
            "with --approval"
        )
    return list(found.values())


def _signer(envelope: bytes, known: Sequence[Key], row: Bundle, campaign: str) -> str | None:
    """Whose approval it is, by key id."""
    for key in known:
        try:
            approval = verify(envelope, APPROVAL, Approval, [key])
        except BundleError:
            continue
        if (approval.campaign, approval.sha256) == (campaign, row.digest):
            return key.keyid
    return None


def _read(path: Path) -> bytes:
    try:
        data = read_bounded(path, MAX_ENVELOPE_BYTES)
    except OSError as error:
        raise FleetError(
            f"the approval {path} cannot be read: {error.strerror or error}"
        ) from error
    if data is None:
        raise FleetError(f"{path} is too large for an approval")
    return data
