"""The process that builds: `python -m engines.trt.child`, started by `engines.trt.process`.

TensorRT leaks hundreds of megabytes at each build, takes minutes, cannot be cancelled before 10,
and dies with the process where memory is short. Here it may: the device's memory comes back, and
the agent goes on. Nothing touches the disk but the timing cache.

Standard input carries one line of JSON, and its end means that nobody waits any more. Standard
output carries JSON lines: {"progress": [step, done, total]}, {"log": [severity, text]}, and at the
end {"done": figures} or {"error": [kind, text]}.
"""

from __future__ import annotations

import contextlib
import json
import logging
import mmap
import os
import resource
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from engines.errors import CalibrationError, EngineError
from engines.trt.api import TrtApi, import_tensorrt
from engines.trt.board import Board
from engines.trt.build import Ranges, build
from engines.trt.order import Order
from engines.trt.shortage import ADVICE, EXHAUSTED, BuildMemoryError
from engines.trt.upload import Uploader

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from engines.backend import Progress

NICENESS = 10
"""Cameras and the engine that serves come first; below this TensorRT's timings get unsteady."""

OOM_SCORE = 800
"""Of 1000: if memory runs out, the kernel ends this process before the agent."""

OOM_SCORE_FILE = Path("/proc/self/oom_score_adj")

LOGGED = ("INTERNAL_ERROR", "ERROR", "WARNING")
"""Severities that the parent is told."""


class Channel:
    """JSON lines to the parent; lines of several threads are not mixed."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def send(self, **line: object) -> None:
        """Send one line.

        Raises:
            BrokenPipeError: nobody reads any more.
        """
        with self._lock:
            self._stream.write(json.dumps(line) + "\n")
            self._stream.flush()

    def progress(self, progress: Progress) -> None:
        """Send how far the build has come."""
        self.send(progress=[progress.step, progress.done, progress.total])

    def log(self, severity: str, text: str) -> None:
        """Send one of TensorRT's lines."""
        # The logger is called from native code; who no longer listens ends this process anyway.
        if severity in LOGGED:
            with contextlib.suppress(OSError):
                self.send(log=[severity, text])


def main() -> None:
    """Build what standard input says; never returns."""
    # Libraries print to descriptor 1: from here on that is standard error.
    channel = Channel(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    logging.getLogger().addHandler(logging.NullHandler())
    header = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    code = 0
    try:
        _be_modest(header["memory_bytes"])
        _build(header, channel)
    except EngineError as error:
        channel.send(error=[type(error).__name__, str(error)])
    except MemoryError:
        channel.send(error=[BuildMemoryError.__name__, f"{EXHAUSTED}; {ADVICE}"])
    except Exception:  # noqa: BLE001 - the parent turns what stands on standard error into an error
        traceback.print_exc()
        code = 1
    finally:
        # Without destructors: some releases crash in them after all is done.
        os._exit(code)


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(1)


def _be_modest(memory_bytes: int | None) -> None:
    """Low priority, first to go when memory is short, no core dumps, and the cap.

    The cap is RLIMIT_DATA: it counts memory that can be written (Linux 4.7 and newer). RLIMIT_AS
    would count the tens of gigabytes of addresses that CUDA reserves and never fills.
    """
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A container may hide the file.
    with contextlib.suppress(OSError):
        OOM_SCORE_FILE.write_text(str(OOM_SCORE), "ascii")
    if memory_bytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))


def _build(header: Mapping[str, Any], channel: Channel) -> None:
    began = time.monotonic()
    order = Order.from_json(header["order"])
    api = TrtApi(import_tensorrt(), channel.log)
    plan, figures = build(
        api,
        order,
        memoryview(mmap.mmap(header["model_fd"], 0, prot=mmap.PROT_READ)),
        Board(**header["board"]),
        header["free_bytes"],
        ranges=_ranges(header, order),
        tell=channel.progress,
    )
    with os.fdopen(header["plan_fd"], "wb") as file:
        file.write(plan)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    channel.send(
        done={
            **figures,
            "plan_bytes": len(plan),
            "peak_mib": peak_kib // 1024,
            "route_s": round(time.monotonic() - began, 2),
        }
    )


def _ranges(header: Mapping[str, Any], order: Order) -> Ranges | None:
    if order.route.calibration == "cache":
        return Ranges(cache=header["cache"].encode())
    if order.route.calibration == "pictures":
        # Not at the top: the other routes need no CUDA of their own.
        from engines.trt.cudapycuda import open_port  # noqa: PLC0415 - see above

        pictures = header["pictures"]
        batches = _read_batches(
            pictures["fd"], pictures["count"], tuple(pictures["shape"]), np.dtype(pictures["dtype"])
        )
        return Ranges(batches=batches, upload=Uploader(open_port()))
    return None


def _read_batches(
    descriptor: int, count: int, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Iterator[NDArray[Any]]:
    size = int(np.prod(shape)) * dtype.itemsize
    with os.fdopen(descriptor, "rb") as stream:
        for number in range(count):
            content = stream.read(size)
            if len(content) < size:
                raise CalibrationError(f"the pictures ended before batch {number} of {count}")
            yield np.frombuffer(content, dtype).reshape(shape)


if __name__ == "__main__":
    main()
