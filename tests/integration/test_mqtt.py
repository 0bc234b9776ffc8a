"""The link and the publisher against a real Mosquitto."""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from typing_extensions import Self

from agent.backoff import Backoff
from agent.config import MqttConfig
from agent.detection import Detections, ModelRef
from agent.errors import ConfigError
from agent.mqtt import MqttClient
from agent.mqttcheck import check_broker
from agent.mqttlink import STEP_S, Link
from agent.mqttqueue import MAX_WAITING
from agent.mqttreason import ConnectError
from agent.publish import Publisher
from agent.wire import messages
from agent.wire.reading import parse_detections
from agent.wire.schema import CAMERA_STATUS, DETECTIONS, schema
from agent.wire.topics import Topics
from tests.fakes.frames import frame, result
from tests.integration.conftest import PASSWORD, READ_ONLY_USER, USER
from tests.integration.ports import free_port
from tests.integration.relay import Relay
from tests.integration.subscriber import Subscriber, until

DEVICE = "d1"
BOOT = "b1"
MODEL = ModelRef("main", "m", f"sha256:{0:064}", "onnxruntime", "fp32", ("bag", "box"))


def config(port: int, prefix: str, host: str = "127.0.0.1", **settings) -> MqttConfig:
    return MqttConfig.model_validate({"host": host, "port": port, "prefix": prefix, **settings})


def at_once() -> Backoff:
    return Backoff(0.01, 0.01, uniform=lambda _low, high: high)


@contextlib.contextmanager
def client(settings: MqttConfig, *, device: str = DEVICE, wait: bool = True, close_s=2.0):
    made = MqttClient(settings, device, BOOT, backoff=at_once())
    made.start()
    try:
        if wait:
            assert made.wait_connected(10), made.reason
        yield made
    finally:
        made.close(close_s)


@contextlib.contextmanager
def publisher(link: MqttClient, settings: MqttConfig):
    made = Publisher(link, Topics(settings.prefix, DEVICE), settings, DEVICE, BOOT)
    made.start()
    try:
        yield made
    finally:
        made.close(2)


def one_object(index: int = 0, camera: str = "a"):
    found = Detections(
        np.array([[1, 1, 3, 2]], np.float32), np.array([0.5], np.float32), np.array([1], np.int32)
    )
    plain = result(frame(camera, index, ns=index * 1_000_000), found)
    return dataclasses.replace(plain, model=MODEL)


# --- the device's state -----------------------------------------------------------------------


def test_birth_is_retained_and_a_clean_end_says_offline(mosquitto, prefix, subscriber):
    topic = f"{prefix}/{DEVICE}/status"
    with client(config(mosquitto.port, prefix)) as made:
        subscriber.wait_count(1)
        for state in ("degraded", "degraded", "stopping"):
            made.set_state(state, "the model fails")
            assert made.flush(5)
    subscriber.wait_count(4)
    said = [m.json for m in subscriber.on(topic)]
    assert [m["state"] for m in said] == ["online", "degraded", "stopping", "offline"]
    assert said[1]["reason"] == "the model fails"
    for message in subscriber.messages:
        jsonschema.validate(message.json, schema(message.schema))
    with Subscriber(mosquitto.port, topic) as late:
        assert late.wait_count(1)[0].retain
        assert late.messages[0].json["state"] == "offline"


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_broker_says_offline_when_the_connection_breaks_and_online_when_it_is_back(
    mosquitto, prefix, subscriber, protocol
):
    with (
        Relay(mosquitto.port) as relay,
        client(config(relay.port, prefix, protocol=protocol)),
    ):
        subscriber.wait_count(1)
        relay.cut()
        will = subscriber.wait_count(2)[-1]
        assert will.json["state"] == "offline"
        assert will.json["reason"] == "the connection was lost"
        jsonschema.validate(will.json, schema("vigia.status/1"))
        relay.join()
        assert subscriber.wait_count(3)[-1].json["state"] == "online"


def test_retained_messages_are_told_again_on_a_broker_that_has_forgotten_them(
    own_mosquitto, prefix
):
    broker = own_mosquitto()
    with client(config(broker.port, prefix)) as made:
        made.set_retained(f"{prefix}/x", b'{"n":1}')
        made.set_retained(f"{prefix}/x", b'{"n":2}', schema="some/1")
        assert made.flush(5)
        broker.kill()
        until(lambda: not made.connected)
        broker.start()
        with Subscriber(broker.port, f"{prefix}/x") as reader:
            assert reader.wait_count(1)[0].payload == b'{"n":2}'
            assert reader.messages[0].schema == "some/1"


