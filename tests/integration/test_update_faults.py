"""Faults of disk, broker and network around the real agent: what serves goes on, nothing is lost.

Each fault has a broker, a controller and a device of its own. They wait more than they compute, so
they happen at once; a test waits for its own.
"""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psutil
import pytest

from agent.bundle.manifest import bundle_id
from agent.update.record import State
from agent.wire.updaterequest import parse_update_request
from tests.fakes.smalldisk import SmallDisk
from tests.integration.crashground import Ground
from tests.integration.crashing import SOON_S, WINDOW, Device
from tests.integration.mosquitto import Mosquitto
from tests.integration.mqttrelay import Mangler, MqttRelay
from tests.integration.subscriber import Subscriber, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from paho.mqtt.client import MQTTMessage

    from tests.integration.mqttrelay import Publish

AT_ONCE = 5
LARGE_KIB = 96 * 1024
"""Room for two bundles beside the reserve that preflight leaves."""

SMALL_KIB = 32 * 1024
MAX_GROWTH_MB = 96.0
HUGE_BYTES = 8 * 2**20

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def ended(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Callable[[Callable[[Path], None]], None]]:
    """Waits for a fault's end, and raises what it has found wrong; all begin at once."""
    folder = tmp_path_factory.mktemp("faults")
    ours = [item for item in request.session.items if item.path == request.path]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = {
            fault: pool.submit(fault, folder / fault.__name__)
            for fault in (item.callspec.params["fault"] for item in ours)
        }
        yield lambda fault: running[fault].result()
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def site(folder: Path, *general: str, disk_kib: int = 0) -> Iterator[tuple[Ground, Device]]:
    """A broker with nothing on it yet, and a device that serves release 1."""
    with contextlib.ExitStack() as stack:
        listeners = {"plain": ("allow_anonymous true",)}
        broker = stack.enter_context(Mosquitto(folder / "broker", listeners, general))
        ground = Ground(folder, broker, "test/faults")
        (folder / "device").mkdir()
        if disk_kib:
            disk = SmallDisk(folder / "device" / "state", disk_kib)
            stack.callback(disk.end)
        yield ground, stack.enter_context(Device(ground, "device"))


def fine(ground: Ground, device: Device) -> None:
    """Release 2 came through, once, and no frame was lost on the way."""
    device.wait_outcome("COMMITTED")
    device.wait(lambda _: device.lives_served()[-1][-1] == ground.digest(2))
    device.stop()
    seen = device.look()
    assert (seen.active, seen.floor) == (ground.new.digest, 2)
    assert device.outcomes() == ["COMMITTED"]
    untouched(ground, device)


def untouched(ground: Ground, device: Device) -> None:
    """What holds whatever came of the update."""
    assert device.gaps() == []
    assert device.dropped() == 0
    assert device.leaks() == []
    assert all(models[0] == ground.digest(1) for models in device.lives_served())


# --- the disk -----------------------------------------------------------------------------------


def disk_full_when_assigned_and_while_fetching(folder: Path) -> None:
    """Nothing is published again when there is room: the device has forgotten nothing."""
    with site(folder, disk_kib=LARGE_KIB) as (ground, device):
        device.commit(ground.old)
        device.start()
        device.wait_serving()
        filler = fill(device.fleet.state)
        missing = list(ground.blocks)[-3:]
        ground.offer(*missing)
        device.assign(ground.new)
        device.wait_status("degraded", "updates stand still: ")
        assert device.look().record.counter < device.counter
        filler.unlink()
        device.wait_state("FETCHING")
        device.wait_status("online")
        filler = fill(device.fleet.state)
        ground.publish({topic: ground.blocks[topic] for topic in missing})
        device.wait_status("degraded", "disk is full")
        assert device.look().record.state is State.FETCHING
        more_frames(device)
        filler.unlink()
        fine(ground, device)
        assert device.status()[0] == "offline"


def disk_too_small(folder: Path) -> None:
    """Refused before a byte is fetched, and not held against the bundle."""
    with site(folder, disk_kib=SMALL_KIB) as (ground, device):
        device.commit(ground.old)
        ground.offer()
        device.assign(ground.new)
        device.start()
        device.wait_outcome("REJECTED")
        (report,) = device.reports()
        assert "on the disk" in report.reason
        assert sum(device.pulled().values()) == 0
        assert device.look().quarantined is None
        more_frames(device)
        device.stop()
        untouched(ground, device)


