"""Keeps the process small where the C library can be asked to: glibc; elsewhere nothing happens.

Loading a model makes several short-lived copies of its weights, and every thread that allocates may
get an arena of its own whose free memory the others cannot use.
"""

from __future__ import annotations

import ctypes

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


def _function(name: str) -> ctypes._FuncPointer | None:
    try:
        found: ctypes._FuncPointer = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError):
        return None
    return found