def test_offline_is_the_last_thing_said_and_stopping_comes_before_it(mosquitto, prefix, subscriber):
    with client(config(mosquitto.port, prefix)) as made:
        subscriber.wait_count(1)
        made.set_state("stopping")
        # Until it is acknowledged, it takes one of the places that are filled below.
        assert made.flush(5)
        for number in range(MAX_WAITING):
            assert made.publish(f"{prefix}/x", b"%d" % number, qos=1)
    topic = f"{prefix}/{DEVICE}/status"
    got = subscriber.wait_count(MAX_WAITING + 3)
    states = [m.json["state"] for m in got if m.topic == topic]
    assert states == ["online", "stopping", "offline"]
    assert got[-1].topic == topic


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_the_will_says_offline_if_there_was_no_time_to_say_so(
    mosquitto, prefix, subscriber, protocol
):
    with Relay(mosquitto.port) as relay:
        settings = config(relay.port, prefix, protocol=protocol)
        with client(settings, close_s=0.2) as made:
            subscriber.wait_count(1)
            assert made.flush(5)
            relay.mute()
            for number in range(MAX_WAITING):
                assert made.publish(f"{prefix}/x", b"%d" % number, qos=1)
            # As many as may be unacknowledged: "offline" has to wait.
            subscriber.wait_count(1 + made._session.inflight_limit)
        said = subscriber.wait_for(lambda got: got[-1].topic.endswith("status"))[-1].json
        assert (said["state"], said["reason"]) == ("offline", "the connection was lost")


# --- what is published ------------------------------------------------------------------------


def test_all_messages_are_valid_and_carry_type_schema_and_expiry(mosquitto, prefix, subscriber):
    settings = config(mosquitto.port, prefix, detections={"qos": 1, "expiry_s": 7})
    topics = Topics(prefix, DEVICE)
    with client(settings) as made, publisher(made, settings) as sink:
        made.set_retained(
            topics.camera_status("a"),
            messages.encode_camera_status(
                DEVICE, BOOT, "a", state="online", reason="", since=1.5, attempts=0
            ),
            CAMERA_STATUS,
        )
        sink.publish(one_object())
        subscriber.wait_for(lambda got: any(m.topic == topics.detections("a") for m in got))
    for message in subscriber.messages:
        assert message.content_type == "application/json"
        assert message.json["schema"] == message.schema
        jsonschema.validate(message.json, schema(message.schema))
    detections = subscriber.on(topics.detections("a"))
    assert [m.schema for m in detections] == [DETECTIONS]
    assert detections[0].expiry_s == 7
    assert all(m.expiry_s is None for m in subscriber.on(topics.status))
    assert parse_detections(detections[0].payload).objects[0]["label"] == MODEL.names[1]


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
@pytest.mark.parametrize("qos", [0, 1])
def test_numbers_have_no_gaps(mosquitto, prefix, subscriber, protocol, qos):
    settings = config(mosquitto.port, prefix, protocol=protocol, detections={"qos": qos})
    with client(settings) as made, publisher(made, settings) as sink:
        for index in range(150):
            sink.publish(one_object(index, "ab"[index % 2]))
        subscriber.wait_count(151)
    for camera in "ab":
        got = [m.json for m in subscriber.on(f"{prefix}/{DEVICE}/cam/{camera}/detections")]
        assert [m["seq"] for m in got] == list(range(75))
        assert all(m["dropped"] == 0 and m["replay"] is False for m in got)


def test_a_topic_is_sent_once_and_then_by_its_alias(mosquitto, prefix, subscriber):
    topic = f"{prefix}/{DEVICE}/cam/a/detections"
    with Relay(mosquitto.port) as relay:
        settings = config(relay.port, prefix)
        with client(settings) as made, publisher(made, settings) as sink:
            for index in range(20):
                sink.publish(one_object(index))
            subscriber.wait_for(lambda got: len([m for m in got if m.topic == topic]) == 20)
        assert bytes(relay.sent).count(topic.encode()) == 1


def test_the_connection_keeps_the_brokers_limits_and_does_not_collect_small_packets(
    mosquitto, prefix
):
    with client(config(mosquitto.port, prefix)) as made:
        # Mosquitto's default for max_inflight_messages.
        assert made._session.inflight_limit == 20
        sock = made._session._paho.socket()
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_message_that_the_broker_refuses_is_counted_and_does_not_stop_the_others(
    mosquitto, prefix, subscriber
):
    settings = config(
        mosquitto.ports["password"], prefix, username=READ_ONLY_USER, password=PASSWORD
    )
    with client(settings) as made:
        assert made.publish(f"{prefix}/x", b"{}", qos=1)
        assert made.flush(5)
        assert made.counters()["refused"] == 2  # this one and the birth


