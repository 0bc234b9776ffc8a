"""The status page in states that are hard to bring about, by the real server from made-up values.

    python -m tests.integration.statuspages FOLDER [STATE ...]

writes with a headless Chromium what the name of the folder says: `references`, the small pictures
that tests/integration/test_page.py compares with; `images`, those of the documentation; any other,
one picture a state, screen and colour scheme.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from agent.confighttp import HttpConfig
from agent.detection import Detections, ModelRef, StageTimes
from agent.http.ports import Sources
from agent.http.server import HttpServer
from agent.pipeline.stats import PipelineStats
from tests.fakes.frames import frame, result
from tests.integration.browser import Browser, Page, find
from tests.integration.statusvalues import NOW, STATES, UPTIME_S, values

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.detection import Result
    from agent.frame import Frame

SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
EXAMPLE = Path(__file__).parents[2] / "examples" / "conveyor"
REFERENCES = Path(__file__).parent / "references"
SHRINK = 4
"""A reference has one pixel for so many of the page in each direction."""

STEPS = 300
"""Points of the plots: ten minutes."""


class Stage:
    """Serves a state: plots of ten minutes, and pictures as long as somebody asks for them.

    Args:
        state: one of `tests.integration.statusvalues.STATES`.
        changed: values that differ from the state's.
        token: as `http.token`.
    """

    def __init__(
        self, state: str, changed: Mapping[str, Any] | None = None, token: str | None = None
    ) -> None:
        seen = {**values(state), **(changed or {})}
        self._stats = PipelineStats(seen["cameras"])
        self._show: Any = None
        looks: dict[str, Any] = {name: lambda value=value: value for name, value in seen.items()}
        given = Sources(
            identity=lambda: {
                "device": "edge-7", "boot": "b7e1", "version": "0.1.0",
                "started": NOW - UPTIME_S,
            },
            stats=self._stats.counted, show=self._note, **looks,
        )  # fmt: skip
        self.server = HttpServer(HttpConfig.model_validate({"port": 0, "token": token}), given)
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
        """Each camera's frame again and again: a page that is looked at later looks the same."""
        shown = [_still(name, place) for place, name in enumerate(self._online)]
        number = 0
        while not self._stop.wait(0.1):
            number += 1
            show = self._show
            for seen, told in shown if show is not None else ():
                show(replace(seen, index=number), replace(told, frame_index=number))


def _still(camera: str, place: int) -> tuple[Frame, Result]:
    """A frame of the example's video, and what is to be found in it."""
    truth = json.loads((EXAMPLE / "sample.json").read_text("utf-8"))
    number = 150 * place
    video = cv2.VideoCapture(str(EXAMPLE / "sample.mp4"))
    for _ in range(number + 1):
        good, pixels = video.read()
        assert good
    video.release()
    rows = np.array(truth["frames"][number], np.float32).reshape(-1, 5)
    scores = np.linspace(0.97, 0.88, len(rows), dtype=np.float32)
    found = Detections(rows[:, :4].copy(), scores, rows[:, 4].astype(np.int32))
    model = ModelRef("main", "conveyor-n", "sha256:9f", "tensorrt", "int8", tuple(truth["names"]))
    seen = replace(frame(camera), pixels=pixels)
    return seen, replace(result(seen, found), model=model)


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
            if folder.name == "images":
                _illustrate(browser, folder)
            else:
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
                    cv2.imwrite(str(folder / name), shrunk(page.picture()))
                page.close()
    finally:
        stage.close()


def _illustrate(browser: Browser, folder: Path) -> None:
    """The pictures of the documentation."""
    _write(folder / "status.jpg", _seen(browser, "lost", "desktop"))
    _write(folder / "status-dark.jpg", _seen(browser, "rejected", "desktop", dark=True))
    phones = [
        _seen(browser, "well", "phone", fold=True),
        _seen(browser, "away", "phone", fold=True),
        _seen(browser, "updating", "phone", fold=True, dark=True),
        _seen(browser, "stalled", "phone", fold=True, dark=True),
    ]
    gap = np.full((phones[0].shape[0], 24, 3), 255, np.uint8)
    row = [part for phone in phones for part in (phone, gap)][:-1]
    _write(folder / "status-phone.jpg", np.hstack(row))


def _seen(
    browser: Browser, state: str, screen: str, *, dark: bool = False, fold: bool = False
) -> np.ndarray:
    """A page with its reports unfolded, or what is seen of it without scrolling."""
    stage = Stage(state)
    try:
        page = look(browser, stage, SIZES[screen], dark=dark)
        if fold:
            page.resize(*SIZES[screen])
        else:
            page.ask("document.querySelectorAll('#history details').forEach((d) => d.open = true)")
        png = page.picture() if fold else page.whole()
        page.close()
    finally:
        stage.close()
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return pixels


def _write(path: Path, pixels: np.ndarray) -> None:
    cv2.imwrite(str(path), pixels, [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main()
