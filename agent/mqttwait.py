"""Waiting for one socket, or for another thread's call."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
from typing import Any

READ_BYTES = 4096


class SocketWait:
    """Waits in one thread; any thread may `wake` it. For one socket in its life."""

    def __init__(self) -> None:
        self._woken = False
        self._out, self._in = socket.socketpair()
        self._out.setblocking(False)
        self._in.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._in, selectors.EVENT_READ)
        self._registered: tuple[Any, int] | None = None

    def wait(self, sock: Any, *, write: bool, timeout_s: float) -> tuple[bool, bool]:
        """Wait until the socket is readable, or writable if that is wanted, or `wake`.

        Returns:
            Whether the socket is readable and writable.
        """
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if write else 0)
        if self._registered is None:
            self._selector.register(sock, wanted)
        elif self._registered != (sock, wanted):
            self._selector.modify(sock, wanted)
        self._registered = (sock, wanted)
        # What OpenSSL has decrypted already makes no socket readable.
        pending = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
        ready = {key.fd: mask for key, mask in self._selector.select(0 if pending else timeout_s)}
        if self._in.fileno() in ready:
            with contextlib.suppress(BlockingIOError):
                self._in.recv(READ_BYTES)
            # Last: a byte sent for a flag that is already down would be read away with the others.
            self._woken = False
        mask = ready.get(sock.fileno(), 0)
        return pending or bool(mask & selectors.EVENT_READ), bool(mask & selectors.EVENT_WRITE)

    def wake(self) -> None:
        """Make `wait` return; from any thread."""
        if not self._woken:
            self._woken = True
            # A full or closed pipe needs no more bytes.
            with contextlib.suppress(OSError):
                self._out.send(b"\0")

    def close(self) -> None:
        """Give everything back."""
        self._selector.close()
        self._in.close()
        self._out.close()