def test_a_message_larger_than_the_broker_takes_is_dropped_alone(own_mosquitto, prefix):
    broker = own_mosquitto("max_packet_size 2000")
    with Subscriber(broker.port, f"{prefix}/#") as reader, client(config(broker.port, prefix)) as c:
        assert c.publish(f"{prefix}/big", b"x" * 5000, qos=1)
        assert c.publish(f"{prefix}/small", b"{}", qos=1)
        reader.wait_for(lambda got: any(m.topic == f"{prefix}/small" for m in got))
        assert c.flush(5)
        assert c.counters()["too_large"] == 1
        assert c.counters()["disconnects"] == 0


def test_a_message_that_ends_every_connection_is_given_up(own_mosquitto, prefix):
    broker = own_mosquitto("max_packet_size 2000")
    with (
        Subscriber(broker.port, f"{prefix}/#") as reader,
        client(config(broker.port, prefix, protocol="3.1.1")) as made,
    ):
        assert made.publish(f"{prefix}/big", b"x" * 5000, qos=1)
        assert made.publish(f"{prefix}/small", b"{}", qos=1)
        reader.wait_for(lambda got: any(m.topic == f"{prefix}/small" for m in got), 20)
        until(lambda: made.counters()["given_up"] == 1)


def test_a_retained_message_that_ends_every_connection_is_given_up(own_mosquitto, prefix, caplog):
    broker = own_mosquitto("max_packet_size 2000")
    with (
        Subscriber(broker.port, f"{prefix}/#") as reader,
        client(config(broker.port, prefix, protocol="3.1.1")) as made,
    ):
        made.set_retained(f"{prefix}/big", b"x" * 5000)
        made.set_retained(f"{prefix}/small", b"{}")
        until(lambda: made.publish(f"{prefix}/x", b"{}", qos=1))
        reader.wait_for(
            lambda got: {f"{prefix}/{n}" for n in ("small", "x")} <= {m.topic for m in got}
        )
        assert made.flush(5)
        assert made.counters()["given_up"] == 1
        assert f"5000 bytes on {prefix}/big" in caplog.text


# --- losing and regaining the broker -----------------------------------------------------------


def load(sink: Publisher, stop: threading.Event, period_s: float = 0.002) -> threading.Thread:
    """Publishes results until told to stop; `thread.count` is how many."""

    def run() -> None:
        while not stop.wait(period_s):
            sink.publish(one_object(thread.count))
            thread.count += 1

    thread = threading.Thread(target=run, name="load")
    thread.count = 0
    thread.start()
    return thread


def test_cut_link_under_load_loses_nothing_untold(mosquitto, prefix, subscriber):
    stop = threading.Event()
    with Relay(mosquitto.port) as relay:
        settings = config(relay.port, prefix, detections={"qos": 1}, outbox_messages=50)
        with client(settings) as made, publisher(made, settings) as sink:
            feed = load(sink, stop)
            try:
                for _ in range(3):
                    seen = len(subscriber.messages)
                    subscriber.wait_count(seen + 50)
                    relay.cut()
                    lost = sink.counters()["dropped"].get("outbox", 0)
                    until(lambda lost=lost: sink.counters()["dropped"].get("outbox", 0) > lost + 20)
                    assert sink.counters()["outbox_messages"] <= 50
                    relay.join()
                    until(lambda: made.connected and sink.counters()["outbox_messages"] == 0)
            finally:
                stop.set()
                feed.join()
            until(lambda: sink.counters()["outbox_messages"] == 0)
            assert made.flush(5)
            published = sink.counters()["published"]
            by_number = {}
            topic = f"{prefix}/{DEVICE}/cam/a/detections"
            subscriber.wait_for(
                lambda got: (
                    {m.json["seq"] for m in got if m.topic == topic} == set(range(published))
                )
            )
    for message in subscriber.on(topic):
        by_number.setdefault(message.json["seq"], message.json)
    # First sights are in order, and every frame was either received or told as dropped before one.
    assert list(by_number) == sorted(by_number)
    expected = 0
    for number in sorted(by_number):
        expected += by_number[number]["dropped"]
        assert by_number[number]["frame"]["id"] == expected
        expected += 1
    assert expected == feed.count
    assert any(m["replay"] for m in by_number.values())
    assert not by_number[0]["replay"]


