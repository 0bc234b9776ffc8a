"""Starts the process that builds, listens to it, and turns whatever happens to it into an error."""

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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engines.backend import Progress
from engines.errors import BackendError, BuildError, CalibrationError, EngineError
from engines.trt.logger import LEVELS
from engines.trt.shortage import ADVICE, EXHAUSTED, BuildMemoryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from typing_extensions import Self

    from engines.trt.board import Board
    from engines.trt.order import Order

log = logging.getLogger(__name__)

MODULE = "engines.trt.child"

KINDS: dict[str, type[EngineError]] = {
    kind.__name__: kind for kind in (BackendError, BuildError, BuildMemoryError, CalibrationError)
}
"""What the child may report; anything else becomes a BuildError."""

TAIL_BYTES = 4000
"""Of standard error, for a child that died without a word."""

TAIL_LINES = 5

CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Pictures:
    """Calibration batches for the child.

    Attributes:
        count: how many batches.
        shape: of each.
        dtype: NumPy's name of the element type.
        batches: gives them.
    """

    count: int
    shape: tuple[int, ...]
    dtype: str
    batches: Iterator[NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Job:
    """One build.

    Attributes:
        order: what to build.
        model: the ONNX file's bytes.
        board: where.
        free_bytes: GPU memory that is free now.
        cache: calibration cache text, for routes that want one.
        pictures: for routes that want them.
        memory_bytes: what the process may use, or None.
        deadline: monotonic time at which the build is given up, seconds.
        timeout_s: what it was set to, for the message.
    """

    order: Order
    model: bytes
    board: Board
    free_bytes: int
    deadline: float
    timeout_s: float
    cache: bytes | None = None
    pictures: Pictures | None = None
    memory_bytes: int | None = None


def run(job: Job, tell: Callable[[Progress], None]) -> tuple[bytes, dict[str, object]]:
    """Build in a process of its own; it is gone when this returns, however it returns.

    Returns:
        The plan, and figures for the report.

    Raises:
        BuildMemoryError: the kernel or the cap ended it.
        BuildError: it failed, crashed, or took too long.
        CalibrationError: calibration failed.
        BackendError: TensorRT cannot be used.
    """
    with contextlib.ExitStack() as stack:
        model_fd = stack.enter_context(_memory("model"))
        plan_fd = stack.enter_context(_memory("plan"))
        errors_fd = stack.enter_context(_memory("errors"))
        _write_all(model_fd, job.model)
        header: dict[str, object] = {
            "order": job.order.to_json(),
            "board": job.board.to_json(),
            "free_bytes": job.free_bytes,
            "memory_bytes": job.memory_bytes,
            "cache": None if job.cache is None else job.cache.decode(),
            "model_fd": model_fd,
            "plan_fd": plan_fd,
        }
        feeder = None
        passed = [model_fd, plan_fd]
        if job.pictures is not None:
            feeder = stack.enter_context(_Feeder(job.pictures))
            header["pictures"] = feeder.header
            passed.append(feeder.reading)
        process = stack.enter_context(_started(passed, errors_fd))
        if feeder is not None:
            feeder.start()
        last = _listen(process, header, job, tell)
        if feeder is not None:
            feeder.finish()
        if isinstance(last, dict):
            return _read_all(plan_fd), last
        raise _failure(process, last, _read_all(errors_fd))


@contextlib.contextmanager
def _memory(name: str) -> Iterator[int]:
    """A file that lies in memory alone: models and plans are kept sealed on the disk."""
    try:
        descriptor = os.memfd_create(f"vigia-{name}")
    except OSError as error:
        raise BuildError(f"cannot make a file in memory: {error.strerror}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    try:
        while rest:
            # One call writes at most 2 GiB.
            rest = rest[os.write(descriptor, rest) :]
    except OSError as error:
        raise BuildMemoryError(
            f"no memory for the model's {len(content)} bytes: {error.strerror}; {ADVICE}"
        ) from error


def _read_all(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    with open(descriptor, "rb", closefd=False) as file:
        file.seek(0)
        return file.read(size)


@contextlib.contextmanager
def _started(passed: list[int], errors_fd: int) -> Iterator[subprocess.Popen[bytes]]:
    # The child imports what this process would, from wherever it was started.
    paths = [os.path.abspath(path) for path in sys.path]  # noqa: PTH100 - sys.path holds text
    try:
        process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors_fd,
            pass_fds=passed,
            cwd="/",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
    except OSError as error:
        raise BuildError(f"cannot start a process to build in: {error.strerror}") from error
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                # What was not taken any more does not matter.
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def _listen(
    process: subprocess.Popen[bytes],
    header: dict[str, object],
    job: Job,
    tell: Callable[[Progress], None],
) -> dict[str, object] | EngineError | list[str]:
    """Take lines until the last one.

    Returns:
        Figures if the plan is there, the child's error, or TensorRT's last words if it died.
    """
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps(header).encode() + b"\n")
        process.stdin.flush()
    said: list[str] = []
    for line in _lines(process, job):
        message = json.loads(line)
        if "progress" in message:
            tell(Progress(*message["progress"]))
        elif "log" in message:
            severity, text = message["log"]
            log.log(LEVELS.get(severity, logging.DEBUG), "TensorRT: %s", text)
            if LEVELS.get(severity) == logging.ERROR:
                said.append(text)
        elif "done" in message:
            done: dict[str, object] = message["done"]
            return done
        elif "error" in message:
            kind, text = message["error"]
            return KINDS.get(kind, BuildError)(text)
    return said


def _lines(process: subprocess.Popen[bytes], job: Job) -> Iterator[bytes]:
    assert process.stdout is not None
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            left_s = job.deadline - time.monotonic()
            if left_s <= 0 or not selector.select(left_s):
                raise BuildError(
                    f"the build took longer than {job.timeout_s:g} s and was given up; "
                    "raise tensorrt.build_timeout_s or lower tensorrt.level"
                )
            chunk = os.read(process.stdout.fileno(), CHUNK_BYTES)
            if not chunk:
                return
            *whole, rest = (rest + chunk).split(b"\n")
            yield from whole


def _failure(
    process: subprocess.Popen[bytes],
    last: EngineError | list[str],
    errors: bytes,
) -> EngineError:
    if isinstance(last, EngineError):
        return last
    code = process.wait()
    said = f"; TensorRT said: {'; '.join(last[-TAIL_LINES:])}" if last else ""
    if code == -signal.SIGKILL:
        return BuildMemoryError(
            "the build was killed, most likely by the kernel because memory ran out; "
            f"{ADVICE}{said}"
        )
    tail = errors[-TAIL_BYTES:].decode("utf-8", "replace").strip().splitlines()[-TAIL_LINES:]
    printed = f"; it printed: {' | '.join(tail)}" if tail else ""
    if b"bad_alloc" in errors:
        return BuildMemoryError(f"{EXHAUSTED}; {ADVICE}{said}")
    if code < 0:
        name = signal.Signals(-code).name
        return BuildError(f"TensorRT crashed with {name} while it built{said}{printed}")
    return BuildError(f"the build process ended with code {code}{said}{printed}")


class _Feeder:
    """Writes calibration batches into a pipe, from a thread: the child reads when it wants one."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self._thread = threading.Thread(target=self._feed, name="calibration", daemon=True)
        self.error: Exception | None = None

    def __enter__(self) -> Self:
        self.reading, self._writing = os.pipe()
        self.header = {
            "fd": self.reading,
            "count": self._pictures.count,
            "shape": list(self._pictures.shape),
            "dtype": self._pictures.dtype,
        }
        return self

    def start(self) -> None:
        """Begin, once the child has its end: only then does its death show here."""
        os.close(self.reading)
        self.reading = -1
        self._thread.start()

    def finish(self) -> None:
        """Wait for the thread: the child reads no more.

        Raises:
            Exception: what kept the pictures from being read; the child saw only their end.
        """
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _feed(self) -> None:
        try:
            with os.fdopen(self._writing, "wb") as stream:
                for batch in self._pictures.batches:
                    stream.write(batch.tobytes())
        except BrokenPipeError:
            # The child has what it wants, or is gone; its last line says which.
            pass
        except Exception as error:  # noqa: BLE001 - raised in the thread that waits
            self.error = error

    def __exit__(self, *exception: object) -> None:
        if self._thread.ident is None:
            os.close(self._writing)
            os.close(self.reading)
        else:
            # The child is gone by now: a write ends with BrokenPipeError.
            self._thread.join()
