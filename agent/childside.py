"""The child's side of `agent.buildprocess`: one request, progress, one report or error.

The request comes as one line of JSON on standard input; progress and the report, or an error, go
out as lines of JSON. The process ends by itself when its standard input is closed, which is when
the agent has died.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from agent.errors import AgentError
from agent.memory import limit_arenas, no_core_dumps
from engines.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TextIO

    from engines.backend import Progress


def serve(
    act: Callable[[dict[str, Any], Callable[[Progress], None]], tuple[str, Mapping[str, object]]],
) -> int:
    """Serve one request; the exit code is 0 also for an error that was told.

    Args:
        act: takes the request and what tells progress; gives the key of the plan it is about, and
            the report.
    """
    # Those who are started from here are ended with this process.
    os.setpgid(0, 0)
    # A core dump is a copy on disk of what must lie in memory only.
    no_core_dumps()
    out = _own_stdout()
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    line = sys.stdin.buffer.readline()
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    limit_arenas()
    try:
        plan, value = act(json.loads(line), _teller(out))
    except (EngineError, AgentError) as error:
        _say(out, {"error": str(error), "kind": type(error).__name__})
        return 0
    _say(out, {"report": {"plan": plan, "value": dict(value)}})
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