def test_broker_killed_under_load_is_found_again_and_memory_stays_bounded(own_mosquitto, prefix):
    broker = own_mosquitto()
    stop = threading.Event()
    settings = config(broker.port, prefix, detections={"qos": 1}, outbox_messages=30)
    with (
        Subscriber(broker.port, f"{prefix}/+/cam/#") as reader,
        client(settings) as made,
        publisher(made, settings) as sink,
    ):
        feed = load(sink, stop)
        try:
            reader.wait_count(20)
            broker.kill()
            until(lambda: sink.counters()["dropped"].get("outbox", 0) > 50)
            counters = sink.counters()
            assert counters["outbox_messages"] <= 30
            assert made.counters()["waiting"] <= MAX_WAITING
            assert "nothing listens" in made.reason
            broker.start()
            before = len(reader.messages)
            reader.wait_count(before + 50, 20)
        finally:
            stop.set()
            feed.join()
        assert made.counters()["connects"] == 2
        latest = [m.json["seq"] for m in reader.messages[before + 30 :]]
        assert latest == list(range(latest[0], latest[0] + len(latest)))


def test_paused_broker_stops_nobody_and_what_waits_arrives(own_mosquitto, prefix):
    broker = own_mosquitto()
    with (
        Subscriber(broker.port, f"{prefix}/x") as reader,
        client(config(broker.port, prefix)) as made,
    ):
        ready = threading.Event()
        made.on_ready(ready.set)
        assert made.flush(5)
        broker.pause()
        taken = 0
        slowest = 0.0
        while taken < 10_000:
            began = time.perf_counter()
            ok = made.publish(f"{prefix}/x", b'"%5d"' % taken, qos=1)
            slowest = max(slowest, time.perf_counter() - began)
            if not ok:
                break
            taken += 1
        assert taken == MAX_WAITING
        assert slowest < 0.5
        ready.clear()
        broker.resume()
        assert ready.wait(10)
        reader.wait_count(taken)
        assert [int(m.json) for m in reader.messages] == list(range(taken))


def test_bulk_of_unread_messages_is_refused_not_buffered(own_mosquitto, prefix):
    broker = own_mosquitto()
    with client(config(broker.port, prefix)) as made:
        assert made.flush(5)
        broker.pause()
        payload = b"x" * 1_000_000
        deadline = time.monotonic() + 10
        # QoS 0 is bounded by what the sockets hold, then by what may wait.
        while made.publish(f"{prefix}/x", payload, qos=0):
            assert time.monotonic() < deadline
        assert made.counters()["waiting"] == MAX_WAITING
        broker.resume()
        assert made.flush(20)


def test_a_silent_broker_is_noticed_and_left(own_mosquitto, prefix):
    broker = own_mosquitto()
    settings = config(broker.port, prefix, connect_timeout_s=0.3)
    # The shortest allowed keep-alive is 5 s; the session itself takes any.
    settings = settings.model_copy(update={"keepalive_s": 1})
    with client(settings) as made:
        broker.pause()
        until(lambda: not made.connected)
        assert "does not answer any more" in made.reason
        until(lambda: "connection request" in made.reason)
        broker.resume()
        assert made.wait_connected(10)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_two_clients_of_one_id_are_told_apart_in_the_reason(mosquitto, prefix, protocol):
    settings = config(mosquitto.port, prefix, protocol=protocol)
    with client(settings, device="twin"), client(settings, device="twin", wait=False) as second:
        until(lambda: second.counters()["disconnects"] > 0)
        assert second.counters()["failures"] > 0


def test_takeover_names_the_cause(mosquitto, prefix, caplog):
    settings = config(mosquitto.port, prefix)
    with client(settings, device="twin2") as first, client(settings, device="twin2", wait=False):
        until(lambda: first.counters()["disconnects"] > 0)
        until(lambda: "another client uses the same id" in caplog.text)


def test_closing_does_not_wait_for_a_broker_that_is_away_or_silent(own_mosquitto, prefix):
    broker = own_mosquitto()
    away = MqttClient(config(free_port(), prefix), DEVICE, BOOT)
    away.start()
    until(lambda: away.reason)
    silent = MqttClient(config(broker.port, prefix), DEVICE, BOOT)
    silent.start()
    assert silent.wait_connected(10)
    broker.pause()
    began = time.monotonic()
    away.close(0.5)
    silent.close(0.5)
    assert time.monotonic() - began < 2.5
    broker.resume()


# --- subscriptions -----------------------------------------------------------------------------