def disk_read_only(folder: Path) -> None:
    with site(folder, disk_kib=LARGE_KIB) as (ground, device):
        device.commit(ground.old)
        before = device.look()
        mount("remount,ro", device.fleet.state)
        refused(ground, device, "Read-only file system")
        mount("remount,rw", device.fleet.state)
        assert device.look() == before
        device.start()
        fine(ground, device)


def database_damaged_and_gone(folder: Path) -> None:
    with site(folder) as (ground, device):
        device.commit(ground.old)
        before, file = device.look(), device.fleet.state / "state.db"
        whole = file.read_bytes()
        damaged = bytearray(whole)
        # The second page, whole: the first one says whose file it is.
        damaged[4096:8192] = random.Random(1).randbytes(4096)
        file.write_bytes(damaged)
        refused(ground, device, "damaged")
        assert file.read_bytes() == damaged, "it was touched"
        file.unlink()
        refused(ground, device, "missing or empty")
        assert not file.exists(), "it was begun anew"
        file.write_bytes(whole)
        assert device.look() == before
        device.start()
        fine(ground, device)


def refused(ground: Ground, device: Device, why: str) -> None:
    """One life in which release 1 serves and nothing is taken."""
    ground.offer()
    device.assign(ground.new)
    device.start()
    device.wait_serving()
    device.wait_status("degraded", "updates are refused: ", why)
    more_frames(device)
    device.stop()
    assert device.lives_served()[-1] == [ground.digest(1)]
    assert device.reports() == []
    assert sum(device.pulled().values()) == 0


