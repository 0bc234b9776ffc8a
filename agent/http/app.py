"""The addresses of the HTTP side, and what each answers."""

from __future__ import annotations

import asyncio
import functools
import time
from importlib import resources
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from agent.http.guard import KNOWN
from agent.http.verdict import reasons

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from agent.http.history import History
    from agent.http.live import Live, View
    from agent.http.metrics import Metrics
    from agent.http.ports import Sources

SCHEMA = "vigia.page/1"
BOUNDARY = "vigia-frame"

ABORT = "vigia.abort"
"""In a scope: ends the connection without waiting until the reader has taken what was sent."""

PICTURE_WAIT_S = 2.0
"""Longest wait for a picture."""

SILENCE_S = 15.0
"""A stream without a picture ends after this: the reader asks again or gives up."""

SEND_TIMEOUT_S = 10.0
"""A reader of a stream that takes nothing for so long is let go."""

PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/draw.js": ("draw.js", "text/javascript; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


class App:
    """Everything behind `agent.http.guard.Guard`.

    Args:
        sources: what is shown.
        history: points of the plots.
        live: pictures.
        metrics: for Prometheus.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        sources: Sources,
        history: History,
        live: Live,
        metrics: Metrics,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._sources = sources
        self._history = history
        self._live = live
        self._metrics = metrics
        self._wall = wall
        folder = resources.files("agent.http") / "page"
        pages = [
            Route(path, functools.partial(_page, (folder / name).read_bytes(), kind))
            for path, (name, kind) in PAGE.items()
        ]
        self.asgi = Starlette(
            routes=[
                *pages,
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
                Route("/metrics", self._tell_metrics),
                Route("/api/status", self._status),
                Route("/api/history", self._points),
                Route("/live/{camera}/picture", self._picture),
                Route("/live/{camera}", Stream(self)),
            ]
        )

    def health(self) -> dict[str, Any]:
        """Whether everything makes progress, and whether the agent serves."""
        seen = self._sources.health()
        stalled = [str(stage) for stage in seen.get("stalled", ())]
        return {
            # A builder or this page that stalls is told; whoever restarts by this must not for it.
            "healthy": not seen.get("holding", stalled),
            "ready": bool(seen.get("ready")),
            "reasons": reasons(self._sources, stalled),
        }

    def status(self) -> dict[str, Any]:
        """Everything that the page shows but pictures and plots."""
        sources, lately = self._sources, self._history.latest()
        stats = sources.stats()
        cameras = {
            name: {**camera, **_counts(stats.get(name)), **lately.get(name, {})}
            for name, camera in sources.cameras().items()
        }
        status: dict[str, Any] = {
            "schema": SCHEMA,
            **sources.identity(),
            "ts": self._wall(),
            "health": self.health(),
            "cameras": cameras,
            "models": {slot: dict(model) for slot, model in sources.models().items()},
            "events": list(sources.events()),
            "history": list(sources.history()),
        }
        for name in ("host", "broker", "publisher", "spool", "governor", "updates"):
            part = getattr(sources, name)()
            if part is not None:
                status[name] = dict(part)
        return status

    def view(self, camera: str) -> Any:
        """As `Live.watch`; None if there is no such camera."""
        return self._live.watch(camera) if camera in self._sources.cameras() else None

    @property
    def live(self) -> Live:
        """Pictures."""
        return self._live

    async def _healthz(self, request: Request) -> Response:
        health = await run_in_threadpool(self.health)
        bad = "a stage makes no progress"
        return _word(request, health, healthy=health["healthy"], good="ok", bad=bad)

    async def _readyz(self, request: Request) -> Response:
        health = await run_in_threadpool(self.health)
        return _word(request, health, healthy=health["ready"], good="ready", bad="not ready")

    async def _tell_metrics(self, _request: Request) -> Response:
        text = await run_in_threadpool(self._metrics.text)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _status(self, _request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self.status))

    async def _points(self, request: Request) -> Response:
        after = request.query_params.get("after", "0")
        number = int(after) if after.isascii() and after.isdigit() and len(after) < 10 else 0  # noqa: PLR2004
        return JSONResponse({"points": self._history.after(number)})

    async def _picture(self, request: Request) -> Response:
        """One JPEG newer than `after`; waits for it."""
        watch = self.view(request.path_params["camera"])
        if watch is None:
            return PlainTextResponse("no such camera; see /api/status\n", 404)
        after = request.query_params.get("after", "0")
        number = int(after) if after.isascii() and after.isdigit() and len(after) < 16 else 0  # noqa: PLR2004
        with watch as view:
            if view is None:
                return PlainTextResponse("too many cameras are looked at; close some\n", 503)
            # A number of a view that has ended since says nothing of this one.
            number = min(number, view.number)
            found = await self.next_picture(view, number)
        if found is None:
            return PlainTextResponse("the camera gives no pictures at present\n", 503)
        number, jpeg = found
        return Response(jpeg, media_type="image/jpeg", headers={"X-Picture": str(number)})

    async def next_picture(self, view: View, number: int) -> tuple[int, bytes] | None:
        """Wait for a picture in a thread."""
        return await run_in_threadpool(self._live.newer, view, number, PICTURE_WAIT_S)


class Stream:
    """`/live/CAMERA`: pictures without end, as `multipart/x-mixed-replace`."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the reader goes or no pictures come."""
        watch = self._app.view(scope["path_params"]["camera"])
        if watch is None:
            await PlainTextResponse("no such camera; see /api/status\n", 404)(scope, receive, send)
            return
        with self._app.live.stream() as allowed, watch as view:
            if not allowed or view is None:
                text = "too many look at pictures; close some\n"
                await PlainTextResponse(text, 503)(scope, receive, send)
                return
            kind = f"multipart/x-mixed-replace; boundary={BOUNDARY}".encode()
            await send(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": [(b"content-type", kind)],
                }
            )
            if scope["method"] == "GET":
                await self._send(view, receive, send, scope.get(ABORT, _stay))
            await send({"type": "http.response.body", "body": b""})

    async def _send(
        self, view: View, receive: Receive, send: Send, abort: Callable[[], None]
    ) -> None:
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            number, silent_s = 0, 0.0
            while silent_s < SILENCE_S and not gone.done() and not view.closed:
                found = await self._app.next_picture(view, number)
                if found is None:
                    silent_s += PICTURE_WAIT_S
                    continue
                silent_s = 0.0
                number, jpeg = found
                head = (
                    f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\n"
                    f"Content-Length: {len(jpeg)}\r\n\r\n"
                ).encode()
                part = {"type": "http.response.body", "body": head + jpeg + b"\r\n"}
                try:
                    await asyncio.wait_for(send({**part, "more_body": True}), SEND_TIMEOUT_S)
                except asyncio.TimeoutError:
                    self._app.live.let_go += 1
                    abort()
                    return
        finally:
            gone.cancel()


def _stay() -> None:
    """There is no connection that could be ended."""


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _page(body: bytes, kind: str, _request: Request) -> Response:
    return Response(body, headers={"Content-Type": kind})


def _word(
    request: Request, health: Mapping[str, Any], *, healthy: bool, good: str, bad: str
) -> Response:
    if healthy:
        return PlainTextResponse(good + "\n")
    lines = [bad]
    if request.scope.get(KNOWN):
        # Addresses of cameras are nothing for a reader without a token.
        lines += health["reasons"]
    return PlainTextResponse("\n".join(lines) + "\n", 503)


def _counts(stats: Any) -> Mapping[str, Any]:
    if stats is None:
        return {}
    return {"results": stats.results, "objects": stats.objects, "drops": dict(stats.drops)}