def test_subscriptions_deliver_and_survive_a_broken_connection(mosquitto, prefix):
    got = defaultdict(list)
    arrived = threading.Condition()

    def take(topic: str, payload: bytes) -> None:
        with arrived:
            got[topic].append(payload)
            arrived.notify_all()

    def wait(topic: str) -> None:
        with arrived:
            assert arrived.wait_for(lambda: got[topic], 10)

    with Relay(mosquitto.port) as relay, client(config(mosquitto.port, prefix)) as sender:
        reader = Link(config(relay.port, prefix), f"reader-{prefix[-8:]}", backoff=at_once())
        reader.subscribe(f"{prefix}/a/+", take, qos=1)
        reader.start()
        try:
            assert reader.wait_connected(10)
            reader.subscribe(f"{prefix}/b", take)

            def send_until_seen(topic: str) -> None:
                until(lambda: sender.publish(topic, b"1", qos=1) and got[topic])

            send_until_seen(f"{prefix}/a/1")
            send_until_seen(f"{prefix}/b")
            relay.cut()
            until(lambda: not reader.connected)
            relay.join()
            send_until_seen(f"{prefix}/a/2")
            assert not got[f"{prefix}/c"]
        finally:
            reader.close(1)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_what_was_left_does_not_come_any_more(mosquitto, prefix, protocol):
    got = []
    topics = [f"{prefix}/{name}" for name in "abc"]
    settings = config(mosquitto.port, prefix, protocol=protocol)
    with client(config(mosquitto.port, prefix)) as sender, client(settings, device="r") as reader:
        reader.subscribe_all(topics, lambda topic, _payload: got.append(topic[-1]), qos=1)
        until(lambda: all(sender.publish(t, b"1", qos=1) for t in topics) and set(got) == {*"abc"})
        reader.unsubscribe(topics[:2])
        reader.unsubscribe(topics[2:])
        assert sender.flush(10)
        got.clear()
        for topic in topics:
            assert sender.publish(topic, b"2", qos=1)
        reader.subscribe(f"{prefix}/last", lambda topic, _payload: got.append("last"), qos=1)
        until(lambda: sender.publish(f"{prefix}/last", b"3", qos=1) and got)
    assert set(got) == {"last"}


def test_the_broker_is_told_what_was_left(mosquitto, prefix):
    with Relay(mosquitto.port) as relay, client(config(relay.port, prefix)) as reader:
        reader.subscribe(f"{prefix}/a", lambda *_: None)
        until(lambda: f"{prefix}/a".encode() in relay.sent)
        del relay.sent[:]
        reader.unsubscribe([f"{prefix}/a"])
        # UNSUBSCRIBE: MQTT 5.0, 3.10.1.
        until(lambda: relay.sent[:1] == b"\xa2" and f"{prefix}/a".encode() in relay.sent)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_message_that_is_too_large_is_never_taken(mosquitto, prefix, protocol):
    """A broker that is told so keeps it back; from another one the connection ends."""
    got = []
    reader = Link(
        config(mosquitto.port, prefix, protocol=protocol),
        f"reader-{prefix[-8:]}",
        backoff=at_once(),
        max_incoming_bytes=5000,
    )
    reader.subscribe(f"{prefix}/+", lambda topic, payload: got.append((topic[-1], len(payload))), 1)
    with client(config(mosquitto.port, prefix)) as sender:
        assert sender.publish(f"{prefix}/s", bytes(4000), qos=1, retain=True)
        assert sender.flush(10)
        reader.start()
        try:
            until(lambda: got == [("s", 4000)])
            assert sender.publish(f"{prefix}/l", bytes(100_000), qos=1)
            if protocol == "3.1.1":
                until(lambda: "sends a packet of 100" in reader.reason or len(got) > 1)
            else:
                assert sender.publish(f"{prefix}/t", b"", qos=1)
                until(lambda: ("t", 0) in got)
        finally:
            reader.close(1)
            assert sender.publish(f"{prefix}/s", b"", qos=1, retain=True)
            assert sender.flush(10)
    assert not [topic for topic, _ in got if topic == "l"]
    assert (reader.counters()["failures"] > 0) == (protocol == "3.1.1")


# --- why a broker cannot be used ---------------------------------------------------------------


def refusal(settings: MqttConfig) -> ConnectError:
    with pytest.raises(ConnectError) as caught:
        check_broker(settings, DEVICE, 2.0)
    assert caught.value.reason in str(caught.value)
    assert caught.value.hint in str(caught.value)
    return caught.value


