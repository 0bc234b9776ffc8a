"""A TCP relay between a client and a server, that a test can cut and join again."""

from __future__ import annotations

import contextlib
import socket
import threading

from typing_extensions import Self

CHUNK = 65536
CONNECT_S = 10.0


class Relay:
    """Relays connections to a loopback port.

    Args:
        target: the server's port.

    Attributes:
        port: connect here.
        sent: all bytes from clients.
        accepted: connections that were let through.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.sent = bytearray()
        self.accepted = 0
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._joined = True
        self._answers = threading.Event()
        self._answers.set()
        self._thread = threading.Thread(target=self._accept, name="relay", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.cut()
        self._answers.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(CONNECT_S)

    def cut(self) -> None:
        """End all connections without a word; new ones end at once."""
        with self._lock:
            self._joined = False
            for sock in self._sockets:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def mute(self) -> None:
        """Keep back what servers say, as a slow link does; ends with the relay."""
        self._answers.clear()

    def join(self) -> None:
        """Let connections through again."""
        with self._lock:
            self._joined = True

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = self._connect()
            with self._lock:
                if server is None or not self._joined:
                    client.close()
                    if server is not None:
                        server.close()
                    continue
                self._sockets |= {client, server}
                self.accepted += 1
            both = threading.Barrier(2)
            for pair, record in (((client, server), True), ((server, client), False)):
                threading.Thread(target=self._run, args=(*pair, record, both), daemon=True).start()

    def _connect(self) -> socket.socket | None:
        """To the server; None while it is away."""
        try:
            server = socket.create_connection(("127.0.0.1", self._target), CONNECT_S)
        except OSError:
            return None
        server.settimeout(None)
        return server

    def _run(
        self, source: socket.socket, sink: socket.socket, record: bool, both: threading.Barrier
    ) -> None:
        with contextlib.suppress(OSError):
            self._pump(source, sink, record)
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        # Its number would be another's while the other direction still reads it.
        both.wait()
        with self._lock:
            self._sockets.discard(source)
        source.close()

    def _pump(self, source: socket.socket, sink: socket.socket, record: bool) -> None:
        """Pass on what comes, until an end closes.

        Raises:
            OSError: the connection was cut.
        """
        while data := source.recv(CHUNK):
            self._pass_on(data, sink, record)

    def _pass_on(self, data: bytes, sink: socket.socket, record: bool) -> None:
        if record:
            self.sent += data
        else:
            self._answers.wait()
        sink.sendall(data)
