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


class BrokerError(AgentError):
    """The broker could not be reached, or refused us."""


class OutputError(AgentError):
    """A model's output cannot be decoded: wrong shape, NaN or Inf."""


class WireError(AgentError):
    """A message cannot be encoded, or bytes from outside are not the message they claim to be."""
