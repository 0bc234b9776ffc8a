"""What is read ahead and taken apart by hand, against packets that the standard describes."""

from __future__ import annotations

import itertools
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion

from agent import mqttpaho
from agent.mqttpaho import READ_AHEAD_BYTES, BoundedClient


def varint(value):
    out = bytearray()
    while True:
        value, digit = divmod(value, 128)
        out.append(digit | (128 if value else 0))
        if not value:
            return bytes(out)


def packet(topic, payload, *, qos=1, mid=7, properties=b"", v5=True):
    body = len(topic).to_bytes(2, "big") + topic
    body += mid.to_bytes(2, "big") if qos else b""
    body += varint(len(properties)) + properties if v5 else b""
    body += payload
    return bytes([0x30 | qos << 1]) + varint(len(body)) + body


def user_property(size):
    """One, as long as told beside its key."""
    return b"\x26\x00\x01k" + size.to_bytes(2, "big") + bytes(size)


class Wire:
    """A client, and the broker's end of its connection."""

    def __init__(self, *, v5=True, limit=10**6):
        self.far, near = socket.socketpair()
        for end in (self.far, near):
            end.setblocking(False)
        version = MQTTProtocolVersion.MQTTv5 if v5 else MQTTProtocolVersion.MQTTv311
        self.client = BoundedClient(CallbackAPIVersion.VERSION2, "c", protocol=version)
        self.client.max_incoming_bytes = limit
        self.client._sock = near
        self.got = []
        self.client.on_message = lambda _c, _d, m: self.got.append((m.topic, m.payload))

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.far.close()
        self.client._sock_close()

    def say(self, data):
        """Have the client read all of it; what the last call said."""
        while True:
            if data:
                data = data[self.far.send(data) :]
            code = self.client.loop_read()
            while self.client.pending and not code:
                code = self.client.loop_read()
            if code or not data:
                return code


@given(
    messages=st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
            st.binary(max_size=300),
            st.integers(0, 1),
            st.sampled_from([0, 1, 120, 121, 122, 123, 20_000]),
        ),
        min_size=1,
        max_size=8,
    ),
    v5=st.booleans(),
    cuts=st.lists(st.integers(0, 3000), max_size=8),
)
def test_messages_come_as_they_were_sent_however_they_are_cut(messages, v5, cuts):
    stream = b"".join(
        packet(topic.encode(), payload, qos=qos, properties=user_property(size), v5=v5)
        for topic, payload, qos, size in messages
    )
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    with Wire(v5=v5) as wire:
        for begin, end in itertools.pairwise(edges):
            assert wire.say(stream[begin:end]) == MQTTErrorCode.MQTT_ERR_SUCCESS
        assert wire.got == [(topic, payload) for topic, payload, _, _ in messages]
        acknowledged = sum(qos for _, _, qos, _ in messages)
        assert (wire.far.recv(1000) if acknowledged else b"") == b"\x40\x02\x00\x07" * acknowledged


def test_a_block_larger_than_what_is_read_ahead():
    large = bytes(range(256)) * (3 * READ_AHEAD_BYTES // 256)
    with Wire() as wire:
        wire.say(packet(b"t", large) + packet(b"u", b"x"))
        while len(wire.got) < 2:
            wire.client.loop_read()
        assert wire.got == [("t", large), ("u", b"x")]


@pytest.mark.parametrize(
    "bad",
    [
        bytes([0x32, 1, 0]),
        bytes([0x32, 3, 0, 9, 65]),
        bytes([0x32, 4, 0, 1, 65, 0]),
        bytes([0x32, 5, 0, 1, 65, 0, 7]),
        bytes([0x32, 6, 0, 1, 65, 0, 7, 9]),
        bytes([0x32, 9, 0, 1, 65, 0, 7, 255, 255, 255, 255]),
        bytes([0x34, 6, 0, 1, 65, 0, 7, 0]),
    ],
    ids=["no topic", "half a topic", "half an id", "no properties", "half", "endless", "QoS 2"],
)
def test_what_is_no_message_ends_the_connection(bad):
    with Wire() as wire:
        assert wire.say(bad) == MQTTErrorCode.MQTT_ERR_PROTOCOL
        assert wire.got == []
        assert wire.client.socket() is None


def test_what_is_too_large_is_not_read():
    with Wire(limit=100) as wire:
        assert wire.say(packet(b"t", bytes(200))) == MQTTErrorCode.MQTT_ERR_CONN_LOST
        assert wire.got == []


def test_a_library_with_other_private_parts_reads_in_its_own_way(monkeypatch, caplog):
    monkeypatch.setattr(mqttpaho, "PRIVATE", (*mqttpaho.PRIVATE, "_renamed"))
    monkeypatch.setattr(BoundedClient, "_read_ahead", None)
    mqttpaho._tell_unknown.cache_clear()
    for number in range(2):
        with Wire() as wire:
            content_type = b"\x03\x00\x01j"
            wire.say(packet(b"t", b"first", properties=content_type) + packet(b"t", b"second"))
            assert wire.client.loop_read() == MQTTErrorCode.MQTT_ERR_SUCCESS
            assert wire.got == [("t", b"first"), ("t", b"second")], number
            assert wire.far.recv(100) == b"\x40\x02\x00\x07" * 2
    (told,) = [r.getMessage() for r in caplog.records if r.name == "agent.mqttpaho"]
    assert "has no _renamed" in told