def test_check_names_protocol_and_round_trip(mosquitto, prefix):
    report = check_broker(config(mosquitto.port, prefix), DEVICE, 5.0)
    assert (report.protocol, report.tls, report.warning) == ("5", None, "")
    assert report.round_trip_ms is not None
    assert "MQTT 5, no TLS" in report.text()


def test_check_does_not_disturb_the_running_agent(mosquitto, prefix):
    settings = config(mosquitto.port, prefix)
    with client(settings) as made:
        check_broker(settings, DEVICE, 5.0)
        assert made.counters()["disconnects"] == 0


def test_right_password_over_tls_is_accepted(mosquitto, prefix, certificates):
    settings = config(
        mosquitto.ports["tls"],
        prefix,
        host="localhost",
        username=USER,
        password=PASSWORD,
        tls={"ca_file": certificates.authority.file},
    )
    report = check_broker(settings, DEVICE, 5.0)
    assert report.tls is not None
    assert report.tls.startswith("TLSv1.")
    assert report.round_trip_ms is not None


@pytest.mark.parametrize("protocol", ["auto", "3.1.1"])
def test_wrong_password_is_told_without_repeating_it(mosquitto, prefix, protocol):
    error = refusal(
        config(
            mosquitto.ports["password"],
            prefix,
            protocol=protocol,
            username=USER,
            password="wrong one",
        )
    )
    assert error.stage == "connect"
    assert "mqtt.password" in error.hint
    assert "wrong one" not in str(error)


def test_a_refused_password_is_not_tried_again_with_an_older_version(mosquitto, prefix):
    with Relay(mosquitto.ports["password"]) as relay:
        refusal(config(relay.port, prefix, username=USER, password="wrong one"))
        assert relay.accepted == 1


def test_a_user_who_may_not_publish_is_told(mosquitto, prefix):
    error = refusal(
        config(mosquitto.ports["password"], prefix, username=READ_ONLY_USER, password=PASSWORD)
    )
    assert error.stage == "publish"
    assert "access list" in error.hint


def test_a_message_that_vanishes_is_a_warning_with_mqtt_3(mosquitto, prefix):
    settings = config(
        mosquitto.ports["password"],
        prefix,
        protocol="3.1.1",
        username=READ_ONLY_USER,
        password=PASSWORD,
    )
    report = check_broker(settings, DEVICE, 2.0)
    assert report.round_trip_ms is None
    assert "access list" in report.warning


@pytest.mark.parametrize(
    ("listener", "host", "reason", "hint"),
    [
        ("expired", "localhost", "has expired", "clock"),
        ("other_name", "localhost", "another name", "server_name"),
        ("other_name", "127.0.0.1", "this address", "server_name"),
        ("mutual", "localhost", "wants a client certificate", "cert_file"),
        ("plain", "localhost", "does not answer in TLS", "8883"),
    ],
)
def test_a_tls_failure_names_its_cause(
    mosquitto, prefix, certificates, listener, host, reason, hint
):
    tls = {"ca_file": certificates.authority.file}
    error = refusal(config(mosquitto.ports[listener], prefix, host=host, tls=tls))
    assert error.stage == "tls"
    assert reason in error.reason
    assert hint in error.hint


def test_a_broker_signed_by_another_ca_is_refused(mosquitto, prefix, certificates):
    tls = {"ca_file": certificates.other_authority.file}
    error = refusal(config(mosquitto.ports["tls"], prefix, host="localhost", tls=tls))
    assert "not signed by a CA that is trusted here" in error.reason
    assert "ca_file" in error.hint
    error = refusal(config(mosquitto.ports["tls"], prefix, host="localhost", tls={}))
    assert "ca_file" in error.hint


def test_server_name_says_what_the_certificate_must_carry(mosquitto, prefix, certificates):
    tls = {"ca_file": certificates.authority.file, "server_name": "broker.example"}
    report = check_broker(config(mosquitto.ports["other_name"], prefix, tls=tls), DEVICE, 5.0)
    assert report.tls


@pytest.mark.parametrize("pair", ["device", "locked_device"])
def test_mutual_tls(mosquitto, prefix, certificates, pair):
    files = getattr(certificates, pair)
    tls = {
        "ca_file": certificates.authority.file,
        "cert_file": files.cert,
        "key_file": files.key,
        "key_password": "opens it",
    }
    settings = config(mosquitto.ports["mutual"], prefix, host="localhost", tls=tls)
    with client(settings) as made:
        assert made.flush(5)
    assert check_broker(settings, DEVICE, 5.0).tls


