"""The fetcher against a real Mosquitto, and against a broker that does everything wrong."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections import deque

import pytest

from agent.config import MqttConfig
from agent.errors import StoreError, TransferError
from agent.update.fetch import ASK_AGAIN_S, Fetcher
from agent.update.ports import UpdateCancelled
from agent.update.staging import Staging
from agent.wire.topics import FleetTopics
from tests.fakes.blocks import make_blocks
from tests.fakes.smalldisk import small_disk
from tests.integration.fetching import DIGEST
from tests.integration.mqttrelay import Mangler, MqttRelay, Publish
from tests.integration.pieces import BUNDLE, Pieces
from tests.integration.ports import free_port

SOURCE = make_blocks(120, 4096, last=99)
WINDOW = 16
SOON_S = 0.3
"""A stall that is over soon."""

SURE_S = 1.5
"""A stall that is none of a busy machine's."""

LONG_S = 600.0
"""No stall within a test."""

NOBODY = threading.Event()


class Soon:
    """An event that is set when it was asked for some times."""

    def __init__(self, times=4):
        self._left = times

    def is_set(self):
        self._left -= 1
        return self._left < 0


class Ask:
    """A controller that answers, or only listens."""

    def __init__(self, answer=lambda _request: None):
        self.requests = []
        self._answer = answer

    def __call__(self, request):
        self.requests.append(request)
        self._answer(request)


class Site:
    """A device that fetches; everything with defaults.

    Attributes:
        told: what was told of progress.
    """

    def __init__(self, folder, prefix):
        self.topics = FleetTopics(prefix)
        self.staging = Staging(folder, DIGEST)
        self.told = []
        self._prefix = prefix

    def fetcher(self, port, ask=None, **settings):
        values = {"host": "127.0.0.1", "port": port, "prefix": self._prefix, **settings}
        config = MqttConfig.model_validate(
            {"reconnect_initial_s": 0.02, "reconnect_max_s": 0.05, **values}
        )
        return Fetcher(config, "d1", self.topics, ask or Ask())

    def fetch(self, port, ask=None, *, source=SOURCE, stall_s=LONG_S, window=WINDOW, **settings):
        return self.fetcher(port, ask, **settings).blocks(
            BUNDLE, source.index, self.staging, window, stall_s, self.tell, NOBODY
        )

    def tell(self, done, total, rate):
        self.told.append((done, total, rate))

    @property
    def content(self):
        return self.staging.payload.read_bytes()


@pytest.fixture
def site(tmp_path, prefix):
    return Site(tmp_path / "bundles", prefix)


@pytest.fixture
def pieces(mosquitto, site):
    with Pieces(mosquitto.port, site.topics) as made:
        yield made
        # The broker is for all tests.
        made.put((site.topics.block(BUNDLE, n), b"") for n in range(len(SOURCE.blocks)))


@pytest.fixture
def published(pieces):
    pieces.blocks(SOURCE)
    return pieces


def only_right_blocks(content, source=SOURCE):
    """Every block of the file is the right one, or was never written."""
    size = source.index.block_bytes
    found = [content[at : at + size] for at in range(0, len(content), size)]
    return all(
        block in (right, bytes(len(right)))
        for block, right in zip(found, source.blocks, strict=True)
    )


# --- the straight way --------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_payload_is_fetched_once_and_whole(mosquitto, site, published, protocol):
    with MqttRelay(mosquitto.port, Mangler, v5=protocol == "5") as relay:
        counts = site.fetch(relay.port, protocol=protocol)
        assert relay.delivered == dict.fromkeys(range(len(SOURCE.blocks)), 1)
    assert site.content == SOURCE.payload
    assert (counts.blocks, counts.bytes) == (len(SOURCE.blocks), len(SOURCE.payload))
    assert (counts.duplicates, counts.bad, counts.dropped, counts.connects) == (0, 0, 0, 1)
    assert site.told[0] == (0, 120, 0.0)
    assert site.told[-1][:2] == (120, 120)
    assert site.told[-1][2] > 0


