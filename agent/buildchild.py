"""Builds one engine in a process of its own: `python -m agent.buildchild`.

What leaks, crashes or runs out of memory in a library's builder takes this process with it and not
the agent. The request comes as one line of JSON on standard input; progress and the report, or an
error, go out as lines of JSON. The result lies in the plan cache. The process ends by itself when
its standard input is closed, which is when the agent has died.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

from agent.building import build
from agent.errors import AgentError
from agent.memory import limit_arenas
from agent.plans import PlanRequest, Plans
from engines.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from engines.backend import Progress


def main() -> int:
    """Serve one request; the exit code is 0 also for an error that was told."""
    # Those who are started from here are ended with this process.
    os.setpgid(0, 0)
    out = _own_stdout()
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    line = sys.stdin.buffer.readline()
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    limit_arenas()
    try:
        request = PlanRequest.from_json(json.loads(line))
        report = build(Plans(request), _teller(out))
    except (EngineError, AgentError) as error:
        _say(out, {"error": str(error)})
        return 0
    _say(
        out,
        {"report": {"plan": report.plan, "cached": report.cached, "value": dict(report.value)}},
    )
    return 0


def _own_stdout() -> TextIO:
    """Standard output for this protocol alone; what libraries print goes to standard error."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return out


def _end_with_parent() -> None:
    # Nothing more is sent, so that reading returns when the parent has gone, however it went. Not
    # by `sys.stdin`, whose lock would be held when this process ends of itself.
    os.read(sys.stdin.fileno(), 1)
    os.killpg(0, signal.SIGKILL)


def _teller(out: TextIO) -> Callable[[Progress], None]:
    def tell(progress: Progress) -> None:
        told = {"step": progress.step, "done": progress.done, "total": progress.total}
        _say(out, {"progress": told})

    return tell


def _say(out: TextIO, message: dict[str, object]) -> None:
    out.write(json.dumps(message, separators=(",", ":")) + "\n")
    out.flush()


if __name__ == "__main__":
    sys.exit(main())
