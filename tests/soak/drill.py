"""The plug is pulled again and again under load: how soon it serves, and whether all is whole."""

from __future__ import annotations

import random
import signal
import statistics
from typing import TYPE_CHECKING, Any

from tests.soak.account import account
from tests.soak.ground import Ground, arrivals

if TYPE_CHECKING:
    from pathlib import Path

SERVED_S = 60.0
WANTED_S = 3.0


def drill(folder: Path, times: int, seed: int) -> dict[str, Any]:
    """Kill the agent so often, at random moments, with the broker there, slow or away."""
    ground = Ground(folder)
    dice = random.Random(seed)
    serving: list[float] = []
    faults: list[str] = []
    code = -1
    try:
        ground.supervisor.start()
        for number in range(times):
            serving.append(ground.wait_served(SERVED_S))
            # Every third time the broker is away while the plug is pulled: the spool is in use.
            if number % 3 == 2:
                ground.link.cut()
            ground.rest(dice.uniform(0.1, 2.0))
            if number % 3 == 1:
                ground.link.delay_s = 0.05
            ground.supervisor.end(signal.SIGKILL, "killed")
            ground.link.delay_s = 0.0
            ground.link.join()
            if fault := ground.spool_check():
                faults.append(f"kill {number}: {fault}")
        serving.append(ground.wait_served(SERVED_S))
        ground.rest(3.0)
        code = ground.stop_agent()
        left = set(ground.left_on_disk())
    finally:
        ground.stop_agent()
        ground.close()
    found = arrivals(ground.consumer.messages, ground.consumer.times)
    told = account(found)
    left -= {(a.boot, a.stream, a.seq) for a in found}
    faults += told.faults + ground.supervisor.crashes
    if left:
        faults.append(f"{len(left)} messages are on the disk and never came")
    if code:
        faults.append(f"asked to stop, the agent ended with {code}")
    if count := ground.tracebacks():
        faults.append(f"{count} unhandled exceptions in the log")
    return {
        "schema": "vigia.drill/1",
        "ok": not faults,
        "faults": faults,
        "kills": times,
        "seed": seed,
        "account": told.as_dict(),
        "serving_s": {
            "median": round(statistics.median(serving), 2),
            "max": round(max(serving), 2),
            "above_3": sum(s > WANTED_S for s in serving),
        },
        "unhandled_exceptions": ground.tracebacks(),
    }