def test_what_is_there_is_not_fetched_and_needs_no_broker(mosquitto, site, published):
    site.fetch(mosquitto.port)
    counts = site.fetch(free_port())
    assert (counts.blocks, counts.connects) == (0, 0)
    assert site.told[-1][:2] == (120, 120)


def test_mutual_tls(mosquitto, site, certificates):
    ca, device = certificates.authority.file, certificates.device
    tls = {"ca_certs": ca, "certfile": device.cert, "keyfile": device.key}
    with Pieces(mosquitto.ports["mutual"], site.topics, tls) as made:
        made.blocks(SOURCE)
    settings = {"ca_file": ca, "cert_file": device.cert, "key_file": device.key}
    site.fetch(mosquitto.ports["mutual"], tls=settings)
    assert site.content == SOURCE.payload


def test_no_more_than_a_window_is_on_its_way(mosquitto, site, pieces):
    """Seen from the broker: what was asked for and has not come yet."""
    source = make_blocks(40, 512)
    pieces.blocks(source)
    on_its_way = []

    class Watch(Mangler):
        def take(self, message):
            asked = set(map(int, re.findall(rb"/block/(\d+)\x01", bytes(relay.sent))))
            on_its_way.append(len(asked - set(relay.delivered)))
            return (message,)

    with MqttRelay(mosquitto.port, Watch) as relay:
        site.fetch(relay.port, source=source, window=4)
    assert site.content == source.payload
    assert max(on_its_way) == 4


# --- pieces ------------------------------------------------------------------------------------


def piece(site, port, content, *, limit=None, ask=None, timeout_s=10.0, cancelled=NOBODY, **more):
    return site.fetcher(port, ask, **more).piece(
        site.topics.index(BUNDLE),
        len(content) if limit is None else limit,
        hashlib.sha256(content).hexdigest(),
        timeout_s,
        cancelled,
    )


@pytest.fixture
def index_topic(site, pieces):
    yield site.topics.index(BUNDLE)
    pieces.put([(site.topics.index(BUNDLE), b"")])


@pytest.mark.parametrize("size", [1, 2 * 2**20])
def test_a_piece_is_fetched(mosquitto, site, pieces, index_topic, size):
    content = os.urandom(size)
    pieces.put([(index_topic, content)])
    assert piece(site, mosquitto.port, content) == content


def test_a_piece_that_is_not_there_is_asked_for(mosquitto, site, pieces, index_topic, monkeypatch):
    monkeypatch.setattr("agent.update.fetch.ASK_AGAIN_S", SOON_S)
    ask = Ask(lambda _: pieces.put([(index_topic, b"the index")]))
    assert piece(site, mosquitto.port, b"the index", ask=ask) == b"the index"
    (request,) = ask.requests
    assert (request.bundle, request.manifest, request.index) == (BUNDLE, False, True)


def test_a_wrong_piece_is_asked_for_at_once_and_the_third_ends_it(
    mosquitto, site, pieces, index_topic
):
    pieces.put([(index_topic, b"forged")])
    ask = Ask(lambda _: pieces.put([(index_topic, b"the index")]))
    began = time.monotonic()
    assert piece(site, mosquitto.port, b"the index", ask=ask) == b"the index"
    pieces.put([(index_topic, b"forged")])
    again = Ask(lambda _: pieces.put([(index_topic, b"forged again")]))
    with pytest.raises(TransferError, match=r"3 messages on .*/index are not what was asked for"):
        piece(site, mosquitto.port, b"the index", ask=again)
    assert time.monotonic() - began < ASK_AGAIN_S