def test_a_client_certificate_of_another_ca_is_told(mosquitto, prefix, certificates):
    tls = {
        "ca_file": certificates.authority.file,
        "cert_file": certificates.stranger.cert,
        "key_file": certificates.stranger.key,
    }
    error = refusal(config(mosquitto.ports["mutual"], prefix, host="localhost", tls=tls))
    assert error.stage == "tls"
    assert "client certificate" in error.reason


def test_unusable_tls_files_are_named(mosquitto, prefix, certificates, tmp_path):
    def mistake(**tls) -> str:
        settings = config(mosquitto.ports["mutual"], prefix, tls=tls)
        with pytest.raises(ConfigError) as caught:
            check_broker(settings, DEVICE, 2.0)
        return str(caught.value)

    missing, empty = tmp_path / "missing.pem", tmp_path / "empty.pem"
    empty.write_text("nothing")
    device, locked = certificates.device, certificates.locked_device
    assert f"mqtt.tls.ca_file: cannot read {missing}" in mistake(ca_file=missing)
    assert f"{empty} holds no certificate" in mistake(ca_file=empty)
    assert f"cannot read {missing}" in mistake(cert_file=device.cert, key_file=missing)
    assert "not the private key" in mistake(cert_file=device.cert, key_file=locked_key(locked))
    assert "key_password" in mistake(cert_file=locked.cert, key_file=locked.key)
    assert "not in PEM form" in mistake(cert_file=empty, key_file=device.key)


def locked_key(pair):
    """The key of another certificate, without its password."""
    key = serialization.load_pem_private_key(pair.key.read_bytes(), b"opens it")
    file = pair.key.with_suffix(".open")
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return file


def test_nothing_listening_and_unknown_hosts_are_told(prefix):
    error = refusal(config(free_port(), prefix))
    assert (error.stage, error.reason) == ("tcp", "nothing listens there")
    error = refusal(config(1883, prefix, host="nowhere.invalid"))
    assert error.stage == "resolve"


def test_a_port_that_wants_tls_is_guessed(mosquitto, prefix):
    error = refusal(config(mosquitto.ports["mutual"], prefix))
    assert error.stage == "connect"
    assert "mqtt.tls" in error.hint


# --- brokers that do not speak MQTT 5 ----------------------------------------------------------


class OldBroker:
    """Answers CONNECT as brokers that know MQTT 3.1.1 only do, and takes what follows.

    Args:
        behaviour: what it does about MQTT 5: "refuses", "hangs up", "waits for more", "knows it".
    """

    def __init__(self, behaviour: str) -> None:
        self.versions: list[int] = []
        self._behaviour = behaviour
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)

    def behave(self, behaviour: str) -> None:
        """Otherwise, from the next connection on."""
        self._behaviour = behaviour

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        # CONNECT: type, length (here below 128 or in two bytes), "MQTT" with its length, version.
        packet = connection.recv(4096)
        version = packet[packet.index(b"MQTT") + 4]
        self.versions.append(version)
        if version == 4:
            connection.sendall(struct.pack("BBBB", 0x20, 2, 0, 0))
        elif self._behaviour == "knows it":
            connection.sendall(struct.pack("BBBBB", 0x20, 3, 0, 0, 0))
        elif self._behaviour == "refuses":
            connection.sendall(struct.pack("BBBB", 0x20, 2, 0, 1))
            return
        elif self._behaviour == "hangs up":
            return
        while packet := connection.recv(65536):
            if packet[0] >> 4 == 14:
                return


@pytest.mark.parametrize("behaviour", ["refuses", "hangs up", "waits for more"])
def test_an_old_broker_is_spoken_to_in_3_1_1(prefix, monkeypatch, behaviour):
    monkeypatch.setattr("agent.mqttconnect.DOUBT_S", 0.2)
    with (
        OldBroker(behaviour) as broker,
        client(config(broker.port, prefix), close_s=0) as made,
    ):
        assert made.protocol == "3.1.1"
        assert broker.versions == [5, 4]


def test_an_old_broker_is_refused_where_5_is_demanded(prefix):
    with OldBroker("refuses") as broker:
        error = refusal(config(broker.port, prefix, protocol="5"))
        assert error.stage == "connect"
        assert "version" in error.reason
        assert broker.versions == [5]


