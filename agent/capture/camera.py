"""Keeps one camera delivering: opens it, watches it, opens it again.

A live camera is read in a thread of its own, because a driver may hang in native code for ever. The
supervisor gives such a reader up and opens the camera anew; a reader that comes back later finds
that it was given up, closes its device and ends without delivering. Readers that were given up are
counted, and while there are too many no more are started.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from agent import stallpoint
from agent.backoff import Backoff
from agent.capture.base import is_live, open_device
from agent.capture.transform import transform
from agent.errors import AgentError, CaptureError, ConfigError
from agent.frame import Frame
from agent.ratelimit import RateLimit

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from agent.capture.base import Device
    from agent.config import CameraConfig

log = logging.getLogger(__name__)

MAX_GIVEN_UP = 3
"""Readers that may hang in native code before no more are started; each holds a device."""

STABLE_S = 5.0
"""A camera that delivered this long is well again: its back-off starts over."""

READER_PREFIX = "read-"
"""Names of readers' threads begin so; `agent.threads.leave` wants to know."""

LOOK_S = 0.1
"""How often a supervisor that waits for its reader looks whether it is to stop."""

State = Literal["online", "connecting", "stalled", "disabled", "ended", "failed"]


@dataclass(frozen=True, slots=True)
class CameraStatus:
    """How a camera is.

    Attributes:
        state: "online", "connecting", "stalled" (no frame for too long), "disabled", "ended" (a
            file is through), "failed" (a file cannot be read).
        reason: why, in plain words; empty if there is nothing to say.
        since_wall_s: seconds since the epoch at which this state began.
        attempts: times it was opened without a frame since it last delivered.
    """

    state: State
    reason: str
    since_wall_s: float
    attempts: int