def test_a_piece_that_is_taken_back_is_no_wrong_one(mosquitto, site, pieces, index_topic):
    class TakingBack(Mangler):
        def take(self, message):
            return (*[message.saying(b"")] * 5, message)

    pieces.put([(index_topic, b"the index")])
    with MqttRelay(mosquitto.port, TakingBack) as relay:
        assert piece(site, relay.port, b"the index") == b"the index"


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_piece_that_is_too_large_is_not_taken(mosquitto, site, pieces, index_topic, protocol):
    large = bytes(8 * 2**20)
    pieces.put([(index_topic, large)])
    with pytest.raises(TransferError, match="nothing came"):
        piece(site, mosquitto.port, large, limit=2**20, timeout_s=1.0, protocol=protocol)


def test_waiting_for_a_piece_can_be_ended(mosquitto, site):
    with pytest.raises(UpdateCancelled):
        piece(site, mosquitto.port, b"x", timeout_s=60, cancelled=Soon())
    fetcher = site.fetcher(mosquitto.port)
    fetcher.close()
    with pytest.raises(UpdateCancelled):
        fetcher.piece(site.topics.index(BUNDLE), 1, "0" * 64, 60, NOBODY)


# --- what a broker does not hold ---------------------------------------------------------------


def test_missing_blocks_are_asked_for_and_no_others(mosquitto, site, pieces):
    missing = {0, 7, 8, 9, 60, 119}
    pieces.blocks(SOURCE, set(range(120)) - missing)
    ask = Ask(lambda request: pieces.answer(SOURCE, request))
    counts = site.fetch(mosquitto.port, ask, stall_s=SURE_S)
    assert site.content == SOURCE.payload
    asked = {n for r in ask.requests for a, b in r.blocks for n in range(a, b + 1)}
    assert asked == missing
    assert counts.stalls >= 1


def test_a_broker_that_has_lost_everything_is_filled_again_in_few_rounds(mosquitto, site, pieces):
    ask = Ask(lambda request: pieces.answer(SOURCE, request))
    site.fetch(mosquitto.port, ask, stall_s=SOON_S, window=8)
    assert site.content == SOURCE.payload
    # One for each window would be 15.
    assert len(ask.requests) < 6


def test_a_broker_that_is_killed_is_waited_for(own_mosquitto, site):
    lines = ("persistence true", "autosave_interval 1", "autosave_on_changes true")
    broker = own_mosquitto(*lines, f"persistence_location {site.staging.payload.parents[2]}/")
    with Pieces(broker.port, site.topics) as made:
        made.blocks(SOURCE)
    broker.stop()
    broker.start()
    ask = Ask()
    killed = []

    with MqttRelay(broker.port) as relay:

        def kill(count):
            if count == 50 and not killed:
                killed.append(True)
                broker.kill()
                broker.start()

        relay.on_block = kill
        counts = site.fetch(relay.port, ask)
        assert relay.delivered.total() - len(SOURCE.blocks) <= WINDOW
    assert killed
    assert site.content == SOURCE.payload
    assert counts.connects == 2
    assert ask.requests == []


def test_a_broker_that_comes_back_empty_is_filled_again(own_mosquitto, site):
    broker = own_mosquitto()
    with Pieces(broker.port, site.topics) as made:
        made.blocks(SOURCE)
    killed = []

    def answer(request):
        with Pieces(broker.port, site.topics) as made:
            made.answer(SOURCE, request)

    with MqttRelay(broker.port) as relay:

        def kill(count):
            if count == 50 and not killed:
                killed.append(True)
                broker.kill()
                broker.start()

        relay.on_block = kill
        site.fetch(relay.port, Ask(answer), stall_s=SOON_S)
    assert killed
    assert site.content == SOURCE.payload


# --- a broker that does everything wrong -------------------------------------------------------


class Losing(Mangler):
    """Loses some; what is asked for again comes."""

    share = 0.03

    def __init__(self, seed):
        self._random = random.Random(seed)

    def take(self, message):
        return () if self._random.random() < self.share else (message,)


class Repeating(Mangler):
    def __init__(self, seed):
        self._random = random.Random(seed)
        self._old = deque(maxlen=20)

    def take(self, message):
        self._old.append(message)
        return (message, message, self._random.choice(self._old))