def test_a_broker_that_has_spoken_5_is_not_taken_for_an_old_one_in_its_bad_hours(
    prefix, monkeypatch
):
    monkeypatch.setattr("agent.mqttlink.GUESS_AFTER", 3)
    with (
        OldBroker("knows it") as broker,
        Relay(broker.port) as relay,
        client(config(relay.port, prefix), close_s=0) as made,
    ):
        assert made.protocol == "5"
        broker.behave("hangs up")
        relay.cut()
        relay.join()
        # After three failures, the loss among them, another broker may have come in its place.
        until(lambda: made.protocol == "3.1.1")
        assert made.counters()["failures"] == 3


def test_the_embedded_broker_of_the_demo_is_spoken_to_in_3_1_1(prefix, tmp_path, monkeypatch):
    pytest.importorskip("amqtt", reason="amqtt is not installed (extra demo)")
    # It waits for more, but only when there is a will.
    monkeypatch.setattr("agent.mqttconnect.DOUBT_S", 0.3)
    port = free_port()
    settings = tmp_path / "broker.yaml"
    settings.write_text(
        f'{{"listeners": {{"default": {{"type": "tcp", "bind": "127.0.0.1:{port}"}}}}, "plugins": '
        '{"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": true}}}'
    )
    program = Path(sys.executable).with_name("amqtt")
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([program, "-c", settings], stdout=log, stderr=log)
    try:
        with client(config(port, prefix), wait=False) as made:
            assert made.wait_connected(20), made.reason
            assert made.protocol == "3.1.1"
            assert made.publish(f"{prefix}/x", b"{}", qos=1)
            assert made.flush(10)
        assert check_broker(config(port, prefix), DEVICE, 10.0).protocol == "3.1.1"
    finally:
        process.terminate()
        process.wait(10)


# --- the documentation -------------------------------------------------------------------------


def test_the_subscriber_in_the_documentation_prints_detections(mosquitto, prefix):
    text = (Path(__file__).parents[2] / "docs" / "mqtt.md").read_text("utf-8")
    (script,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    script = script.replace('"localhost", 1883', f'"127.0.0.1", {mosquitto.port}')
    script = script.replace("vigia/v1", prefix)
    settings = config(mosquitto.port, prefix)
    reader = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    lines = queue.Queue()
    thread = threading.Thread(target=lambda: lines.put(reader.stdout.readline()), daemon=True)
    thread.start()
    try:
        with client(settings) as made, publisher(made, settings) as sink:
            deadline = time.monotonic() + 20
            while lines.empty() and time.monotonic() < deadline:
                # It cannot tell when it has subscribed.
                sink.publish(one_object())
                time.sleep(0.05)
        assert lines.get(timeout=5).split() == [DEVICE, "a", "box", "0.5", "0.16667", "0.25"]
    finally:
        reader.kill()
        reader.wait(10)
        thread.join(10)
        reader.stdout.close()


# --- trying again ------------------------------------------------------------------------------


def test_a_broker_that_is_away_is_tried_for_ever_and_told_once(prefix, caplog):
    caplog.set_level("INFO")
    settings = config(free_port(), prefix, username=USER, password=PASSWORD)
    with client(settings, wait=False, close_s=0) as made:
        until(lambda: made.counters()["failures"] >= 5)
        assert not made.connected
        assert not made.publish("x", b"{}", qos=0)
        assert not made.flush(0.01)
    assert caplog.text.count("nothing listens there") == 1
    assert PASSWORD not in caplog.text


@pytest.mark.parametrize("stable", [True, False])
def test_delays_start_over_only_after_a_connection_that_lasted(
    mosquitto, prefix, monkeypatch, stable
):
    monkeypatch.setattr("agent.mqttlink.STABLE_S", 0.0 if stable else 1000.0)
    backoff = at_once()
    with Relay(mosquitto.port) as relay:
        made = MqttClient(config(relay.port, prefix), DEVICE, BOOT, backoff=backoff)
        made.start()
        for lives in range(1, 4):
            until(lambda lives=lives: made.counters()["connects"] == lives)
            relay.cut()
            until(lambda lives=lives: made.counters()["disconnects"] == lives)
            relay.join()
        until(lambda: made.counters()["connects"] == 4)
        assert (backoff.attempts == 1) is stable
        made.close(1)


def test_a_message_leaves_at_once_however_long_the_link_was_idle(mosquitto, prefix, subscriber):
    with client(config(mosquitto.port, prefix)) as made:
        subscriber.wait_count(1)
        for number in range(3):
            assert made.flush(5)
            began = time.monotonic()
            assert made.publish(f"{prefix}/x", b"{}", qos=0)
            subscriber.wait_count(number + 2)
            assert time.monotonic() - began < STEP_S / 2
