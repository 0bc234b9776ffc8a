"""Where what must survive a restart lies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


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
