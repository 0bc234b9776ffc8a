"""Where trust in updates begins on a device: the root that came with its enrolment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.bundle.trustmessage import ROLE_BYTES
from agent.errors import BundleError, ManifestError
from engines.durable import read_bounded

if TYPE_CHECKING:
    from pathlib import Path

ROOT_FILE = "root.json"
"""In the state folder; `vigia enroll install` puts it there."""


def read_root(root_file: Path | None, state_dir: Path) -> bytes:
    """The first root of trust, as it lies there.

    Args:
        root_file: where it lies; None: in the state folder.
        state_dir: the state folder.

    Raises:
        BundleError: there is none, or it cannot be read; the device is not enrolled.
    """
    path = root_file or state_dir / ROOT_FILE
    try:
        data = read_bounded(path, ROLE_BYTES["root"])
    except FileNotFoundError:
        raise BundleError(
            f"this device is not enrolled: the root of trust {path} is missing; see `vigia enroll`"
        ) from None
    except OSError as error:
        raise BundleError(
            f"the root of trust {path} cannot be read: {error.strerror or error}"
        ) from error
    if data is None:
        raise ManifestError(f"the root of trust {path} is larger than any that is accepted")
    return data
