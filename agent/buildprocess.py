"""Runs a build or a trial in a child process: reads what it says, ends it in time, tells the end.

The child is the last to get processor time, disk and, where memory is short, mercy: what serves
comes first.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import psutil

from agent.servicegroup import put_aside
from engines.backend import Progress
from engines.errors import BuildError, PlanError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "agent.buildchild")

NICE = 19
"""The lowest priority that Linux knows: the child gets what nobody else wants."""

FIRST_TO_DIE = b"1000"
"""`oom_score_adj`, see proc(5): when memory runs out, the kernel ends the child, not the agent."""

KILL_GRACE_S = 1.0
"""Time between asking the child to end and ending it."""

LOOK_S = 0.5
"""How often the child is looked at while it says nothing."""

MAX_LINE_BYTES = 4 * 2**20
"""Longer lines of the child are passed over."""

READ_BYTES = 65_536

LAST_LINES = 5
"""Lines of its standard error that are told if the child crashes."""

HOST_FAULTS = frozenset({PlanError.__name__})
"""Errors of the child that say nothing of what it was given: the plan cache cannot be used."""


class HostFaultError(BuildError):
    """The machine is at fault, not the model: it may go well another time."""


@dataclass(frozen=True, slots=True)
class Built:
    """What the child says it has put into the plan cache, or found out about it.

    Attributes:
        plan: key of the plan, hexadecimal.
        value: the report, see `agent.plans.Report`; of a trial, what was measured.
    """

    plan: str
    value: Mapping[str, Any]


class BuildProcess:
    """One child process.

    Args:
        request: JSON values; of a build, what `agent.plans.PlanRequest.to_json` gives.
        timeout_s: it is given up after this.
        command: the program.
        what: how messages call what it does.
        environment: variables that it gets beside this process's own.
        inherited: descriptors that it gets under the same numbers.
    """

    def __init__(
        self,
        request: Mapping[str, object],
        timeout_s: float,
        command: Sequence[str] = COMMAND,
        *,
        what: str = "build",
        environment: Mapping[str, str] | None = None,
        inherited: Sequence[int] = (),
    ) -> None:
        self._what = what
        self._environment = {**os.environ, **(environment or {})}
        self._inherited = tuple(inherited)
        self._request = json.dumps(request).encode() + b"\n"
        self._timeout_s = timeout_s
        self._command = command
        self._lock = threading.Lock()
        self._cancelled = False
        self._process: subprocess.Popen[bytes] | None = None
        self._answer: Built | BuildError | None = None
        self._last: deque[str] = deque(maxlen=LAST_LINES)

    def cancel(self) -> None:
        """End the child, or keep it from being started; from any thread, returns at once."""
        with self._lock:
            self._cancelled = True
            self._signal(signal.SIGTERM)

    def run(self, tell: Callable[[Progress], None]) -> Built:
        """Run the child to its end.

        Args:
            tell: takes progress.

        Raises:
            BuildError: it failed, was cancelled, crashed, was killed, or took too long.
        """
        with self._lock:
            if self._cancelled:
                raise BuildError(f"the {self._what} was cancelled")
            process = self._process = self._start()
        try:
            expired = self._follow(process, tell)
        finally:
            with self._lock:
                # Also what the child has started. Its number is its own until it is waited for.
                self._signal(signal.SIGKILL)
                self._process = None
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()
        return self._outcome(process.returncode, expired=expired)

    def _start(self) -> subprocess.Popen[bytes]:
        try:
            process = subprocess.Popen(  # noqa: S603 - our own module
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._environment,
                pass_fds=self._inherited,
            )
        except OSError as error:
            raise HostFaultError(f"the {self._what} cannot be started: {error}") from error
        _put_last(process.pid)
        return process

    def _follow(self, process: subprocess.Popen[bytes], tell: Callable[[Progress], None]) -> bool:
        """Read until the child has ended; True if it was out of time."""
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(self._request)
            process.stdin.flush()
        deadline = time.monotonic() + self._timeout_s
        kill_at: float | None = None
        expired = False
        with selectors.DefaultSelector() as selector:
            _register(selector, process.stdout, lambda line: self._hear(line, tell))
            _register(selector, process.stderr, self._note)
            while selector.get_map():
                events = selector.select(LOOK_S)
                for key, _ in events:
                    lines: _Lines = key.data
                    if not lines.read(key.fd):
                        selector.unregister(key.fileobj)
                now = time.monotonic()
                if not events and _has_ended(process.pid):
                    # Somebody whom it started holds the pipes open.
                    return expired
                if now > deadline and not expired:
                    expired = True
                    self._signal(signal.SIGTERM)
                if (expired or self._cancelled) and kill_at is None:
                    kill_at = now + KILL_GRACE_S
                if kill_at is not None and now > kill_at:
                    self._signal(signal.SIGKILL)
        return expired

    def _hear(self, line: bytes, tell: Callable[[Progress], None]) -> None:
        try:
            message = json.loads(line)
            if "progress" in message:
                said = message["progress"]
                tell(Progress(str(said["step"]), int(said["done"]), int(said["total"])))
            elif "report" in message:
                said = message["report"]
                self._answer = Built(str(said["plan"]), dict(said["value"]))
            elif "error" in message:
                fault = message.get("kind") in HOST_FAULTS
                self._answer = (HostFaultError if fault else BuildError)(str(message["error"]))
        except (ValueError, TypeError, KeyError):
            # A library that writes to the file descriptor itself.
            self._note(line)

    def _note(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").strip()
        if text:
            log.info("%s: %s", self._what, text)
            self._last.append(text)

    def _outcome(self, code: int, *, expired: bool) -> Built:
        if self._cancelled:
            raise BuildError(f"the {self._what} was cancelled")
        if expired:
            raise BuildError(f"the {self._what} was given up after {self._timeout_s:g} s")
        if isinstance(self._answer, Built):
            return self._answer
        if self._answer is not None:
            raise self._answer
        if code < 0:
            name = signal.Signals(-code).name
            hint = "; memory may have run out" if name == "SIGKILL" else ""
            raise BuildError(f"the {self._what} was ended by {name}{hint}{self._told()}")
        raise BuildError(
            f"the {self._what} ended with code {code} and without a report{self._told()}"
        )

    def _told(self) -> str:
        return f"; its last words: {' | '.join(self._last)}" if self._last else ""

    def _signal(self, number: signal.Signals) -> None:
        """Send a signal to the child and to those it has started."""
        process = self._process
        if process is None:
            return
        try:
            # The child makes itself the leader of a group of its own as the first thing it does.
            os.killpg(process.pid, number)
        except ProcessLookupError:
            os.kill(process.pid, number)


def _has_ended(pid: int) -> bool:
    """Whether a child has ended; leaves it to be waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


class _Lines:
    """Cuts what comes from a pipe into lines."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take
        self._rest = b""
        self._skipping = False

    def read(self, descriptor: int) -> bool:
        """Read what is there; False at the end."""
        data = os.read(descriptor, READ_BYTES)
        if not data:
            self._line(self._rest)
            return False
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            self._line(line)
        if len(self._rest) > MAX_LINE_BYTES:
            self._rest, self._skipping = b"", True
        return True

    def _line(self, line: bytes) -> None:
        if not self._skipping and line:
            self._take(line)
        self._skipping = False


def _register(
    selector: selectors.BaseSelector, stream: IO[bytes], take: Callable[[bytes], None]
) -> None:
    selector.register(stream, selectors.EVENT_READ, _Lines(take))


def _put_last(pid: int) -> None:
    """Make a process the last to be served, as far as the system allows it."""
    put_aside(pid)
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, NICE)
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_bytes(FIRST_TO_DIE)
    with contextlib.suppress(psutil.Error, OSError):
        psutil.Process(pid).ionice(psutil.IOPRIO_CLASS_IDLE)
