"""The last configuration that the agent ran well with: a copy, for when the file has a mistake.

The copy is the text of the file; secrets that it refers to stay where they are. It is read as if it
lay in the file's folder.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from agent.configfile import load
from agent.errors import ConfigError
from agent.statefolder import default_state_dir
from engines.durable import replace_file

if TYPE_CHECKING:
    from pathlib import Path

    from agent.config import Config

FOLDER = "config"
"""Below the state folder."""

NAME_DIGITS = 16
"""Of the hash of the file's path, which names the copy: several agents may share a state folder."""

MAX_BYTES = 1 << 20
"""A configuration is not kept if it is larger."""


class LastGood:
    """The copy of one configuration file.

    Args:
        source: the file.
        state: the state folder; default: `default_state_dir`.
    """

    def __init__(self, source: Path, state: Path | None = None) -> None:
        self._source = source
        name = hashlib.sha256(str(source.absolute()).encode()).hexdigest()[:NAME_DIGITS]
        self.path = (state or default_state_dir()) / FOLDER / f"{name}.yaml"

    def read_source(self) -> bytes:
        """What the file says now.

        Raises:
            ConfigError: it cannot be read.
        """
        try:
            with self._source.open("rb") as file:
                return file.read(MAX_BYTES + 1)
        except OSError as error:
            raise ConfigError(
                f"{self._source}: cannot be read: {error.strerror}; check the path and its rights"
            ) from error

    def keep(self, text: bytes) -> None:
        """Keep what the agent runs well with, readable for its user only.

        Raises:
            ConfigError: it cannot be written; what was kept before stays.
        """
        if len(text) > MAX_BYTES:
            raise ConfigError(f"{self._source}: more than {MAX_BYTES} bytes are not kept")
        try:
            if self.path.exists() and self.path.read_bytes() == text:
                return
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self.path, text)
        except OSError as error:
            raise ConfigError(
                f"{self.path}: cannot be written: {error.strerror}; if the configuration gets a "
                "mistake, there is no older one to go on with"
            ) from error

    def load(self) -> Config | None:
        """The configuration that was kept; None if there is none, or it does not hold any more."""
        if not self.path.is_file():
            return None
        try:
            return load(self.path, origin=self._source)
        except ConfigError:
            return None