class Reordering(Mangler):
    def __init__(self, seed):
        self._random = random.Random(seed)
        self._held = []

    def take(self, message):
        self._held.append(message)
        return self.idle() if len(self._held) >= 12 else ()

    def idle(self):
        out, self._held = self._held, []
        self._random.shuffle(out)
        return out


@pytest.mark.parametrize("seed", range(3))
def test_three_percent_lost(mosquitto, site, published, seed):
    ask = Ask()
    with MqttRelay(mosquitto.port, lambda: Losing(seed)) as relay:
        counts = site.fetch(relay.port, ask, stall_s=SOON_S)
    assert site.content == SOURCE.payload
    assert counts.stalls == len(ask.requests)


def test_what_was_lost_once_comes_when_it_is_asked_for_again(mosquitto, site, published):
    class LosingOnce(Mangler):
        def __init__(self):
            self._left = {5, 50, 119}

        def take(self, message):
            if message.block in self._left:
                self._left.remove(message.block)
                return ()
            return (message,)

    with MqttRelay(mosquitto.port, LosingOnce) as relay:
        counts = site.fetch(relay.port, stall_s=SURE_S)
    assert site.content == SOURCE.payload
    assert (counts.stalls, counts.connects) == (1, 1)


def test_everything_twice_and_again(mosquitto, site, published):
    with MqttRelay(mosquitto.port, lambda: Repeating(1)) as relay:
        counts = site.fetch(relay.port)
        assert relay.delivered.total() == 3 * 120
    assert site.content == SOURCE.payload
    assert (counts.blocks, counts.bad) == (120, 0)


def test_everything_in_another_order(mosquitto, site, published):
    with MqttRelay(mosquitto.port, lambda: Reordering(1), acknowledge=False) as relay:
        counts = site.fetch(relay.port)
    assert site.content == SOURCE.payload
    assert (counts.blocks, counts.duplicates, counts.bad) == (120, 0, 0)


class Falsifying(Mangler):
    """Blocks from 40 on are not what they should be."""

    def __init__(self, how):
        self._how = how

    def take(self, message):
        number = message.block
        if number is None or number < 40:
            return (message,)
        return (message.saying(self._how(number, message.payload)),)


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(lambda n, _: SOURCE.blocks[(n + 1) % 119], id="swapped"),
        pytest.param(lambda n, _: SOURCE.blocks[n - 40], id="replayed"),
        pytest.param(lambda n, _: make_blocks(120, 4096, seed=1).blocks[n], id="of another bundle"),
        pytest.param(lambda _, block: block[:-1], id="truncated"),
        pytest.param(lambda _, block: block + b"\0", id="extended"),
        pytest.param(lambda _, block: bytes(len(block)), id="zeros"),
        pytest.param(lambda _, block: block[:-1] + bytes([block[-1] ^ 1]), id="one bit"),
        pytest.param(lambda _, block: os.urandom(len(block)), id="garbage"),
    ],
)
def test_wrong_blocks_end_it_and_never_come_to_the_disk(mosquitto, site, published, how):
    with (
        MqttRelay(mosquitto.port, lambda: Falsifying(how)) as relay,
        pytest.raises(TransferError, match="3 blocks are not what the signed index says"),
    ):
        site.fetch(relay.port)
    assert only_right_blocks(site.content)
    assert any(site.content)
    # Once the broker is honest again, what was right is not fetched again.
    counts = site.fetch(mosquitto.port)
    assert site.content == SOURCE.payload
    assert counts.blocks <= 120 - 40 + WINDOW


def test_one_wrong_block_is_replaced_by_the_controller(mosquitto, site, published):
    published.put([(site.topics.block(BUNDLE, 30), SOURCE.blocks[31])])
    ask = Ask(lambda request: published.answer(SOURCE, request))
    counts = site.fetch(mosquitto.port, ask)
    assert site.content == SOURCE.payload
    assert (counts.bad, counts.stalls) == (1, 0)
    assert [request.blocks for request in ask.requests] == [((30, 30),)]


