"""What is thrown at the agent and what it needs, one trouble after the other."""

from __future__ import annotations

import random
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.soak.ground import is_detection
from tests.soak.supervisor import STOPPED

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.soak.ground import Ground

SIZES = ((320, 240), (240, 320), (384, 200), (480, 160))
"""As many pixels each: what a larger picture takes is not to be seen as a growth of memory."""

SERVED_S = 60.0
"""A process that was started serves within this, or the soak ends with an error."""

DAY_S = 86_400
JUMPS_S = (-2 * DAY_S, -DAY_S, -3600, -60, 60, 3600, DAY_S, 2 * DAY_S)
"""Less than `spool.max_age_s` together: what jumps far ahead makes old what waits."""


class Trouble(NamedTuple):
    """How often, and what; `ends`: the agent's process does not survive it."""

    weight: int
    do: Callable[[], None]
    ends: bool = False


@dataclass
class Hang:
    """One frozen agent: seconds until the watchdog ended it, and from then to a new result."""

    ended_s: float
    served_s: float


class Chaos:
    """Picks and does one trouble after the other.

    Args:
        ground: what is troubled.
        seed: the same seed picks the same troubles.
        life_s: the agent is left alive so long at least.
        endings_s: after so many seconds it is left alive, so that its memory can be judged.

    Attributes:
        broker_kills_s: when, monotonic.
        log: begin and end in seconds since the ground was made, and name.
        hangs: what the watchdog did.
    """

    def __init__(self, ground: Ground, seed: int, life_s: float, endings_s: float) -> None:
        self.ground = ground
        self.random = random.Random(seed)
        self.broker_kills_s: list[float] = []
        self.log: list[tuple[float, float, str]] = []
        self.hangs: list[Hang] = []
        self._life_s = life_s
        self._endings_s = endings_s
        self.troubles = {
            "broker killed": Trouble(2, self._kill_broker),
            "broker paused": Trouble(3, self._pause_broker),
            "line cut": Trouble(4, self._cut),
            "line slow and lossy": Trouble(3, self._slow),
            "agent frozen": Trouble(1, self._freeze),
            "agent killed": Trouble(3, lambda: self._end(signal.SIGKILL, "killed"), ends=True),
            "agent stopped": Trouble(2, lambda: self._end(signal.SIGTERM, STOPPED), ends=True),
            "agent hung": Trouble(2, self._hang, ends=True),
        }
        if ground.rtsp is not None:
            self.troubles["camera killed, other size"] = Trouble(3, self._other_size)
            self.troubles["camera frozen"] = Trouble(2, self._freeze_camera)
            self.troubles["camera line bad"] = Trouble(2, self._camera_line)
        if ground.has_disk:
            self.troubles["disk full"] = Trouble(3, self._full)
            self.troubles["disk full, agent killed"] = Trouble(1, self._full_and_kill, ends=True)
        if not ground.clock.missing:
            self.troubles["clock jumps"] = Trouble(3, self._jump)

    def run(self, seconds: float, every: tuple[float, float]) -> None:
        """Trouble until the time is over; each kind comes once before any comes twice."""
        until = time.monotonic() + seconds
        first = list(self.troubles)
        self.random.shuffle(first)
        while time.monotonic() < until:
            self._rest(*every)
            name = self._pick(first)
            begin = time.monotonic()
            self.troubles[name].do()
            began_s = self.ground.began_s
            self.log.append((begin - began_s, time.monotonic() - began_s, name))

    def _pick(self, first: list[str]) -> str:
        now_s = time.monotonic()
        old = now_s - self.ground.supervisor.lives[-1].began_s >= self._life_s
        may_end = old and now_s - self.ground.began_s < self._endings_s
        allowed = [n for n, t in self.troubles.items() if may_end or not t.ends]
        for name in first:
            if name in allowed:
                first.remove(name)
                return name
        return self.random.choices(allowed, [self.troubles[n].weight for n in allowed])[0]

    def _rest(self, least_s: float, most_s: float) -> None:
        self.ground.rest(self.random.uniform(least_s, most_s))

    def _kill_broker(self) -> None:
        self.broker_kills_s.append(time.monotonic())
        self.ground.broker.kill()
        self._rest(0.5, 3)
        self.ground.broker.start()

    def _pause_broker(self) -> None:
        self.ground.broker.pause()
        self._rest(0.5, 4)
        self.ground.broker.resume()

    def _cut(self) -> None:
        self.ground.link.cut()
        self._rest(0.2, 5)
        self.ground.link.join()

    def _slow(self) -> None:
        link = self.ground.link
        link.delay_s, link.loss = self.random.uniform(0.02, 0.1), self.random.uniform(0.01, 0.1)
        self._rest(1, 4)
        link.delay_s = link.loss = 0.0

    def _end(self, number: signal.Signals, cause: str) -> None:
        self.ground.supervisor.end(number, cause)
        self.ground.wait_served(SERVED_S)

    def _freeze(self) -> None:
        self.ground.supervisor.freeze()
        self._rest(0.5, 3)
        self.ground.supervisor.thaw()

    def _hang(self) -> None:
        ended_s = self.ground.supervisor.hang()
        self.hangs.append(Hang(ended_s, self.ground.wait_served(SERVED_S)))

    def _other_size(self) -> None:
        rtsp = self.ground.rtsp
        assert rtsp is not None
        rtsp.kill()
        rtsp.size = self.random.choice([size for size in SIZES if size != rtsp.size])
        self._rest(0.2, 2)
        rtsp.start()

    def _freeze_camera(self) -> None:
        rtsp = self.ground.rtsp
        assert rtsp is not None
        rtsp.signal(signal.SIGSTOP)
        self._rest(1, 3)
        rtsp.signal(signal.SIGCONT)

    def _camera_line(self) -> None:
        link = self.ground.camera_link
        assert link is not None
        if self.random.random() < 0.5:
            link.cut()
        else:
            link.delay_s, link.loss = self.random.uniform(0.01, 0.05), 0.05
        self._rest(0.5, 3)
        link.delay_s = link.loss = 0.0
        link.join()

    def _full(self) -> None:
        self._fill()
        self._rest(1, 3)
        self._unfill()

    def _full_and_kill(self) -> None:
        """Something is on the disk before it is full, and something newer in memory after."""
        self.ground.link.cut()
        self._rest(1, 2)
        self._fill()
        self._rest(1, 2)
        self.ground.link.join()
        self._rest(0.1, 2)
        self.ground.supervisor.end(signal.SIGKILL, "killed")
        self._rest(0.1, 3)
        self._unfill()
        self.ground.wait_served(SERVED_S)

    def _fill(self) -> None:
        self.ground.fill_disk()
        if self.random.random() < 0.5:
            self.ground.link.cut()

    def _unfill(self) -> None:
        self.ground.free_disk()
        self.ground.link.join()

    def _jump(self) -> None:
        # Half a century back: a board without a battery, before NTP has answered.
        unset = DAY_S - int(time.time())
        self.ground.clock.jump(self.random.choice([*JUMPS_S, unset]))
        self._rest(1, 5)
        if self.random.random() < 0.7:
            self.ground.clock.jump(0)


def has_detection(messages: list[Any]) -> bool:
    """Whether a camera's result is among them."""
    return any(map(is_detection, messages))
