"""The status page in states that are hard to bring about, by the real server from made-up values.

    python -m tests.integration.statuspages FOLDER [STATE ...]

writes one picture a state, width and colour scheme with a headless Chromium. With the folder
`references`, the small pictures that tests/integration/test_page.py compares with.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from agent.confighttp import HttpConfig
from agent.detection import Detections, ModelRef, StageTimes
from agent.http.ports import Sources
from agent.http.server import HttpServer
from agent.pipeline.stats import PipelineStats
from tests.fakes.frames import frame, result
from tests.integration.browser import Browser, Page, find

NOW = 1_760_000_000.0
"""When it is on the page, seconds since the epoch: 9 October 2025, 08:53:20 UTC."""

UPTIME_S = 4000
DAY_S = 86_400
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
CAMERAS = ("belt", "dock", "gate")
ROOT = Path(__file__).parents[2]
REFERENCES = Path(__file__).parent / "references"
SHRINK = 4
"""A reference has one pixel for so many of the page in each direction."""

STEPS = 300
"""Points of the plots: ten minutes."""


def _values(names: tuple[str, ...]) -> dict[str, Any]:
    """All is well; by the names of `agent.http.ports.Sources`."""
    before = NOW - UPTIME_S
    return {
        "cameras": {
            name: {"state": "online", "reason": "", "since": before, "attempts": 0, "model": "main"}
            for name in names
        },
        "models": {"main": {
            "name": "conveyor-n", "digest": "sha256:9f31c2a07be4d1c88a0e", "backend": "tensorrt",
            "precision": "int8", "names": ["box", "letter", "tube"], "reason": "", "waiting": 0,
            "build": {"state": "ready", "report": {
                "chosen": {"backend": "tensorrt", "precision": "int8"}, "speedup": 2.31,
                "candidates": [
                    {"backend": "tensorrt", "precision": "int8", "taken": True, "p50_ms": 4.1,
                     "gate": {"matched": 0.987, "cosine": 0.9995}},
                    {"backend": "tensorrt", "precision": "fp16", "taken": False, "p50_ms": 6.2,
                     "gate": {"matched": 0.998, "cosine": 0.99998}},
                ],
            }},
        }},
        "host": {
            "cpu_percent": 41.0, "process_rss_bytes": 412_000_000, "temperature_max_c": 58.5,
            "thermal": {"cpu-thermal": 56.0, "gpu-thermal": 58.5}, "power": {"total_w": 11.4},
        },
        "broker": {"connected": True},
        "publisher": {"outbox_messages": 0},
        "spool": {"memory_messages": 0, "disk_messages": 0, "dropped": {}, "disk": "ok"},
        "governor": {"enabled": True, "level": 0},
        "history": [
            {"slot": "main", "state": "COMMITTED", "version": "1.4.0", "reason": "",
             "changed": NOW - 2 * DAY_S,
             "figures": {"gate": {"score": 0.9312, "active_score": 0.9107}}},
        ],
        "events": [
            _event(UPTIME_S, "agent", "info", "started"),
            *(_event(UPTIME_S - 10, "camera", "info", f"{n}: online") for n in names),
        ],
        "health": {"ready": True, "stalled": ()},
        "troubles": [],
    }  # fmt: skip


def _event(age_s: float, kind: str, severity: str, what: str) -> dict[str, Any]:
    return {"ts": NOW - age_s, "kind": kind, "severity": severity, "what": what}


def _lost(seen: dict[str, Any]) -> None:
    reason = "rtsp://10.0.0.7/stream1: connection refused; is the camera on?"
    seen["cameras"]["gate"] |= {
        "state": "connecting", "reason": reason, "since": NOW - 340, "attempts": 21,
    }  # fmt: skip
    what = "gate: connecting: connection refused"
    seen["events"].append(_event(340, "camera", "warning", what))


def _recovery(seen: dict[str, Any]) -> None:
    seen["models"] = {}
    mistake = "the configuration has a mistake and there is no good one; no camera runs"
    seen["troubles"] = [mistake]
    what = "/etc/vigia/agent.yaml: cameras.belt.fps: must be above 0 (line 14)"
    seen["events"] = [*seen["events"][:1], _event(UPTIME_S - 1, "config", "error", what)]


def _updating(seen: dict[str, Any]) -> None:
    model = seen["models"]["main"]
    model["update"] = {"state": "BUILDING", "version": "1.5.0", "reason": "", "figures": {}}
    step = "int8 on tensorrt: building the engine"
    model["build"] = {"state": "building", "step": step, "done": 3, "total": 5}
    what = "main: 1.5.0 is fetched, 9.2 MB in 41 s"
    seen["events"].append(_event(75, "update", "info", what))


def _rejected(seen: dict[str, Any]) -> None:
    reason = "its map50_95 is 0.7132; at least 0.9 is asked"
    figures = {"gate": {"metric": "map50_95", "score": 0.7132, "active_score": 0.9312,
                        "pictures": 64, "latency_ms": {"p50": 8.1, "p95": 9.4}}}  # fmt: skip
    past = {"slot": "main", "state": "REJECTED", "version": "1.5.0", "reason": reason}
    seen["history"].insert(0, {**past, "changed": NOW - 600, "figures": figures})
    seen["models"]["main"]["update"] = {"state": "REJECTED", "version": "1.5.0", "reason": reason}
    seen["events"].append(_event(600, "update", "warning", f"main: 1.5.0 is rejected: {reason}"))


def _away(seen: dict[str, Any]) -> None:
    seen["broker"] = {"connected": False, "reason": "mqtt.example:8883: connection timed out"}
    seen["spool"] |= {"memory_messages": 212, "disk_messages": 18_240, "disk_bytes": 9_240_000}
    what = "no broker: mqtt.example:8883: connection timed out"
    seen["events"].append(_event(610, "mqtt", "warning", what))


def _hot(seen: dict[str, Any]) -> None:
    seen["host"] |= {"temperature_max_c": 94.5, "thermal": {"gpu-thermal": 94.5}}
    seen["governor"] |= {
        "level": 2, "headroom_c": 2.5, "fps_limits": dict.fromkeys(CAMERAS, 12.0),
        "reason": "gpu-thermal at 94.5 °C, 2.5 below slowing down",
    }  # fmt: skip
    what = "does less: half the frames (gpu-thermal at 94.5 °C, 2.5 below slowing down)"
    seen["events"].append(_event(130, "governor", "warning", what))


def _stalled(seen: dict[str, Any]) -> None:
    seen["health"] = {"ready": True, "stalled": ("model main",)}
    what = "model main makes no progress for 12 s; its engine is loaded anew"
    seen["events"].append(_event(9, "stall", "error", what))


STATES = {
    "well": lambda _seen: None,
    "lost": _lost,
    "recovery": _recovery,
    "updating": _updating,
    "rejected": _rejected,
    "away": _away,
    "hot": _hot,
    "stalled": _stalled,
}


class Stage:
    """Serves a state: plots of ten minutes, and pictures as long as somebody asks for them."""

    def __init__(self, state: str) -> None:
        names = () if state == "recovery" else CAMERAS
        seen = _values(names)
        STATES[state](seen)
        self._stats = PipelineStats(names)
        self._show: Any = None
        looks: dict[str, Any] = {name: lambda value=value: value for name, value in seen.items()}
        given = Sources(
            identity=lambda: {
                "device": "edge-7", "boot": "b7e1", "version": "0.1.0",
                "started": NOW - UPTIME_S,
            },
            stats=self._stats.counted, show=self._note, **looks,
        )  # fmt: skip
        self.server = HttpServer(HttpConfig(port=0), given)
        self._online = [n for n, c in seen["cameras"].items() if c["state"] == "online"]
        self._rate = 12 if state == "hot" else 20
        self._fill()
        self.server.app._wall = lambda: NOW
        # The plots stand still.
        self.server.history.look = lambda: None  # type: ignore[method-assign]
        self._stop = threading.Event()
        self._player = threading.Thread(target=self._play, daemon=True)
        assert self.server.start(), self.server.reason
        self._player.start()

    @property
    def address(self) -> str:
        """Of the page."""
        return f"http://127.0.0.1:{self.server.port}/"

    def close(self) -> None:
        """End it."""
        self._stop.set()
        self._player.join()
        self.server.close(3.0)

    def _note(self, show: Any) -> None:
        self._show = show

    def _fill(self) -> None:
        history, began = self.server.history, NOW - 2 * STEPS
        for step in range(STEPS):
            for place, name in enumerate(self._online):
                rate = self._rate if self._rate == 20 or step > STEPS // 2 else 20
                for i in range(2 * rate + (step * (place + 3)) % 5):
                    ms = 12 + 6 * place + (step * 7 + i * 3) % 9 + (25 if step % 83 == 40 else 0)
                    self._stats.result(name, StageTimes(1, 2, ms - 5, 2, ms), 2)
            history._clock = lambda: history._looked + 2.0
            history._wall = lambda at=step: began + 2 * at
            history.look()

    def _play(self) -> None:
        """The same frame again and again: a page that is looked at later looks the same."""
        video = cv2.VideoCapture(str(ROOT / "examples" / "conveyor" / "sample.mp4"))
        good, pixels = video.read()
        video.release()
        assert good
        corners = np.array([[178, 192, 322, 312], [400, 270, 520, 400]], np.float32)
        found = Detections(corners, np.array([0.93, 0.88], np.float32), np.array([1, 0], np.int32))
        model = ModelRef("main", "conveyor-n", "sha256:9f", "tensorrt", "int8", ("box", "letter"))
        number = 0
        while not self._stop.wait(0.1):
            number += 1
            show = self._show
            for name in self._online if show is not None else ():
                shown = replace(frame(name, number), pixels=pixels)
                show(shown, replace(result(shown, found), model=model))


READY = (
    "document.body.dataset.shown && "
    "[...document.querySelectorAll('.picture:not(.lost) img')]"
    ".every((i) => !i.hidden && i.complete)"
)


def look(browser: Browser, stage: Stage, size: tuple[int, int], *, dark: bool = False) -> Page:
    """The page as it is when everything has come."""
    page = browser.page(size, dark=dark, now=NOW)
    page.open(stage.address)
    page.until("document.body && document.body.dataset.shown")
    # Live pictures come only for what is seen.
    page.resize(size[0], page.ask("document.documentElement.scrollHeight"))
    page.until(READY)
    return page


def shrunk(png: bytes) -> np.ndarray:
    """A picture that fonts change little: BGR, each side a `SHRINK`th."""
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    height, width = pixels.shape[:2]
    return cv2.resize(pixels, (width // SHRINK, height // SHRINK), interpolation=cv2.INTER_AREA)


def main() -> None:
    """See the module."""
    folder = Path(sys.argv[1])
    command = find()
    assert command is not None, "install the Debian package chromium"
    with tempfile.TemporaryDirectory() as profile:
        browser = Browser(command, Path(profile))
        try:
            for state in sys.argv[2:] or STATES:
                _photograph(browser, state, folder)
        finally:
            browser.close()


def _photograph(browser: Browser, state: str, folder: Path) -> None:
    stage = Stage(state)
    try:
        for screen, size in SIZES.items():
            for dark in (False, True):
                page = look(browser, stage, size, dark=dark)
                name = f"{state}-{screen}{'-dark' * dark}.png"
                if folder.name != "references":
                    (folder / name).write_bytes(page.picture())
                elif not dark:
                    cv2.imwrite(str(REFERENCES / name), shrunk(page.picture()))
                page.close()
    finally:
        stage.close()


if __name__ == "__main__":
    main()
