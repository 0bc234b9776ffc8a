"""The agent's one family of errors.

A message says what is wrong, where, and what to do. Errors neither log nor exit: `agent.cli` maps
them to exit codes and the daemon logs each once.
"""

from __future__ import annotations


class AgentError(Exception):
    """Base of everything `agent` raises on purpose."""


class ConfigError(AgentError):
    """The configuration cannot be used; the message carries file, line and key path."""


class CaptureError(AgentError):
    """A source could not be opened or read; a live source may be tried again."""


class PipelineError(AgentError):
    """A camera cannot be taken into, or out of, the running pipeline."""


class BrokerError(AgentError):
    """The broker could not be reached, or refused us."""


class OutputError(AgentError):
    """A model's output cannot be decoded: wrong shape, NaN or Inf."""


class WireError(AgentError):
    """A message cannot be encoded, or bytes from outside are not the message they claim to be."""


class TransferError(AgentError):
    """A bundle could not be fetched, or its blocks are not what the signed index says."""


class BundleError(AgentError):
    """A bundle, or what vouches for it, cannot be trusted or used."""


class ManifestError(BundleError):
    """A manifest, index or document is not what the format says."""


class SignatureError(BundleError):
    """Signatures are missing, wrong, too few, or of keys that have no right to this."""


class RollbackError(BundleError):
    """What is offered is older than what was already accepted."""


class ExpiredError(BundleError):
    """What is offered is not valid yet, or not any more."""


class DamageError(BundleError):
    """What lies on this device's disk is not what was put there: the bundle is not at fault."""


class KeyStoreError(AgentError):
    """A private key of this device or operator cannot be read, used or made."""


class StoreError(AgentError):
    """The state of updates cannot be read or written; what serves goes on serving."""


class GateError(AgentError):
    """A candidate cannot be judged; says nothing of its quality."""


class ServiceError(AgentError):
    """The systemd service cannot be installed, started or removed."""
