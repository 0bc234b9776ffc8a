"""What the process asks of the system for its memory: to stay small, and off the disks.

Small: where the C library can be asked to, which is glibc; elsewhere nothing happens.

Loading a model makes several short-lived copies of its weights, and every thread that allocates may
get an arena of its own whose free memory the others cannot use.
"""

from __future__ import annotations

import ctypes
import resource

M_ARENA_MAX = -8
"""`mallopt` parameter, from glibc's malloc.h."""

ARENAS = 2
"""Enough that cameras and workers seldom wait for each other; frames are few and large."""


def limit_arenas() -> None:
    """Have all threads share a few arenas; call it before threads are started."""
    function = _function("mallopt")
    if function is not None:
        function(M_ARENA_MAX, ARENAS)


def give_back() -> None:
    """Return free memory to the system."""
    function = _function("malloc_trim")
    if function is not None:
        function(0)


def no_core_dumps() -> None:
    """Leave no image of this process on a disk when it crashes; see core(5).

    A limit of one byte, not of none: a handler that dumps are piped to would still be given one.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    limit = 1 if hard == resource.RLIM_INFINITY else min(1, hard)
    resource.setrlimit(resource.RLIMIT_CORE, (limit, hard))


def _function(name: str) -> ctypes._FuncPointer | None:
    try:
        found: ctypes._FuncPointer = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError):
        return None
    return found
