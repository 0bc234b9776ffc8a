"""The environment of a program that is started as an installation would start it."""

from __future__ import annotations

import os

COMPILES_ANEW = "PYTHONDONTWRITEBYTECODE"
"""Set where a source tree is to stay clean; each start then compiles every module of ours again,
which pip does once when it installs."""


def installed() -> dict[str, str]:
    """This process's variables, but with compiled modules kept."""
    return {name: value for name, value in os.environ.items() if name != COMPILES_ANEW}
