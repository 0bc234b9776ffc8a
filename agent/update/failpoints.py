"""Places where a test has the agent killed, as by a power cut. Inert unless a variable is set.

`VIGIA_FAILPOINT` names one place and when there:

- `NAME`: the first time it is reached;
- `NAME:3`: the third time;
- `NAME@7`: at some moment in the 300 ms after it was first reached, the same one each time for the
  same number, so that the kill falls into the middle of what is done there.

Places are named by the table of crashes in docs/update-lifecycle.md, C0 to C11.

The process kills itself with SIGKILL: nothing is flushed, no `finally` runs. It is for tests only,
and whoever may set the environment of the agent may kill it anyway.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time

VARIABLE = "VIGIA_FAILPOINT"

SPREAD_S = 0.3
"""The kill of `NAME@seed` comes within this time."""

_lock = threading.Lock()
_reached: dict[str, int] = {}


def hit(name: str) -> None:
    """A place was reached."""
    order = os.environ.get(VARIABLE)
    if order is None:
        return
    place, _, seed = order.partition("@")
    place, _, count = place.partition(":")
    if place != name:
        return
    with _lock:
        _reached[name] = _reached.get(name, 0) + 1
        times = _reached[name]
    if seed:
        if times == 1:
            delay_s = random.Random(order).uniform(0, SPREAD_S)  # noqa: S311 - not for secrets
            threading.Thread(target=_later, args=(delay_s,), daemon=True).start()
    elif times == int(count or 1):
        _end()


def _later(delay_s: float) -> None:
    time.sleep(delay_s)
    _end()


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