def test_a_broker_that_delivers_nothing_more_is_left_for_a_new_connection(
    mosquitto, site, published
):
    class Dying(Mangler):
        lives = 0

        def __init__(self):
            Dying.lives += 1
            self._left = 30 if Dying.lives == 1 else 10_000

        def take(self, message):
            self._left -= 1
            return (message,) if self._left >= 0 else ()

    with MqttRelay(mosquitto.port, Dying, acknowledge=False) as relay:
        counts = site.fetch(relay.port, stall_s=SOON_S)
    assert site.content == SOURCE.payload
    assert counts.connects >= 2


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_huge_message_on_a_blocks_topic_is_not_taken(mosquitto, site, published, protocol):
    """A broker that knows MQTT 5 keeps it back; otherwise the connection ends in time."""
    published.put([(site.topics.block(BUNDLE, 30), bytes(8 * 2**20))])
    huge = []

    class Watch(Mangler):
        def take(self, message):
            if len(message.payload) > 2**20:
                huge.append(message)
                published.blocks(SOURCE, [30])
            return (message,)

    ask = Ask(lambda request: published.answer(SOURCE, request))
    with MqttRelay(mosquitto.port, Watch, v5=protocol == "5") as relay:
        counts = site.fetch(relay.port, ask, stall_s=SURE_S, protocol=protocol)
    assert site.content == SOURCE.payload
    assert counts.bad == 0
    if protocol == "5":
        assert not huge
        assert (counts.connects, ask.requests[0].blocks) == (1, ((30, 30),))
    else:
        assert huge
        assert counts.connects > 1


def test_garbage_in_the_place_of_packets_ends_a_connection_and_no_more(
    mosquitto, site, published, caplog
):
    class Garbage(Mangler):
        lives = 0

        def __init__(self):
            Garbage.lives += 1
            self._seed = Garbage.lives

        def take(self, message):
            if self._seed <= 3 and message.block and message.block % 40 == 39:
                # Properties that are none; then a topic that is none.
                head = message.head[:2] + b"\x7f"
                topic = "\x00#+" if self._seed == 2 else message.topic
                return (Publish(message.flags, topic, head, b""),)
            return (message,)

    with MqttRelay(mosquitto.port, Garbage) as relay:
        counts = site.fetch(relay.port, stall_s=SOON_S)
    assert site.content == SOURCE.payload
    assert counts.blocks == 120


def test_blocks_that_nobody_asked_for_are_not_looked_at(mosquitto, site, published):
    class Flood(Mangler):
        def take(self, message):
            if message.block is None:
                return (message,)
            topic = message.topic.rpartition("/")[0]
            strange = ("119", "999999", "-1", "x", "1e3", "9" * 400, "٣", "")
            extra = [
                Publish(message.flags & ~0b1110, f"{topic}/{name}", b"\0", b"garbage")
                for name in strange
                if not (name == "119" and message.block >= 100)
            ]
            return (*extra, message)

    with MqttRelay(mosquitto.port, Flood) as relay:
        counts = site.fetch(relay.port)
    assert site.content == SOURCE.payload
    assert counts.bad == 0


# --- connections that break --------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_cut_connections_cost_a_window_each(mosquitto, site, published, seed):
    chance = random.Random(seed)
    cuts = {chance.randrange(5, 120) for _ in range(4)}
    done = []
    with MqttRelay(mosquitto.port) as relay:

        def cut(count):
            if count in cuts and count not in done:
                done.append(count)
                relay.cut()
                relay.join()
                raise ConnectionError("cut")

        relay.on_block = cut
        counts = site.fetch(relay.port)
        extra = relay.delivered.total() - 120
    assert site.content == SOURCE.payload
    assert len(done) == len(cuts)
    assert counts.connects == len(cuts) + 1
    assert extra <= len(cuts) * WINDOW


