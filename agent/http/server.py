"""The HTTP side as one part of the agent: a socket, a thread for the server, one for the plots.

That it cannot listen is told and costs nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from agent import stallpoint
from agent.http.app import ABORT, App
from agent.http.guard import Guard
from agent.http.history import History
from agent.http.live import NICE, Live
from agent.http.metrics import Metrics
from agent.progress import Activity

if TYPE_CHECKING:
    import asyncio

    from agent.confighttp import HttpConfig
    from agent.http.ports import Sources

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 64
BACKLOG = 32
KEEP_ALIVE_S = 10
HEADER_BYTES = 16_384
STOP_S = 1

BEAT_S = 1
"""How often the server's loop says that it runs."""

PATIENCE_S = 10.0
"""A connection must have sent a whole request within this time."""


class Impatient(H11Protocol):
    """Closes connections that do not finish a request in time."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A reader is there."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """A part of a request; one that is whole has a cycle of its own."""
        super().data_received(data)
        scope: Any = self.scope
        if scope is not None:
            # What answers runs later, and in this scope.
            scope[ABORT] = self.transport.abort
        if self._idle:
            self._watch()
        elif self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    @property
    def _idle(self) -> bool:
        """Whether no request is being answered; uvicorn has no cycle before the first."""
        cycle: Any = self.cycle
        return cycle is None or bool(cycle.response_complete)

    def _watch(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(PATIENCE_S, self._give_up)

    def _give_up(self) -> None:
        self._deadline = None
        if self._idle:
            self.transport.close()


class HttpServer:
    """See the module.

    Args:
        config: where to listen, and for whom.
        sources: what is shown.

    Attributes:
        activity: marked by the server's loop while it runs.
        failures: how often the server has ended by an error.
    """

    def __init__(self, config: HttpConfig, sources: Sources) -> None:
        self._config = config
        self.history = History(sources.stats)
        self.live = Live(sources.show, config.live_fps)
        own = _Own(self)
        self.app = App(sources, self.history, self.live, Metrics(sources, self.history, own))
        token = None if config.token is None else config.token.get_secret_value()
        self.guard = Guard(self.app.asgi, token, (*config.names, config.host))
        self.activity = Activity()
        self.failures = 0
        self._stop = threading.Event()
        self._listener: socket.socket | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self.port = 0
        self.reason: str | None = None

    def start(self) -> bool:
        """Listen.

        Returns:
            False if that cannot be done; why is in `reason`.
        """
        place = f"{self._config.host}:{self._config.port}"
        try:
            self._listener = listener = _listen(self._config.host, self._config.port)
        except OSError as error:
            self.reason = f"http: cannot listen at {place}: {error.strerror}"
            log.error("%s; choose another `http.port`", self.reason)  # noqa: TRY400 - told
            return False
        self.port = listener.getsockname()[1]
        self._begin(listener)
        threading.Thread(
            target=self.history.run, args=(self._stop,), name="http-history", daemon=True
        ).start()
        log.info("status page at http://%s:%d/", self._config.host, self.port)
        return True

    @property
    def pictures_s(self) -> float | None:
        """How long a picture, or a point of the plots, has been in the making; None if none is."""
        ages = (self.live.busy_s, self.history.activity.age_s)
        return max((age for age in ages if age is not None), default=None)

    def renew(self) -> bool:
        """Serve with another thread; the one that hangs ends if it ever comes back.

        Returns:
            False if the server ends, or never listened.
        """
        if self._listener is None or self._stop.is_set():
            return False
        if self._server is not None:
            self._server.should_exit = True
        self._begin(self._listener)
        return True

    def _begin(self, listener: socket.socket) -> None:
        self._server = uvicorn.Server(
            uvicorn.Config(
                self.guard,
                loop="asyncio",
                http=Impatient,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=MAX_CONNECTIONS,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=STOP_S,
                h11_max_incomplete_event_size=HEADER_BYTES,
                callback_notify=self._beat,
                timeout_notify=BEAT_S,
            )
        )
        self.activity.mark()
        # A thread that is given up must not close what its successor listens at.
        self._thread = threading.Thread(
            target=self._serve, args=(self._server, listener.dup()), name="http", daemon=True
        )
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Stop; streams end."""
        self._stop.set()
        self.live.close()
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(timeout_s)
        if self._listener is not None:
            self._listener.close()

    async def _beat(self) -> None:
        self.activity.mark()
        stallpoint.hit("http")

    def _serve(self, server: uvicorn.Server, listener: socket.socket) -> None:
        with contextlib.suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        try:
            server.run(sockets=[listener])
        except Exception:
            # Whatever the library raises must not end what serves; the watch begins it anew.
            self.failures += 1
            log.exception("the HTTP server ended")
        finally:
            listener.close()


class _Own(dict[str, Any]):
    """Counts of the HTTP side, as they are when asked for."""

    def __init__(self, server: HttpServer) -> None:
        super().__init__()
        self._server = server

    def items(self) -> Any:
        """For `agent.http.metrics.numbers`."""
        server = self._server
        return {
            "refused": dict(server.guard.refused),
            "live_views": server.live.views,
            "live_streams": server.live.streams,
            "live_pictures": server.live.drawn,
            "failures": server.failures,
            "live_let_go": server.live.let_go,
        }.items()


def _listen(host: str, port: int) -> socket.socket:
    family, kind, proto, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, proto)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
