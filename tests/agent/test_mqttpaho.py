"""Reading ahead and the limit on packets; sessions are tested with a real broker."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion

from agent.mqttpaho import READ_AHEAD_BYTES, BoundedClient
from agent.mqttreason import OversizeError


class CountingSocket:
    """The reading end of a pair; counts how often it is asked."""

    def __init__(self, end):
        self._end = end
        self.reads = 0

    def recv(self, size):
        self.reads += 1
        return self._end.recv(size)

    def close(self):
        self._end.close()


@pytest.fixture
def pair():
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    yield ends
    for end in ends:
        end.close()


def client(end):
    made = BoundedClient(CallbackAPIVersion.VERSION2)
    made._sock = CountingSocket(end)
    return made


def test_the_head_of_a_packet_costs_one_read_of_the_socket(pair):
    reader = client(pair[0])
    pair[1].send(bytes(range(10)))
    assert [reader._sock_recv(1) for _ in range(3)] == [b"\0", b"\1", b"\2"]
    assert reader.buffered
    assert reader._sock_recv(100) == bytes(range(3, 10))
    assert not reader.buffered
    assert reader._sock.reads == 1
    with pytest.raises(BlockingIOError):
        reader._sock_recv(1)


def test_a_large_rest_is_read_past_the_buffer(pair):
    reader = client(pair[0])
    pair[1].send(b"x" * 1000)
    assert reader._sock_recv(READ_AHEAD_BYTES) == b"x" * 1000
    assert not reader.buffered


def test_the_end_is_told_as_the_library_expects_it(pair):
    reader = client(pair[0])
    pair[1].shutdown(socket.SHUT_WR)
    assert reader._sock_recv(1) == b""


def test_a_packet_that_is_too_large_is_refused_before_it_is_read(pair):
    reader = client(pair[0])
    reader.max_incoming_bytes = 10
    with pytest.raises(OversizeError, match="11 bytes, 10 at most"):
        reader._sock_recv(11)


@given(st.binary(min_size=1, max_size=500), st.lists(st.integers(1, 50), min_size=1))
def test_bytes_come_in_order_whatever_is_asked_for(data, sizes):
    ends = socket.socketpair()
    try:
        ends[1].send(data)
        ends[1].shutdown(socket.SHUT_WR)
        reader = client(ends[0])
        got = b""
        for number in range(len(data) + 1):
            part = reader._sock_recv(sizes[number % len(sizes)])
            if not part:
                break
            got += part
        assert got == data
    finally:
        for end in ends:
            end.close()
