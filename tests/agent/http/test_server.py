"""The server at a real socket."""

from __future__ import annotations

import socket
import threading
import time

import httpx
import pytest

from agent.http import app as app_module
from agent.http import live as live_module
from agent.http import server as server_module
from tests.agent.http.conftest import PATIENCE_S, until

TOKEN = "a token of sixteen or more"
LOUD = (480, 640)
"""Pictures of noise fill a socket soon."""


def connect(server, text=""):
    reader = socket.create_connection(("127.0.0.1", server.port), PATIENCE_S)
    if text:
        reader.sendall(text.encode())
    return reader


def request(path, host="127.0.0.1", version="1.1"):
    return f"GET {path} HTTP/{version}\r\nHost: {host}\r\n\r\n"


def until_closed(reader):
    """All that still came."""
    came = b""
    try:
        while piece := reader.recv(1 << 16):
            came += piece
    except ConnectionResetError:
        pass
    return came


@pytest.fixture
def server(agent):
    made = agent.server()
    assert made.start()
    return made


@pytest.fixture
def web(server):
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=PATIENCE_S) as client:
        yield client


def parts(stream, count):
    """Bodies of a multipart answer, cut by their boundary and checked by their length."""
    kind, _, boundary = stream.headers["content-type"].partition("; boundary=")
    assert kind == "multipart/x-mixed-replace"
    seen, bodies, mark = b"", [], f"--{boundary}\r\n".encode()
    for piece in stream.iter_raw():
        seen += piece
        while len(bodies) < count:
            head, gap, rest = seen.partition(b"\r\n\r\n")
            if not gap:
                break
            assert head.startswith(mark + b"Content-Type: image/jpeg")
            length = int(head.rpartition(b"Content-Length: ")[2])
            if len(rest) < length + 2:
                break
            assert rest[length : length + 2] == b"\r\n"
            bodies.append(rest[:length])
            seen = rest[length + 2 :]
        if len(bodies) == count:
            return bodies
    return bodies


def test_a_stream_is_jpegs_between_boundaries(agent, web):
    with agent.playing(noise=True), web.stream("GET", "/live/dock") as stream:
        bodies = parts(stream, 3)
    assert all(body.startswith(b"\xff\xd8") and body.endswith(b"\xff\xd9") for body in bodies)
    assert len(set(bodies)) == 3


def test_a_stream_that_is_only_asked_for_its_head_ends_at_once(agent, web):
    answer = web.head("/live/dock")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("multipart/x-mixed-replace")


def test_so_many_may_look_and_no_more(agent, server, web, monkeypatch):
    monkeypatch.setattr(live_module, "MAX_STREAMS", 2)
    with agent.playing():
        with web.stream("GET", "/live/dock") as one, web.stream("GET", "/live/dock") as two:
            assert len(parts(one, 1) + parts(two, 1)) == 2
            refused = web.get("/live/dock")
            assert refused.status_code == 503
            assert "too many" in refused.text
            assert server.live.views == 1
        until(lambda: server.live.streams == 0)
        with web.stream("GET", "/live/dock") as again:
            assert len(parts(again, 1)) == 1


def test_so_many_cameras_are_drawn_and_no_more(agent, web, monkeypatch):
    monkeypatch.setattr(live_module, "MAX_VIEWS", 1)
    with agent.playing(), web.stream("GET", "/live/dock") as one:
        assert len(parts(one, 1)) == 1
        assert web.get("/live/gate").status_code == 503
        assert web.get("/live/gate/picture").status_code == 503


def test_a_reader_that_takes_nothing_is_let_go_and_holds_no_connection(agent, server, monkeypatch):
    monkeypatch.setattr(app_module, "SEND_TIMEOUT_S", 0.2)
    with agent.playing(noise=True, size=LOUD):
        slow = connect(server, request("/live/dock"))
        with slow:
            until(lambda: server.live.streams == 1)
            until(lambda: server.live.streams == 0)
            assert server.live.let_go == 1
            # The connection is gone, though what was sent before was never taken.
            until(lambda: not server._server.server_state.connections)
            until_closed(slow)


def test_a_reader_that_goes_is_noticed(agent, server):
    with agent.playing():
        connect(server, request("/live/dock")).close()
        until(lambda: server.live.drawn > 0 and server.live.streams == 0)
    assert server.live.let_go == 0


def test_a_camera_that_gives_nothing_any_more_ends_its_stream(agent, server, monkeypatch):
    monkeypatch.setattr(app_module, "PICTURE_WAIT_S", 0.05)
    monkeypatch.setattr(app_module, "SILENCE_S", 0.1)
    reader = connect(server, request("/live/dock"))
    with reader:
        # Chunked: its last chunk is empty.
        came = b""
        while not came.endswith(b"0\r\n\r\n"):
            piece = reader.recv(1 << 16)
            assert piece
            came += piece
    until(lambda: server.live.streams == 0)