class Camera:
    """One camera of the configuration; a `agent.pipeline.pipeline.Feed`.

    Args:
        name: its name.
        config: its settings.
        on_status: called with every change of state, from the camera's threads.
        opener: opens the device; `open_device` unless a test brings its own.
        backoff: delays between attempts; made from the settings by default.
    """

    def __init__(
        self,
        name: str,
        config: CameraConfig,
        on_status: Callable[[CameraStatus], None] = lambda _status: None,
        opener: Callable[[CameraConfig], Device] = open_device,
        backoff: Backoff | None = None,
    ) -> None:
        self.name = name
        self.live = is_live(config)
        self.given_up = 0
        self.status = CameraStatus("connecting", "", time.time(), 0)
        self._config = config
        self._on_status = on_status
        self._open = opener
        self._backoff = backoff or Backoff(config.reconnect_initial_s, config.reconnect_max_s)
        self._index = 0
        self._limit = RateLimit(config.fps)
        self._lock = threading.Lock()

    @property
    def arrived(self) -> int:
        """Frames that came from the device since the start, wanted or not."""
        return self._index

    @property
    def wanted_fps(self) -> float | None:
        """Frames a second by configuration; None for all."""
        return self._config.fps

    def set_limit(self, fps: float | None) -> None:
        """Let no more frames of a live camera through than this, from the next one on.

        Args:
            fps: frames a second; never more than configured. None: as configured.
        """
        wanted = [rate for rate in (fps, self._config.fps) if rate is not None]
        with self._lock:
            self._limit = RateLimit(min(wanted, default=None))

    @staticmethod
    def disabled() -> CameraStatus:
        """Status of a camera that is not used."""
        return CameraStatus("disabled", "disabled in the configuration", time.time(), 0)

    def run(self, deliver: Callable[[Frame], bool], stop: threading.Event) -> None:
        """Deliver frames until the end; see `agent.pipeline.pipeline.Feed`."""
        if self.live:
            self._run_live(deliver, stop)
        else:
            self._run_lossless(deliver, stop)

    # -- files --------------------------------------------------------------------------------

    def _run_lossless(self, deliver: Callable[[Frame], bool], stop: threading.Event) -> None:
        try:
            while self._play(deliver, stop) and self._config.loop and not stop.is_set():
                pass
        except AgentError as error:
            self._set("failed", str(error))
        else:
            self._set("ended", "")

    def _play(self, deliver: Callable[[Frame], bool], stop: threading.Event) -> bool:
        """Play a file once; returns False if nobody wants more of it."""
        device = self._open(self._config)
        began, number = time.monotonic(), 0
        fps = device.fps
        limit = RateLimit(self._config.fps)
        try:
            while not stop.is_set() and (pixels := device.read()) is not None:
                media_s = number / fps if fps else 0.0
                number += 1
                if self._config.realtime and stop.wait(
                    max(0.0, began + media_s - time.monotonic())
                ):
                    return False
                index, self._index = self._index, self._index + 1
                if fps and not limit.passes(media_s):
                    continue
                frame = self._frame(transform(pixels, self._config), index)
                self._set("online", "")
                if not deliver(frame):
                    return False
        finally:
            device.close()
        if not number:
            raise CaptureError(f"{self.name}: the source has no frames")
        return True

    # -- live ---------------------------------------------------------------------------------

    def _run_live(self, deliver: Callable[[Frame], bool], stop: threading.Event) -> None:
        self._set("connecting", "")
        while not stop.is_set():
            if self.given_up >= MAX_GIVEN_UP:
                reason = f"{self.given_up} reads of the device have not returned; waiting for one"
                self._set("stalled", reason)
                stop.wait(LOOK_S)
                continue
            session = _Session()
            threading.Thread(
                target=self._read,
                args=(session, deliver),
                name=READER_PREFIX + self.name,
                daemon=True,
            ).start()
            self._watch(session, stop)
            if session.delivered_s >= STABLE_S:
                self._backoff.reset()
            if not stop.is_set():
                stop.wait(self._backoff.next_delay())

    def _watch(self, session: _Session, stop: threading.Event) -> None:
        """Wait until the session ends, stalls or is to stop."""
        opened = time.monotonic()
        # The decoder has its own deadline for opening and tells why; it comes first if it can.
        open_limit_s = 2 * self._config.open_timeout_s
        while not stop.is_set():
            if session.ended.wait(LOOK_S):
                if not stop.is_set():
                    self._set("connecting", session.reason)
                return
            last, limit_s = session.last_frame_s, self._config.stall_timeout_s
            if last is None:
                last, limit_s = opened, open_limit_s
            if time.monotonic() - last > limit_s:
                break
        stalled = not stop.is_set()
        with self._lock:
            if session.ended.is_set():
                return
            session.given_up = True
            self.given_up += 1
        if stalled:
            self._set("stalled", f"no frame for {limit_s:g} s")

    def _read(self, session: _Session, deliver: Callable[[Frame], bool]) -> None:
        """The reader thread's life: open, deliver until something ends it, close."""
        device: Device | None = None
        try:
            device = self._open(self._config)
            while (pixels := device.read()) is not None:
                stallpoint.hit("read")
                if not self._deliver(session, pixels, deliver):
                    return
            session.reason = "the source ended"
        except (CaptureError, ConfigError) as error:
            session.reason = str(error)
        except Exception as error:  # a driver's bug must not end the agent
            log.exception("camera %s: unexpected failure while reading", self.name)
            session.reason = f"{type(error).__name__}: {error}"
        finally:
            if device is not None:
                device.close()
            with self._lock:
                session.ended.set()
                if session.given_up:
                    self.given_up -= 1

    def _deliver(
        self, session: _Session, pixels: NDArray[Any], deliver: Callable[[Frame], bool]
    ) -> bool:
        now = time.monotonic()
        with self._lock:
            if session.given_up:
                return False
            session.note(now)
            index, self._index = self._index, self._index + 1
            wanted = self._limit.passes(now)
        if wanted:
            frame = self._frame(transform(pixels, self._config), index)
            self._set("online", "")
            return deliver(frame)
        return True

    def _frame(self, pixels: NDArray[np.uint8], index: int) -> Frame:
        return Frame(pixels, self.name, index, time.monotonic_ns(), time.time())

    def _set(self, state: State, reason: str) -> None:
        with self._lock:
            before = self.status
            if state == "online" == before.state:
                return
            attempts = 0 if state in ("online", "ended") else before.attempts + (state != "stalled")
            if (state, reason) == (before.state, before.reason):
                # The same trouble goes on: counted, not told again.
                self.status = CameraStatus(state, reason, before.since_wall_s, attempts)
                return
            self.status = CameraStatus(state, reason, time.time(), attempts)
        self._on_status(self.status)


class _Session:
    """What the supervisor and one reader know of each other."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.given_up = False
        self.reason = ""
        self.last_frame_s: float | None = None
        self._first_s = 0.0

    @property
    def delivered_s(self) -> float:
        """Seconds between the first frame and the last."""
        return 0.0 if self.last_frame_s is None else self.last_frame_s - self._first_s

    def note(self, now_s: float) -> None:
        """A frame came."""
        if self.last_frame_s is None:
            self._first_s = now_s
        self.last_frame_s = now_s
