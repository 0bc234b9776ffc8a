"""The status page in its states, served by the real server from values made up; for screenshots.

    python -m tests.integration.statuspages FOLDER

writes one picture a state, width and colour scheme with a headless Chromium.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from agent.confighttp import HttpConfig
from agent.detection import Detections, StageTimes
from agent.http.ports import Sources
from agent.http.server import HttpServer
from agent.pipeline.stats import PipelineStats
from tests.fakes.frames import frame, result

STATES = ("well", "lost", "flagged", "rejected", "empty")
WIDTHS = {"desktop": (1280, 1500), "phone": (500, 2300)}
CAMERAS = ("belt", "dock", "gate")
ROOT = Path(__file__).parents[2]
DAY_S = 86_400


def sources(state: str, show: Any = lambda _show: None) -> tuple[Sources, PipelineStats]:
    """An agent in a state."""
    now = time.time()
    names = () if state == "empty" else CAMERAS
    stats = PipelineStats(names)
    cameras = {
        name: {"state": "online", "reason": "", "since": now, "attempts": 0, "model": "main"}
        for name in names
    }
    if state == "lost":
        cameras["gate"] |= {
            "state": "connecting",
            "reason": "rtsp://10.0.0.7/stream1: connection refused; is the camera on?",
        }
    model: dict[str, Any] = {
        "name": "conveyor-n", "digest": "sha256:9f31c2a07be4d1c88a0e", "backend": "tensorrt",
        "precision": "int8", "names": ["box", "bag", "tube"], "reason": "", "waiting": 0,
        "build": {
            "state": "ready",
            "report": {"chosen": "int8 on tensorrt", "agreement": 0.9871, "speedup": 2.31},
        },
    }  # fmt: skip
    if state == "flagged":
        model["reason"] = "conveyor-n: the output holds NaN; the engine is loaded anew"
    past = [
        {"slot": "main", "state": "COMMITTED", "version": "1.4.0", "reason": "",
         "changed": now - 2 * DAY_S},
    ]  # fmt: skip
    events = [
        {"ts": now - 4000, "kind": "agent", "severity": "info", "what": "started"},
        *(
            {"ts": now - 3990, "kind": "camera", "severity": "info", "what": f"{n}: online"}
            for n in names
        ),
    ]
    if state == "lost":
        what = "gate: connecting: connection refused"
        events.append({"ts": now - 40, "kind": "camera", "severity": "warning", "what": what})
    if state == "rejected":
        reason = "gate: agreement with the active model 0.71, at least 0.90 wanted"
        past.insert(
            0,
            {"slot": "main", "state": "REJECTED", "version": "1.5.0", "reason": reason,
             "changed": now - 600},
        )  # fmt: skip
        model["update"] = {"state": "REJECTED", "version": "1.5.0", "reason": reason}
    made = Sources(
        identity=lambda: {
            "device": "edge-7", "boot": "b7e1", "version": "0.1.0", "started": now - 4000,
        },
        cameras=lambda: cameras,
        stats=stats.counted,
        models=lambda: {"main": model},
        host=lambda: {"cpu_percent": 41.0, "process_rss_bytes": 412_000_000,
                      "temperature_max_c": 58.5},
        broker=lambda: {"connected": True},
        publisher=lambda: {"outbox_messages": 0},
        events=lambda: events,
        history=lambda: past,
        show=show,
    )  # fmt: skip
    return made, stats


class Stage:
    """Feeds a server with frames, and its plots with ten minutes of history."""

    def __init__(self, state: str) -> None:
        self._show: Any = None
        given, self.stats = sources(state, self._note)
        self.server = HttpServer(HttpConfig(port=0), given)
        self._names = [n for n, c in given.cameras().items() if c["state"] == "online"]
        self._stop = threading.Event()
        self._backdate()
        self.server.start()
        threading.Thread(target=self._play, daemon=True).start()

    def close(self) -> None:
        self._stop.set()
        self.server.close(3.0)

    def _note(self, show: Any) -> None:
        self._show = show

    def _backdate(self) -> None:
        history, began = self.server.history, time.time() - 600
        for step in range(300):
            for place, name in enumerate(self._names):
                for i in range(20 + (step * (place + 3)) % 5):
                    ms = 12 + 6 * place + (step * 7 + i * 3) % 9 + (25 if step % 83 == 0 else 0)
                    self.stats.result(name, StageTimes(1, 2, ms - 5, 2, ms), 2)
            history._clock = lambda at=step: history._looked + 2.0 + 0 * at
            history._wall = lambda at=step: began + 2 * at
            history.look()
        history._clock, history._wall = time.monotonic, time.time
        history._looked = time.monotonic()

    def _play(self) -> None:
        video = cv2.VideoCapture(str(ROOT / "examples" / "conveyor" / "sample.mp4"))
        number = 0
        while not self._stop.wait(0.04):
            good, pixels = video.read()
            if not good:
                video.set(cv2.CAP_PROP_POS_FRAMES, 0)
                continue
            number += 1
            height, width = pixels.shape[:2]
            found = Detections(
                np.array([[width * 0.3, height * 0.3, width * 0.55, height * 0.7]], np.float32),
                np.array([0.93], np.float32),
                np.array([0], np.int32),
            )
            for place, name in enumerate(self._names):
                shown = replace(frame(name, number), pixels=np.roll(pixels, place * 160, axis=1))
                self.stats.result(name, StageTimes(1, 2, 8, 2, 13), 1)
                if self._show is not None:
                    self._show(shown, result(shown, found))


def photograph(browser: str, address: str, out: Path, size: tuple[int, int], dark: bool) -> None:
    """A screenshot by a headless Chromium."""
    with tempfile.TemporaryDirectory() as profile:
        scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
        subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}", *scheme,
             "--virtual-time-budget=5000", "--timeout=20000", f"--screenshot={out}", address],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip


def main() -> None:
    folder = Path(sys.argv[1])
    for state in sys.argv[2:] or STATES:
        stage = Stage(state)
        try:
            for width, size in WIDTHS.items():
                for dark in (False, True):
                    name = f"status-{state}-{width}{'-dark' * dark}.png"
                    address = f"http://127.0.0.1:{stage.server.port}/"
                    photograph("chromium", address, folder / name, size, dark)
        finally:
            stage.close()


if __name__ == "__main__":
    main()
