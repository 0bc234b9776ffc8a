"""Where what must survive a restart lies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.config import Config


def default_state_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Where what must survive a restart lies, if the configuration does not say.

    systemd's `StateDirectory=`, else the XDG state folder.
    """
    given = environ.get("STATE_DIRECTORY")
    if given:
        # Several folders are separated by colons; the first is the unit's main one.
        return Path(given.split(":")[0])
    xdg = environ.get("XDG_STATE_HOME")
    # A relative path is to be ignored (XDG Base Directory Specification 0.8).
    base = Path(xdg) if xdg and Path(xdg).is_absolute() else Path.home() / ".local" / "state"
    return base / "vigia"


def state_folder(config: Config) -> Path:
    """What the configuration says, or the default."""
    given = None if config.updates is None else config.updates.state_dir
    return given or default_state_dir()


def spool_folder(config: Config) -> Path:
    """Where messages wait for the broker."""
    return config.spool.dir or state_folder(config) / "spool"
