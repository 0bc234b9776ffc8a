from __future__ import annotations

import dataclasses
import json
import time

import numpy as np
import pytest

from agent.config import DetectionsConfig, MqttConfig
from agent.detection import Detections
from agent.outbox import Draft
from agent.publish import MAX_INBOX, NS_PER_S, Publisher
from agent.wire import messages
from agent.wire.schema import DETECTIONS
from agent.wire.topics import Topics
from tests.fakes.broker import FakeBroker
from tests.fakes.frames import frame, result

ONE = Detections(
    np.array([[0, 0, 2, 2]], np.float32), np.array([0.5], np.float32), np.array([0], np.int32)
)


def found(index: int, camera: str = "a", *, dropped: int = 0, detections=ONE, ns: int = 0):
    return dataclasses.replace(result(frame(camera, index, ns=ns), detections), dropped=dropped)


@pytest.fixture
def make():
    """Makes publishers; they are started unless told otherwise, and closed at the end."""
    made = []

    def start(broker: FakeBroker, *, start: bool = True, **settings) -> Publisher:
        config = MqttConfig.model_validate({"host": "x", **settings})
        publisher = Publisher(broker, Topics("p", "d"), config, "d", "b")
        if start:
            publisher.start()
            made.append(publisher)
        return publisher

    yield start
    for publisher in made:
        publisher.close(0)


def read(broker: FakeBroker, count: int) -> list[dict]:
    return [json.loads(m.payload) for m in broker.wait_for(count)]


def frames(said: list[dict]) -> list[int]:
    return [m["frame"]["id"] for m in said]


def test_results_are_published_in_order_with_a_number_for_each_camera(make):
    broker = FakeBroker()
    publisher = make(broker, detections={"qos": 1, "expiry_s": 9})
    for index in range(6):
        publisher.publish(found(index, "ab"[index % 2]))
    said = read(broker, 6)
    assert frames(said) == list(range(6))
    assert [m["seq"] for m in said] == [0, 0, 1, 1, 2, 2]
    first = broker.published[0]
    assert (first.topic, first.qos, first.retain) == ("p/d/cam/a/detections", 1, False)
    assert (first.schema, first.expiry_s) == (DETECTIONS, 9)


def test_other_settings_count_from_the_next_result_on(make):
    broker = FakeBroker()
    publisher = make(broker, detections={"qos": 1, "max_rate_hz": 1})
    publisher.publish(found(0))
    publisher.publish(found(1))
    publisher.publish(found(2, ns=NS_PER_S))
    read(broker, 2)
    publisher.configure(DetectionsConfig(qos=0, expiry_s=7, empty=False))
    publisher.publish(found(3, ns=NS_PER_S))
    publisher.publish(found(4, ns=NS_PER_S))
    publisher.publish(found(5, detections=Detections.empty()))
    publisher.publish(found(6, ns=NS_PER_S))
    assert frames(read(broker, 5)) == [0, 2, 3, 4, 6]
    last = broker.published[-1]
    assert (last.qos, last.expiry_s) == (0, 7)
    assert publisher.counters()["withheld"] == {"rate": 1, "empty": 1}


def test_frames_dropped_before_a_result_are_told(make):
    broker = FakeBroker()
    make(broker).publish(found(4, dropped=4))
    assert read(broker, 1)[0]["dropped"] == 4


def test_while_the_broker_is_away_the_newest_are_kept_and_the_rest_is_told(make):
    broker = FakeBroker(connected=False)
    publisher = make(broker, outbox_messages=3)
    for index in range(10):
        publisher.publish(found(index, dropped=1))
    wait(lambda: publisher.counters()["dropped"] == {"outbox": 7})
    assert publisher.counters()["outbox_messages"] == 3
    broker.connect()
    said = read(broker, 3)
    assert frames(said) == [7, 8, 9]
    assert [m["seq"] for m in said] == [0, 1, 2]
    # Seven results and one skipped frame before each of the first eight.
    assert [m["dropped"] for m in said] == [7 + 8, 1, 1]
    assert all(m["replay"] for m in said)
    publisher.publish(found(10))
    assert read(broker, 4)[-1]["replay"] is False


def test_drops_are_told_to_the_camera_that_had_them(make):
    broker = FakeBroker(connected=False)
    publisher = make(broker, outbox_messages=2)
    for index, camera in enumerate("aabb"):
        publisher.publish(found(index, camera))
    wait(lambda: publisher.counters()["dropped"] == {"outbox": 2})
    broker.connect()
    broker.wait_for(2)
    publisher.publish(found(4, "a"))
    assert [(m["cam"], m["dropped"]) for m in read(broker, 3)] == [("b", 0), ("b", 0), ("a", 2)]


def test_a_refused_message_is_offered_again_when_the_broker_is_ready(make):
    broker = FakeBroker(room=2)
    publisher = make(broker)
    for index in range(5):
        publisher.publish(found(index))
    broker.wait_for_refusals(1)
    broker.connect(room=1)
    broker.wait_for(3)
    broker.connect()
    said = read(broker, 5)
    assert frames(said) == list(range(5))
    assert [m["seq"] for m in said] == list(range(5))
    assert all(m["dropped"] == 0 for m in said)


