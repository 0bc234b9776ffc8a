"""Errors of the operator's side; the command line knows them by their base."""

from __future__ import annotations

from agent.errors import AgentError


class FleetError(AgentError):
    """What was asked of the fleet cannot be done; the message says what to do."""


class NotPermittedError(FleetError):
    """The acting operator's role does not allow this, or the operator is not who they say."""


class AuditError(FleetError):
    """The audit log does not fit its own hashes, signatures or head: it was tampered with."""
