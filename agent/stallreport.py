"""What every thread does at present, bounded, so that a stall can be understood from afar."""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

log = logging.getLogger(__name__)

MAX_THREADS = 48
MAX_FRAMES = 12
"""Of each thread, the innermost."""
MAX_STACKS_CHARS = 40_000
"""An event has 64 KiB."""
MAX_NAME_CHARS = 64
PUNCTUATION = 4
"""Quotes, comma and blank around a line in JSON."""
NAME_PARTS = 3
"""Of a file's path, the last: where the agent is installed is nobody's business."""


def stacks() -> dict[str, list[str]]:
    """By thread, the innermost calls, innermost last: "agent/pipeline/worker.py:190 _analyse"."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    found: dict[str, list[str]] = {}
    left = MAX_STACKS_CHARS
    for ident, frame in list(sys._current_frames().items())[:MAX_THREADS]:  # noqa: SLF001 - the one way there is
        calls = traceback.extract_stack(frame)[-MAX_FRAMES:]
        lines = [
            f"{'/'.join(call.filename.split('/')[-NAME_PARTS:])}:{call.lineno} {call.name}"
            for call in calls
        ]
        name = f"{names.get(ident, 'unknown')[:MAX_NAME_CHARS]} ({ident})"
        left -= len(name) + sum(len(line) + PUNCTUATION for line in lines)
        if left < 0:
            break
        found[name] = lines
    return found


def log_stall(stage: str, seen: Mapping[str, object], threads: Mapping[str, Sequence[str]]) -> None:
    """Write down what a stall looked like, one line for each thread.

    Args:
        stage: its name.
        seen: ages, queues, cameras, engines; JSON values.
        threads: see `stacks`.
    """
    log.error("stall of %s: %s", stage, json.dumps(seen, default=str))
    for name, calls in threads.items():
        log.error("stall of %s: thread %s: %s", stage, name, " < ".join(reversed(calls)))
