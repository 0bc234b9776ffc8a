"""The spool as a machine: whatever happens to disk, broker and process, in any order.

One thread drives it turn by turn with a clock of its own, so that each run is the same again.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.config import SpoolConfig
from agent.errors import StoreError
from agent.events import Events
from agent.spool import Spool
from agent.spooldisk import RETRY_S, WRITE_RETRY_S
from agent.spoolfile import SpoolFile
from agent.spoolitem import EVENT, PRIORITIES
from agent.wire.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from agent.spoolitem import Item

BODY = json.dumps({"ts": 1.0, "objects": []})[1:].encode()
EVENTS = "events"
Message = tuple[str, str, int]
"""Run, stream, number."""


class Trouble:
    """What the disk refuses at present."""

    def __init__(self) -> None:
        self.full = False
        self.locked = False

    def file(self, path: Path) -> SpoolFile:
        """As `SpoolFile`; a locked one cannot be opened."""
        if self.locked:
            raise StoreError(f"{path}: database is locked")
        return TroubledFile(path, self)


class TroubledFile(SpoolFile):
    """A full disk refuses every change, as a real one does; what is there can be read."""

    def __init__(self, path: Path, trouble: Trouble) -> None:
        self._trouble = trouble
        super().__init__(path)

    def change(self, add: Iterable[Item], remove: Collection[int]) -> None:
        """Change it, if there is room."""
        if self._trouble.full:
            raise StoreError("database or disk is full")
        super().change(add, remove)


class Line:
    """A broker and the way to it: what was taken is delivered in order, again after each cut.

    Args:
        connected: whether it takes messages at first.
        room: messages that it takes before some are delivered.
    """

    def __init__(self, *, connected: bool, room: int = 128) -> None:
        self.connected = connected
        self.arrived: list[Message] = []
        self.replayed: set[Message] = set()
        self._room = room
        self._waiting: deque[tuple[Message, bool, Callable[[], None]]] = deque()
        self._ready: list[Callable[[], None]] = []

    def publish(self, topic: str, payload: bytes, *, acknowledged, **_rest: object) -> bool:
        """Take one, as a link does."""
        if not self.connected or len(self._waiting) >= self._room:
            return False
        m = json.loads(payload)
        message = (m["boot"], m["cam"] if topic.endswith("/detections") else EVENTS, m["seq"])
        self._waiting.append((message, m["replay"], acknowledged))
        return True

    @property
    def waiting(self) -> int:
        """Messages taken and not delivered."""
        return len(self._waiting)

    def on_ready(self, callback: Callable[[], None]) -> None:
        """Have it called when messages are taken again."""
        self._ready.append(callback)

    def deliver(self, count: int, *, acknowledge: bool = True) -> None:
        """The broker has so many; the answer may be lost with the connection."""
        if not self.connected:
            return
        for at in range(min(count, len(self._waiting))):
            message, _replay, acknowledged = self._waiting[0 if acknowledge else at]
            self.arrived.append(message)
            if acknowledge:
                self._waiting.popleft()
                acknowledged()
        if not acknowledge:
            self.connected = False
        elif self.connected:
            self.ready()

    def ready(self) -> None:
        """Tell that messages are taken."""
        for callback in self._ready:
            callback()


class Machine(RuleBasedStateMachine):
    """Order of each stream kept; lost only what a bound or a crash explains, and counted."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.trouble = Trouble()
        self.patches = [
            mock.patch("agent.spooldisk.SpoolFile", self.trouble.file),
            mock.patch("agent.spool.MEMORY_MESSAGES", 60),
            mock.patch("agent.spool.FLUSH_MESSAGES", 8),
            mock.patch("agent.spooldisk.READ_AHEAD", 5),
            mock.patch("agent.spoolwindow.WINDOW", 6),
        ]
        for patch in self.patches:
            patch.start()
        self.clock = 1000.0
        self.runs = 0
        self.crashes = 0
        self.dropped = 0
        # What is told as dropped may have arrived: the answer was lost, or the deletion.
        self.exact = True
        self.taken: list[Message] = []
        self.arrived: list[Message] = []
        self.lost_in_crash: set[Message] = set()

    @initialize(connected=st.booleans())
    def begin(self, connected):
        self.start(connected=connected)

    def start(self, *, connected: bool) -> None:
        """A life of the agent."""
        self.boot = f"b{self.runs:03}"
        self.runs += 1
        self.line = Line(connected=connected)
        config = SpoolConfig().model_copy(
            update={"max_messages": 80, "flush_interval_s": 1.0, "max_age_s": 1e12}
        )
        self.spool = Spool(
            self.line, Topics("p", "d"), "d", self.boot, config, self.path,
            now=lambda: 2e9, clock=lambda: self.clock,
        )  # fmt: skip
        self.events = Events(self.spool.take_event)
        self.spool._disk.tell = self.events.tell
        self.numbers = {"a": 0, "b": 0}
        self.known_events = 0
        self.turn()

    @property
    def path(self) -> Path:
        """The disk of this life: each crash leaves a copy of what was written."""
        return self.folder / f"disk{self.crashes}"

    def turn(self) -> None:
        """As the thread does when it is woken; it may have something to tell."""
        for _ in range(3):
            self.spool._turn()
        self.note()

    def note(self) -> None:
        """What was told of the spool itself was taken too; what arrived is kept over lives."""
        count = self.spool._seq
        self.taken += [(self.boot, EVENTS, n) for n in range(self.known_events, count)]
        self.known_events = count
        self.arrived += self.line.arrived
        self.line.arrived.clear()

    def counted(self) -> int:
        """What this life says that it had to drop."""
        counters = self.spool.counters()
        return sum(counters["dropped"].values()) + counters["given_up"]

    @rule(count=st.integers(1, 12), camera=st.sampled_from("ab"))
    def take(self, count, camera):
        for _ in range(count):
            seq = self.numbers[camera]
            self.numbers[camera] += 1
            late = not self.line.connected
            self.spool.take_detection(camera, seq, 0, BODY, replay=late)
            self.taken.append((self.boot, camera, seq))
        self.turn()

    @rule(count=st.integers(1, 5))
    def tell(self, count):
        for _ in range(count):
            self.events.tell("agent", "info", "something")
        self.turn()

    @rule(count=st.integers(1, 40))
    def acknowledge(self, count):
        self.line.deliver(count)
        self.turn()

    @rule(count=st.integers(0, 8))
    def disconnect(self, count):
        self.exact &= not count
        self.line.deliver(count, acknowledge=False)
        self.line.connected = False
        self.turn()

    @precondition(lambda self: not self.line.connected)
    @rule()
    def connect(self):
        self.line.connected = True
        self.line.ready()
        self.turn()

    @rule()
    def fill(self):
        """Full, and what waits is to be written at once."""
        self.trouble.full = True
        self.clock += 1.1
        self.turn()

    @precondition(lambda self: self.trouble.full)
    @rule()
    def free(self):
        self.trouble.full = False

    @rule()
    def lock(self):
        """A file that is open stays so; another process has it once it is closed."""
        self.trouble.locked = not self.trouble.locked

    @rule(seconds=st.sampled_from([0.3, 1.1, WRITE_RETRY_S + 0.1]))
    def pass_time(self, seconds):
        self.clock += seconds
        self.turn()

    @rule(connected=st.booleans())
    def crash(self, connected):
        """The next life has what was written, and nothing of what was in memory."""
        self.note()
        old, self.exact = self.path, False
        self.dropped += self.counted()
        self.crashes += 1
        if old.exists():
            shutil.copytree(old, self.path)
        self.spool._disk.close()
        written = self.written()
        known = set(self.arrived)
        self.lost_in_crash |= {m for m in self.taken if m not in written and m not in known}
        self.start(connected=connected)

    def written(self) -> set[Message]:
        """What is on the disk."""
        files = [*self.path.glob("*.db")]
        if not files:
            return set()
        file = SpoolFile(files[0])
        items = [item for p in PRIORITIES for item in file.read(p, -1, 10_000)]
        file.close()
        return {
            (i.boot, EVENTS if i.priority == EVENT else i.stream, i.seq) for i in items
        }  # fmt: skip

    @rule()
    def stop_and_start(self):
        # What is on its way may arrive all the same, and the disk may be full.
        self.exact &= not self.line.waiting
        self.spool.close(0)
        self.spool._finish()
        self.note()
        self.dropped += self.counted()
        self.start(connected=self.line.connected)

    @invariant()
    def each_stream_is_in_order(self):
        newest: dict[tuple[str, str], int] = {}
        seen = set()
        for message in self.arrived:
            if message in seen:
                continue
            seen.add(message)
            *stream, seq = message
            assert seq > newest.get(tuple(stream), -1), f"{message} came late"
            newest[tuple(stream)] = seq

    def teardown(self):
        if self.runs:
            self.all_comes_in_the_end()
            self.spool._disk.close()
        for patch in self.patches:
            patch.stop()
        shutil.rmtree(self.folder)

    def all_comes_in_the_end(self) -> None:
        """Once disk and broker are well, only what a bound or a crash explains is missing."""
        self.trouble.full = self.trouble.locked = False
        self.clock += RETRY_S + 1
        self.line.connected = True
        self.line.ready()
        for _ in range(200):
            self.turn()
            self.line.deliver(128)
            self.clock += 0.2
        self.note()
        self.each_stream_is_in_order()
        assert self.written_messages() == 0
        missing = set(self.taken) - set(self.arrived) - self.lost_in_crash
        dropped = self.dropped + self.counted()
        assert len(missing) <= dropped, f"{len(missing)} are missing, {dropped} told as dropped"
        if self.exact:
            assert len(missing) == dropped

    def written_messages(self) -> int:
        """What the disk still holds."""
        return int(self.spool.counters()["disk_messages"])  # type: ignore[call-overload]


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def on_disk_then_full(machine: Machine) -> None:
    """Ten detections are on the disk, which is full then; ten more are in memory."""
    machine.begin(connected=False)
    machine.take(10, "a")
    machine.pass_time(1.1)
    assert machine.written_messages() == 10
    machine.fill()
    machine.take(10, "a")
    machine.pass_time(1.1)
    assert machine.spool.counters()["failures"] == 1


