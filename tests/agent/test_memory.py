from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from agent.memory import give_back, limit_arenas


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_free_memory_goes_back_to_the_system():
    # Blocks below the size that is mapped on its own, with one at the end that pins the heap.
    blocks = [bytearray(100_000) for _ in range(500)]
    pin = bytearray(100_000)
    full = psutil.Process().memory_info().rss
    del blocks
    give_back()
    assert psutil.Process().memory_info().rss < full - 20_000_000
    assert pin


def test_limiting_arenas_changes_nothing_but_memory():
    code = (
        "from agent.memory import limit_arenas; limit_arenas(); import threading; "
        "t = [threading.Thread(target=bytearray, args=(9**6,)) for _ in range(9)]; "
        "[x.start() for x in t]; [x.join() for x in t]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
    limit_arenas()
