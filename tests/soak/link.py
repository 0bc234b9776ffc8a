"""A bad line between the agent and its broker: slow, stuttering, cut.

What TCP makes of loss is waiting: a lost segment comes after a retransmission timeout. A kernel
without netem cannot lose packets on loopback, so the waiting itself is made here.
"""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time

RETRANSMISSION_S = 0.2
"""Linux's least retransmission timeout."""

CHUNK = 16_384


class Link:
    """Relays to a loopback port; `delay_s` and `loss` may be changed at any time.

    Attributes:
        port: connect here.
        delay_s: how long every chunk takes.
        loss: share of chunks that take a retransmission more.
    """

    def __init__(self, target: int, seed: int = 0) -> None:
        self._target = target
        self._random = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.delay_s = 0.0
        self.loss = 0.0
        self._joined = True
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        threading.Thread(target=self._accept, name="link", daemon=True).start()

    def cut(self) -> None:
        """End all connections without a word; new ones end at once."""
        with self._lock:
            self._joined = False
            for sock in self._sockets:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def join(self) -> None:
        """Let connections through again."""
        with self._lock:
            self._joined = True

    def close(self) -> None:
        self.cut()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server: socket.socket | None = None
            with contextlib.suppress(OSError):
                server = socket.create_connection(("127.0.0.1", self._target), 2)
                server.settimeout(None)
            with self._lock:
                if server is None or not self._joined:
                    client.close()
                    if server is not None:
                        server.close()
                    continue
                self._sockets |= {client, server}
            left = [2]
            for pair in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(*pair, left), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, left: list[int]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                wait_s = self.delay_s
                if self._random.random() < self.loss:
                    wait_s += RETRANSMISSION_S
                if wait_s:
                    time.sleep(wait_s)
                sink.sendall(data)
        with contextlib.suppress(OSError):
            source.shutdown(socket.SHUT_RD)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        with self._lock:
            left[0] -= 1
            if not left[0]:
                for sock in (source, sink):
                    sock.close()
                    self._sockets.discard(sock)