def arrived(machine: Machine) -> list[int]:
    """Numbers of the detections that came, without repetitions."""
    found = [seq for _, stream, seq in machine.arrived if stream == "a"]
    return list(dict.fromkeys(found))


@pytest.fixture
def machine():
    made = Machine()
    yield made
    made.teardown()


def test_what_is_on_a_full_disk_is_sent_before_what_is_in_memory(machine):
    on_disk_then_full(machine)
    machine.connect()
    for _ in range(10):
        machine.acknowledge(40)
    assert arrived(machine) == list(range(20))


def test_a_kill_after_a_full_disk_replays_nothing_that_is_new_to_the_reader(machine):
    on_disk_then_full(machine)
    machine.connect()
    for _ in range(3):
        machine.acknowledge(4)
    sent = arrived(machine)
    machine.free()
    machine.crash(connected=True)
    for _ in range(10):
        machine.acknowledge(40)
    assert sent == list(range(len(sent)))
    assert arrived(machine) == list(range(max(10, len(sent))))


def test_a_disk_with_room_again_is_written_without_being_opened_anew(machine):
    on_disk_then_full(machine)
    machine.free()
    machine.pass_time(WRITE_RETRY_S + 0.1)
    # The event that tells of the full disk, and that of its end on the next interval.
    machine.pass_time(1.1)
    assert machine.written_messages() == 22
    assert machine.spool.counters()["disk"] == "ok"
    assert [e.severity for e in machine.events.recent()] == ["warning", "info"]


def test_an_acknowledgement_of_a_message_that_got_another_number_is_of_that_message(machine):
    """What was sent before a late disk was opened has numbers that others have there."""
    machine.begin(connected=False)
    machine.take(5, "a")
    machine.stop_and_start()
    assert machine.written_messages() == 5
    machine.lock()
    machine.stop_and_start()
    machine.connect()
    machine.take(2, "b")
    machine.lock()
    machine.pass_time(RETRY_S + 1)
    assert machine.line.waiting > 5
    # The event that tells of the disk, and the two detections; what was deleted for it is written.
    machine.line.deliver(3)
    machine.turn()
    machine.pass_time(1.1)
    machine.crash(connected=True)
    for _ in range(10):
        machine.acknowledge(40)
    assert arrived(machine) == list(range(5))
