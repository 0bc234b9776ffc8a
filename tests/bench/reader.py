"""Reads the HTTP side as a page or a live picture does, in a process of its own, until it is ended.

    python -m tests.bench.reader page|live URL CAMERA

Says a line once the first answer is there. Imports nothing of the agent, to be quick.
"""

from __future__ import annotations

import sys
import time
import urllib.request

EVERY_S = 2.0
"""As the page; a Prometheus server asks less often."""
ASKED = ("/api/status", "/api/history?after=0", "/metrics")
PART_BYTES = 65_536


def page(base: str) -> None:
    """Ask for what a page and a Prometheus server ask for."""
    first = True
    while True:
        for path in ASKED:
            with urllib.request.urlopen(base + path, timeout=10) as answer:
                answer.read()
        if first:
            print("ready", flush=True)
        first = False
        time.sleep(EVERY_S)


def live(base: str, camera: str) -> None:
    """Look at one camera."""
    with urllib.request.urlopen(f"{base}/live/{camera}", timeout=10) as stream:
        stream.read1(PART_BYTES)
        print("ready", flush=True)
        while stream.read1(PART_BYTES):
            pass


if __name__ == "__main__":
    way, url, name = sys.argv[1:]
    page(url) if way == "page" else live(url, name)
