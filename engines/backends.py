"""Which backends there are, and which of them can be used on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from engines.backend import BackendName
from engines.openvinobackend import OpenVinoBackend
from engines.ortbackend import OrtBackend
from engines.trt.backend import TensorRtBackend

if TYPE_CHECKING:
    from collections.abc import Collection

    from engines.backend import Backend

ALL: tuple[type[Backend], ...] = (OrtBackend, OpenVinoBackend, TensorRtBackend)
"""Every backend; the first is the reference and is always there."""


def available(names: Collection[BackendName] = get_args(BackendName)) -> list[Backend]:
    """The backends that can be used here, the reference first.

    Args:
        names: those that are asked for; of others, which are slow to ask, nothing is loaded.
    """
    return [b for b in (kind() for kind in ALL) if b.name in names and not b.why_not()]


def unavailable() -> dict[BackendName, str]:
    """Why each of the others cannot be used here."""
    reasons = ((backend.name, backend.why_not()) for backend in (kind() for kind in ALL))
    return {name: reason for name, reason in reasons if reason}
