"""Builds `libcuda.c` and loads it into this process before anything asks for the real driver."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("libcuda.c")
KERNEL_RUNNER = Path(__file__).with_name("hostkernel.cpp")
KERNEL_MARK = b"vigia host kernel\n"

KINDS = ("device", "host", "stream", "event", "module", "graph", "graph exec", "primary")
"""What is counted, in the order of the enumeration in libcuda.c."""


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vigia-test"


def _compiled(name: str, compiler: str, source: Path, *flags: str, more: bytes = b"") -> Path:
    """A shared library, made when its source, flags or `more` change."""
    digest = hashlib.sha256(source.read_bytes() + more + repr(flags).encode())
    place = _cache() / f"{name}-{digest.hexdigest()[:16]}" / name
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as folder:
            made = Path(folder) / name
            command = [compiler, "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", str(made)]
            subprocess.run([*command, str(source), *flags], check=True)
            made.rename(place)
    return place


def build() -> Path:
    """The stand-in's `libcuda.so.1`."""
    return _compiled(
        "libcuda.so.1", "gcc", SOURCE, "-fvisibility=hidden", "-Wl,-soname,libcuda.so.1",
        "-Wl,-z,defs", "-ldl", "-lpthread",
    )  # fmt: skip


def host_kernel(source: str) -> bytes:
    """A kernel's source compiled for the processor, as the stand-in's machine code.

    Stands in for `engines.trt.compile.compile_source`.
    """
    digest = hashlib.sha256(source.encode()).hexdigest()[:16]
    place = _cache() / f"kernel-{digest}.cu"
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        part = place.with_suffix(f".{os.getpid()}")
        part.write_text(source)
        part.rename(place)
    # No fused multiply-add: results are then the same on every processor.
    library = _compiled(
        "kernel.so", "g++", KERNEL_RUNNER, "-std=c++17", "-ffp-contract=off",
        f'-DKERNEL="{place}"', "-lm", more=source.encode(),
    )  # fmt: skip
    return KERNEL_MARK + os.fsencode(library) + b"\0"


@functools.cache
def why_not() -> str:
    """Why the real pycuda cannot run here; empty if it can."""
    if shutil.which("gcc") is None:
        return "there is no gcc"
    try:
        load()
        import pycuda.driver  # noqa: F401, PLC0415 - after the driver that it links to
    except (ImportError, OSError, subprocess.CalledProcessError) as error:
        return f"pycuda does not run: {error}; scripts/test installs it"
    return ""


def require() -> None:
    """Skip the test where the real pycuda cannot run; where everything must run, fail it."""
    reason = why_not()
    if reason and os.environ.get("CI"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


@functools.cache
def load() -> FakeCuda:
    """The stand-in, found under the driver's name by all that is loaded later."""
    return FakeCuda(ctypes.CDLL(str(build()), mode=ctypes.RTLD_GLOBAL))


class FakeCuda:
    """What tests can see of the stand-in and do to it."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.fake_cuda_live.restype = ctypes.c_long
        library.fake_cuda_budget.argtypes = [ctypes.c_long]
        library.fake_cuda_budget_left.restype = ctypes.c_long

    def live(self) -> dict[str, int]:
        """What was made and not given back, by kind."""
        counts = {kind: self._library.fake_cuda_live(i) for i, kind in enumerate(KINDS)}
        return {kind: count for kind, count in counts.items() if count}

    @property
    def damaged(self) -> int:
        """Allocations behind whose end something was written."""
        return self._library.fake_cuda_damaged()

    @property
    def depth(self) -> int:
        """How many contexts this thread has pushed."""
        return self._library.fake_cuda_depth()

    def budget(self, allocations: int | None) -> None:
        """Let this many allocations succeed; None for all."""
        self._library.fake_cuda_budget(-1 if allocations is None else allocations)

    @property
    def budget_left(self) -> int:
        return self._library.fake_cuda_budget_left()

    def integrated(self, yes: bool) -> None:
        """Whether the device shares memory with the host, as a Jetson does."""
        self._library.fake_cuda_integrated(int(yes))

    def refuse_captures(self, yes: bool) -> None:
        """Let every graph capture fail at its end."""
        self._library.fake_cuda_refuse_captures(int(yes))

    def recover(self) -> None:
        """Forget a lost context and damage found."""
        self._library.fake_cuda_recover()