def fill(folder: Path) -> Path:
    """Take all the room of a disk."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            # To the last byte: one call writes what there is room for.
            file.write(bytes(65_536))
    return filler


def mount(options: str, folder: Path) -> None:
    subprocess.run(["mount", "-o", options, folder], check=True)


def disk_full_when_assigned(folder: Path) -> None:
    """The metadata were known already: it is the assignment alone that cannot be kept."""
    with site(folder, disk_kib=LARGE_KIB) as (ground, device):
        device.commit(ground.old)
        before = device.look()
        ground.offer()
        device.start()
        until(lambda: device.look().trust != before.trust, SOON_S)
        device.wait_serving()
        filler = fill(device.fleet.state)
        device.assign(ground.new)
        device.wait_status("degraded", "updates stand still: ")
        more_frames(device)
        filler.unlink()
        fine(ground, device)


# --- the broker ---------------------------------------------------------------------------------


class Killing(MqttRelay):
    """Has something done when the tenth block is on its way, once."""

    def __init__(self, target: int, act: Callable[[], None]) -> None:
        super().__init__(target)
        self.acted = False
        self._act = act
        self.on_block = self._look

    def _look(self, count: int) -> None:
        if count == 10 and not self.acted:
            self.acted = True
            self._act()


def broker_killed_in_the_middle(folder: Path) -> None:
    lines = ("persistence true", f"persistence_location {folder}/broker/")
    with site(folder, *lines) as (ground, device):
        device.commit(ground.old)
        ground.offer()
        device.assign(ground.new)
        # It writes what it keeps when it ends.
        ground.broker.stop()
        ground.broker.start()

        def kill() -> None:
            ground.broker.kill()
            ground.broker.start()

        with Killing(ground.broker.port, kill) as relay:
            device.port = relay.port
            device.start()
            fine_but_for_the_broker(ground, device)
            assert relay.acted
            assert relay.delivered.total() - len(relay.delivered) <= WINDOW


def broker_comes_back_empty(folder: Path) -> None:
    """The device asks for what it lacks, and for no more."""
    with site(folder) as (ground, device):
        device.commit(ground.old)
        ground.offer()
        device.assign(ground.new)

        def kill() -> None:
            ground.broker.kill()
            ground.broker.start()

        with (
            Killing(ground.broker.port, kill) as relay,
            Answering(ground, device.fleet.topics.update_request) as controller,
        ):
            device.port = relay.port
            device.start()
            fine_but_for_the_broker(ground, device)
            assert relay.acted
            assert 0 < len(controller.asked) < len(ground.blocks)


class Answering(Subscriber):
    """A controller that publishes again what a device asks for.

    Attributes:
        asked: numbers of the blocks that were asked for.
    """

    def __init__(self, ground: Ground, topic: str) -> None:
        super().__init__(ground.broker.port, topic, 1)
        self.asked: set[int] = set()
        self._ground = ground

    def _on_message(self, client: object, data: object, message: MQTTMessage) -> None:
        super()._on_message(client, data, message)
        name, request = parse_update_request(message.payload)
        assert (name, request.bundle) == ("device", bundle_id(self._ground.new.digest))
        assert not request.manifest
        assert not request.index
        numbers = {n for a, b in request.blocks for n in range(a, b + 1)}
        topics = list(self._ground.blocks)
        self.asked |= numbers
        self._ground.publish({topics[n]: self._ground.blocks[topics[n]] for n in numbers})


def fine_but_for_the_broker(ground: Ground, device: Device) -> None:
    """As `fine`; what was on its way to the test when the broker died is lost to the test."""
    device.wait_outcome("COMMITTED")
    device.wait(lambda _: device.lives_served()[-1][-1] == ground.digest(2))
    device.stop()
    assert device.look().active == ground.new.digest
    assert device.outcomes() == ["COMMITTED"]
    assert device.leaks() == []


class Losing(Mangler):
    """Loses 3 % of the blocks, the first of them among it."""

    def __init__(self) -> None:
        self._random = random.Random(3)
        self.lost: list[int] = []

    def take(self, message: Publish) -> Sequence[Publish]:
        if message.block is not None and (not self.lost or self._random.random() < 0.03):
            self.lost.append(message.block)
            return ()
        return (message,)


def three_percent_lost(folder: Path) -> None:
    losing = Losing()
    with site(folder) as (ground, device), MqttRelay(ground.broker.port, lambda: losing) as relay:
        device.port = relay.port
        device.commit(ground.old)
        ground.offer()
        device.assign(ground.new)
        device.start()
        fine(ground, device)
        assert losing.lost
        assert relay.delivered == dict.fromkeys(range(len(ground.blocks)), 1)


def huge_and_garbage_messages(folder: Path) -> None:
    """On every topic that the device reads, while it waits, fetches and serves."""
    with site(folder) as (ground, device):
        device.commit(ground.old)
        missing = list(ground.blocks)[-3:]
        device.start()
        device.wait_serving()
        more_frames(device)
        assert device.process is not None
        process = psutil.Process(device.process.pid)
        before = process.memory_info().rss
        topics = device.fleet.topics
        listened = [device.fleet.fleet.trust, topics.assignment, topics.command("rollback")]
        listened += [topics.command("pause"), topics.command("nothing")]
        flood(ground, listened)
        ground.offer(*missing)
        device.assign(ground.new)
        device.wait_state("FETCHING")
        # Two wrong blocks are borne; what is too large does not get to the device at all.
        ground.publish({missing[0]: b"garbage", missing[1]: bytes(HUGE_BYTES)}, retain=False)
        flood(ground, listened)
        ground.publish({topic: ground.blocks[topic] for topic in missing})
        device.wait_outcome("COMMITTED")
        flood(ground, listened)
        more_frames(device)
        grown_mb = (process.memory_info().rss - before) / 2**20
        assert grown_mb < MAX_GROWTH_MB, f"{grown_mb:.0f} MB more"
        fine(ground, device)


def flood(ground: Ground, topics: Sequence[str]) -> None:
    chance = random.Random(5)
    contents = [
        b"",
        b"\0",
        b"{}",
        b"null",
        b"\xff" * 1000,
        b"[" * 100_000,
        b'{"a":' * 50_000,
        json.dumps({"payload": "x" * 60_000, "signatures": [{}] * 1000}).encode(),
        b'{"schema":"vigia.trust/1","files":{"1.root.json":"{}"}}',
        b'{"payload":"AAAA","payloadType":"x","signatures":[{"keyid":"x","sig":"AAAA"}]}',
        chance.randbytes(100_000),
        chance.randbytes(2**20 + 1),
        bytes(HUGE_BYTES),
    ]
    for content in contents:
        ground.publish(dict.fromkeys(topics, content), retain=False)


def more_frames(device: Device, count: int = 8) -> None:
    """Wait for more detections: it serves now."""
    seen = device.frames()
    device.wait(lambda _: device.frames() >= seen + count)


FAULTS = (
    disk_full_when_assigned_and_while_fetching,
    database_damaged_and_gone,
    huge_and_garbage_messages,
    broker_comes_back_empty,
    broker_killed_in_the_middle,
    three_percent_lost,
    disk_full_when_assigned,
    disk_read_only,
    disk_too_small,
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_what_serves_goes_on_and_nothing_is_forgotten(ended, fault):
    ended(fault)
