from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from agent.capture.rtsp_reason import reason_for_failure


@pytest.fixture
def answering() -> Iterator[Callable[[bytes], str]]:
    """Starts a server that answers one question with the given bytes; gives its address."""
    listeners: list[socket.socket] = []

    def start(reply: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(reply)

        threading.Thread(target=serve, daemon=True).start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for listener in listeners:
        listener.close()


@pytest.mark.parametrize(
    ("user", "reply", "said"),
    [
        ("u:p@", b"RTSP/1.0 401 Unauthorized\r\n\r\n", "wrong user or password"),
        ("", b"RTSP/1.0 401 Unauthorized\r\n\r\n", "wants a user and password"),
        ("", b"RTSP/1.0 404 Not Found\r\n\r\n", "no stream of this name"),
        ("", b"RTSP/1.0 599 Odd\r\n\r\n", "answers 599"),
        ("", b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak RTSP"),
        ("", b"", "does not speak RTSP"),
        ("", b"\xff\xfe", "does not speak RTSP"),
    ],
)
def test_the_servers_answer_is_put_into_words(answering, user, reply, said):
    assert said in reason_for_failure(f"rtsp://{user}{answering(reply)}/s", 5)


def test_a_server_that_sees_nothing_wrong_gives_no_reason(answering):
    assert reason_for_failure(f"rtsp://{answering(b'RTSP/1.0 200 OK' + bytes(2))}/s", 5) is None


def test_no_server_and_no_host():
    assert "refused" in reason_for_failure("rtsp://127.0.0.1:9/s", 5)
    assert "not known" in reason_for_failure("rtsp://no-such-host.invalid/s", 5)
    assert "not a valid URL" in reason_for_failure("rtsp:///s", 5)
    assert "not a valid URL" in reason_for_failure("rtsp://[::1/s", 5)