def test_a_full_outbox_is_emptied_before_new_results_need_its_room(make):
    broker = FakeBroker()
    publisher = make(broker, start=False, outbox_messages=2)
    for index in range(2):
        body = messages.detection_body(found(index))
        publisher._outbox.put(Draft("a", body, 0, replay=True))
    publisher.publish(found(2))
    publisher.start()
    assert frames(read(broker, 3)) == [0, 1, 2]
    publisher.close(5)


def test_a_refusing_broker_is_not_asked_in_a_loop(make):
    broker = FakeBroker(room=0)
    publisher = make(broker)
    publisher.publish(found(0))
    broker.wait_for_refusals(1)
    publisher.publish(found(1))
    wait(lambda: publisher.counters()["outbox_messages"] == 2)
    assert broker.refusals <= 2


def test_empty_frames_are_withheld_where_asked_and_their_drops_carried_on(make):
    broker = FakeBroker()
    publisher = make(broker, detections={"empty": False})
    publisher.publish(found(0, dropped=2, detections=Detections.empty()))
    publisher.publish(found(1, dropped=1))
    said = read(broker, 1)
    assert frames(said) == [1]
    assert said[0]["dropped"] == 3
    assert publisher.counters()["withheld"] == {"empty": 1}


def test_empty_frames_are_published_by_default(make):
    broker = FakeBroker()
    make(broker).publish(found(0, detections=Detections.empty()))
    assert read(broker, 1)[0]["objects"] == []


def test_each_camera_has_its_own_rate(make):
    broker = FakeBroker()
    publisher = make(broker, detections={"max_rate_hz": 10})
    for index in range(30):
        for camera in "ab":
            publisher.publish(found(index, camera, ns=index * NS_PER_S // 30))
    wait(lambda: publisher.counters()["withheld"] == {"rate": 40})
    said = read(broker, 20)
    assert frames([m for m in said if m["cam"] == "a"]) == list(range(0, 30, 3))


def test_a_result_that_is_no_number_is_dropped_and_told(make, caplog):
    broker = FakeBroker()
    publisher = make(broker)
    bad = dataclasses.replace(ONE, scores=np.array([np.nan], np.float32))
    publisher.publish(found(0, detections=bad))
    publisher.publish(found(1))
    assert read(broker, 1)[0]["dropped"] == 1
    assert publisher.counters()["dropped"] == {"invalid": 1}
    assert "cannot be encoded" in caplog.text


def test_results_that_come_too_fast_are_bounded_and_told(make):
    broker = FakeBroker()
    publisher = make(broker, start=False)
    for index in range(MAX_INBOX + 5):
        publisher.publish(found(index))
    assert publisher.counters()["dropped"] == {"backlog": 5}
    publisher.start()
    said = read(broker, MAX_INBOX)
    publisher.close(1)
    assert said[0]["dropped"] == 5
    assert frames(said) == list(range(5, MAX_INBOX + 5))


def test_closing_hands_on_what_waits(make):
    broker = FakeBroker()
    publisher = make(broker, start=False)
    for index in range(20):
        publisher.publish(found(index))
    publisher.start()
    publisher.close(10)
    assert len(broker.published) == 20


def test_closing_does_not_wait_longer_than_told_for_a_broker_that_is_away(make):
    publisher = make(FakeBroker(connected=False))
    publisher.publish(found(0))
    wait(lambda: publisher.counters()["outbox_messages"] == 1)
    began = time.monotonic()
    publisher.close(0.05)
    assert time.monotonic() - began < 2
    wait(lambda: publisher.counters()["dropped"] == {"stopped": 1})


def test_a_bug_in_the_thread_reaches_whoever_publishes(make):
    class Broken(FakeBroker):
        def publish(self, *_args, **_options):
            raise LookupError("a bug")

    publisher = make(Broken(), start=False)
    publisher.start()
    publisher.publish(found(0))

    def raised() -> bool:
        try:
            publisher.publish(found(1))
        except LookupError:
            return True
        return False

    wait(raised)


def wait(condition, timeout_s: float = 10.0) -> None:
    """Wait for what tells nobody when it happens."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_with_a_spool_everything_goes_there_with_its_number_and_what_was_lost_before():
    class Taker:
        def __init__(self):
            self.taken = []

        def take_detection(self, camera, seq, dropped, body, *, replay):
            self.taken.append((camera, seq, dropped, replay))

    broker, taker = FakeBroker(connected=False), Taker()
    config = MqttConfig.model_validate({"host": "x"})
    publisher = Publisher(broker, Topics("p", "d"), config, "d", "b", durable=taker)
    publisher.start()
    for index in range(4):
        publisher.publish(found(index, "ab"[index % 2], dropped=index))
    wait(lambda: len(taker.taken) == 4)
    publisher.close(1)
    assert taker.taken == [
        ("a", 0, 0, True),
        ("b", 0, 1, True),
        ("a", 1, 2, True),
        ("b", 1, 3, True),
    ]
    assert broker.published == []
    assert publisher.counters()["published"] == 4
