"""Watches what a test leaves behind on the stand-ins for the driver and for TensorRT.

Apart from `libcuda`, which is also loaded by the program that builds pycuda, before tests can be
imported.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

from tests.fakes import libcuda
from tests.fakes.tensorrt import running


@contextlib.contextmanager
def watched() -> Iterator[libcuda.FakeCuda]:
    """The stand-in as it should be left: all given back, nothing damaged, TensorRT not misused."""
    driver = libcuda.load()
    before = driver.live()
    running.MISUSE.clear()
    yield driver
    driver.budget(None)
    driver.refuse_captures(False)
    driver.integrated(False)
    gc.collect()
    assert driver.live() == before
    assert driver.damaged == 0
    assert running.MISUSE == []