def test_cancelling_keeps_what_has_come(mosquitto, site, published):
    cancelled = threading.Event()
    with MqttRelay(mosquitto.port) as relay:
        relay.on_block = lambda count: cancelled.set() if count == 60 else None
        with pytest.raises(UpdateCancelled):
            site.fetcher(relay.port).blocks(
                BUNDLE, SOURCE.index, site.staging, WINDOW, LONG_S, site.tell, cancelled
            )
        relay.on_block = lambda _count: None
        site.fetch(relay.port)
        assert relay.delivered.total() - 120 <= 2 * WINDOW
    assert site.content == SOURCE.payload


def test_an_end_is_not_kept_waiting_by_a_broker_that_is_away(site):
    began = time.monotonic()
    ask = Ask()
    with pytest.raises(UpdateCancelled):
        site.fetcher(free_port(), ask).blocks(
            BUNDLE, SOURCE.index, site.staging, WINDOW, 0.01, site.tell, Soon()
        )
    assert time.monotonic() - began < 5
    # While there is no connection nothing is missing.
    assert ask.requests == []


# --- kill -9 -----------------------------------------------------------------------------------

COUNT, BLOCK_BYTES = 200, 65536


@pytest.fixture(scope="module")
def large():
    return make_blocks(COUNT, BLOCK_BYTES, seed=7)


def start(port, prefix, folder, **environment):
    numbers = map(str, (7, COUNT, BLOCK_BYTES, WINDOW))
    return subprocess.Popen(
        [sys.executable, "-m", "tests.integration.fetching", str(port), prefix, folder, *numbers],
        stdout=subprocess.PIPE,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_kill_9_at_any_moment_costs_a_window(own_mosquitto, site, prefix, large, seed):
    chance = random.Random(seed)
    broker = own_mosquitto()
    folder = site.staging.payload.parents[1]
    with Pieces(broker.port, site.topics) as made:
        made.blocks(large)
    pulled = 0
    for kill_at in (COUNT // 2, chance.randrange(1, COUNT // 3), None):
        with MqttRelay(broker.port) as relay, start(relay.port, prefix, folder) as process:
            if kill_at is not None:
                relay.on_block = lambda n, p=process, at=kill_at: p.kill() if n == at else None
            out, _ = process.communicate(timeout=30)
        pulled += relay.delivered.total()
        if kill_at is not None:
            assert process.returncode == -9
            assert only_right_blocks(site.content, large)
    assert json.loads(out)["blocks"] == relay.delivered.total() < COUNT
    assert pulled <= COUNT + 2 * WINDOW
    assert site.content == large.payload


@pytest.mark.parametrize("count", [1, 57, COUNT])
def test_kill_9_between_a_block_and_its_mark(own_mosquitto, site, prefix, large, count):
    broker = own_mosquitto()
    folder = site.staging.payload.parents[1]
    with Pieces(broker.port, site.topics) as made:
        made.blocks(large)
    with start(broker.port, prefix, folder, VIGIA_FAILPOINT=f"C1.block:{count}") as process:
        assert process.wait(30) == -9
    with start(broker.port, prefix, folder) as process:
        out, _ = process.communicate(timeout=30)
    # The one that was written and not marked comes again, and no other.
    assert json.loads(out)["blocks"] == COUNT - (count - 1)
    assert site.content == large.payload


# --- disks -------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path):
    yield from small_disk(tmp_path, 256)


def test_without_room_nothing_is_asked_for(mosquitto, prefix, disk):
    site = Site(disk.folder / "bundles", prefix)
    with MqttRelay(mosquitto.port) as relay:
        with pytest.raises(StoreError, match="no room"):
            site.fetch(relay.port)
        assert relay.accepted == 0


def test_a_disk_that_turns_read_only_ends_it(mosquitto, prefix, disk, tmp_path):
    site = Site(disk.folder / "bundles", prefix)
    source = make_blocks(10, 4096)
    site.staging.allocate(source.index.ciphertext_length)
    disk.read_only()
    with pytest.raises(StoreError, match="Read-only file system"):
        site.fetch(mosquitto.port, source=source)
