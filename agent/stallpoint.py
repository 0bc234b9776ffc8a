"""Places where a test has a thread of the agent hang for ever. Inert unless a variable is set.

`VIGIA_STALLPOINT=NAME:3` hangs the thread that reaches place NAME for the third time, once;
`NAME:3+` also every one that comes after it. Places: `infer`, `publish`, `loop` (the event loop),
`link`, `spool`, `updater`, `read` (a camera's reader), `load` (a model), `build`, `govern`, `http`.
It is for tests only, as `agent.update.failpoints`.
"""

from __future__ import annotations

import os
import threading

VARIABLE = "VIGIA_STALLPOINT"

_place, _, _count = os.environ.get(VARIABLE, "").partition(":")
_lock = threading.Lock()
_left = int(_count.removesuffix("+") or 1)
_lasts = _count.endswith("+")


def hit(name: str) -> None:
    """A place was reached."""
    if name != _place:
        return
    global _left  # noqa: PLW0603 - one order a process
    with _lock:
        _left -= 1
        hangs = _left == 0 or (_lasts and _left < 0)
    if hangs:
        threading.Event().wait()