@pytest.mark.parametrize("path", ["/live/dock", "/live/dock/picture"])
def test_an_end_does_not_wait_for_those_who_look(agent, server, path):
    reader = connect(server, request(path))
    with reader:
        until(lambda: server.live.views == 1)
        began = time.monotonic()
        server.close(PATIENCE_S)
        took = time.monotonic() - began
        assert not server._thread.is_alive()
        until_closed(reader)
    # uvicorn looks ten times a second, and grants what is under way a while.
    assert took < server_module.STOP_S + 3.0


def test_an_end_does_not_wait_for_who_takes_nothing(agent, server):
    with agent.playing(noise=True, size=LOUD):
        slow = connect(server, request("/live/dock"))
        with slow:
            until(lambda: server.live.drawn > 3)
            began = time.monotonic()
            server.close(PATIENCE_S)
            assert not server._thread.is_alive()
            assert time.monotonic() - began < server_module.STOP_S + 3.0


def test_nothing_listens_after_the_end(server):
    port = server.port
    server.close(PATIENCE_S)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 1.0)
    server.close(PATIENCE_S)


def test_a_port_that_is_taken_is_told_and_starts_nothing(agent):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        server = agent.server(port=port)
        before = threading.active_count()
        assert not server.start()
        assert threading.active_count() == before
    assert server.reason == f"http: cannot listen at 127.0.0.1:{port}: Address already in use"
    server.close(PATIENCE_S)


def test_an_address_that_is_not_this_machines_is_told(agent):
    server = agent.server(host="192.0.2.1", token=TOKEN)
    assert not server.start()
    assert "cannot listen at 192.0.2.1:0" in server.reason


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1", 200), ("localhost:8642", 200), ("evil.example", 421), ("", 421)],
)
def test_a_name_that_was_rebound_is_refused_at_the_socket(server, host, status):
    with connect(server, request("/healthz", host)) as reader:
        assert reader.recv(1 << 16).startswith(f"HTTP/1.1 {status} ".encode())
    assert server.guard.refused["host"] == (status == 421)


def test_a_request_without_a_name_is_refused(server):
    with connect(server, "GET / HTTP/1.0\r\n\r\n") as reader:
        assert b" 421 " in until_closed(reader)


def test_a_token_is_asked_at_the_socket(agent):
    server = agent.server(token=TOKEN)
    assert server.start()
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=PATIENCE_S) as web:
        for path in ("/", "/metrics", "/api/status", "/live/dock", "/draw.js"):
            assert web.get(path).status_code == 401, path
        assert web.get("/healthz").status_code == 200
        good = {"Authorization": f"Bearer {TOKEN}"}
        told = web.get("/metrics", headers=good)
    assert 'vigia_http_refused{name="token"} 5.0' in told.text


@pytest.mark.parametrize("begun", ["", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: 127.0.0"])
def test_who_does_not_finish_a_request_is_let_go(server, monkeypatch, begun):
    monkeypatch.setattr(server_module, "PATIENCE_S", 0.1)
    with connect(server, begun) as reader:
        assert until_closed(reader) == b""


def test_an_answer_that_takes_longer_than_a_request_may_is_given(agent, server, monkeypatch):
    monkeypatch.setattr(server_module, "PATIENCE_S", 0.1)
    monkeypatch.setattr(app_module, "PICTURE_WAIT_S", 0.5)
    with connect(server, request("/live/dock/picture")) as reader:
        assert reader.recv(1 << 16).startswith(b"HTTP/1.1 503 ")


def test_a_head_without_end_is_refused(server):
    with connect(server, "GET / HTTP/1.1\r\n") as reader:
        try:
            reader.sendall(b"X-Long: " + b"a" * (2 * server_module.HEADER_BYTES))
        except ConnectionError:
            return
        assert until_closed(reader)[:12] in (b"", b"HTTP/1.1 400", b"HTTP/1.1 431")


def test_so_many_connections_are_served_and_no_more(agent, monkeypatch):
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 3)
    server = agent.server()
    assert server.start()
    held = [connect(server) for _ in range(3)]
    until(lambda: len(server._server.server_state.connections) == 3)
    with connect(server, request("/healthz")) as reader:
        assert reader.recv(1 << 16).startswith(b"HTTP/1.1 503 ")
    for one in held:
        one.close()


def test_a_server_that_hangs_is_begun_anew_at_the_same_port(agent, monkeypatch):
    hung, released = threading.Event(), threading.Event()

    def hang(_name):
        if not hung.is_set():
            hung.set()
            released.wait(PATIENCE_S)

    monkeypatch.setattr(server_module.stallpoint, "hit", hang)
    server = agent.server()
    assert server.start()
    port = server.port
    assert hung.wait(PATIENCE_S)
    assert server.renew()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as client:
        assert client.get("/healthz").status_code == 200
        # The one that hung comes back, ends, and takes nothing with it.
        released.set()
        until(lambda: [t.name for t in threading.enumerate()].count("http") == 1)
        assert client.get("/readyz").status_code == 200
    assert server.activity.age_s is not None


def test_a_server_that_ends_or_never_listened_is_not_begun_anew(agent, server):
    never = agent.server()
    assert not never.renew()
    server.close(PATIENCE_S)
    assert not server.renew()


def test_while_nobody_looks_no_picture_is_in_the_making(server):
    until(lambda: server.pictures_s is None)
