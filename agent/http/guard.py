"""Who may ask what: the outermost layer of the HTTP side. Refuses before anything is computed.

Names against DNS rebinding, `Sec-Fetch-Site` against other pages in the same browser, a token where
one is set, no methods that change anything, and headers that let a browser load nothing from
elsewhere.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import socket
from collections import Counter
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "vigia"
OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""For probes of a service manager, which hold no token; they are told nothing but a word."""

KNOWN = "vigia.known"
"""In a scope: whether the reader gave the token, or none is asked."""

MAX_QUERY = 2048
"""Bytes of a query."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}

LOGIN = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>Vigia</title>
<link rel="stylesheet" href="/page.css"><body class="login"><form method="get" action="/">
<h1>Vigia</h1><label>Token <input name="token" type="password" autocomplete="current-password"
autofocus required></label><button>Open</button></form></body></html>"""


class Guard:
    """See the module.

    Args:
        app: what is guarded.
        token: asked of every reader; None: no token.
        names: host names that may be asked by, beside this machine's own and addresses.
    """

    def __init__(self, app: ASGIApp, token: str | None, names: Iterable[str]) -> None:
        self._app = app
        self._token = None if token is None else token.encode()
        own = socket.gethostname().lower()
        self._names = {"localhost", own, f"{own}.local", *(n.lower() for n in names)}
        self.refused: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on."""
        if scope["type"] != "http":
            return

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        headers = Headers(scope=scope)
        scope[KNOWN] = self._knows(headers)
        refusal = self._refusal(scope, headers)
        await (refusal or self._app)(scope, receive, sealed)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        if not self._is_ours(headers.get("host", "")):
            return self._refuse("host", 421, "this name is not one of mine; see `http.names`")
        if scope["method"] not in ("GET", "HEAD"):
            return self._refuse("method", 405, "only GET and HEAD")
        if len(scope["query_string"]) > MAX_QUERY:
            return self._refuse("query", 414, "the query is too long")
        site = headers.get("sec-fetch-site", "none")
        if site not in ("none", "same-origin") and headers.get("sec-fetch-mode") != "navigate":
            return self._refuse("site", 403, "another page may not read this one")
        if scope[KNOWN] or scope["path"] in OPEN_PATHS or scope["path"] == "/page.css":
            return None
        return self._unknown(scope, headers)

    def _knows(self, headers: Headers) -> bool:
        if self._token is None:
            return True
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token):
            return True
        return hmac.compare_digest(_cookie(headers).encode(), self._pass().encode())

    def _unknown(self, scope: Scope, headers: Headers) -> Response:
        assert self._token is not None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        asked = dict(query).get("token", "").encode()
        if hmac.compare_digest(asked, self._token):
            # The browser keeps a pass, not the token, and the address loses it.
            rest = urlencode([(k, v) for k, v in query if k != "token"])
            response = RedirectResponse(scope["path"] + (f"?{rest}" if rest else ""), 303)
            response.set_cookie(COOKIE, self._pass(), httponly=True, samesite="strict")
            return response
        self.refused["token"] += 1
        if "text/html" in headers.get("accept", ""):
            return HTMLResponse(LOGIN, 401)
        return PlainTextResponse(
            "a token is needed: `Authorization: Bearer TOKEN`, see `http.token`\n",
            401,
            {"WWW-Authenticate": "Bearer"},
        )

    def _pass(self) -> str:
        assert self._token is not None
        return hmac.new(self._token, b"vigia-page-pass-1", hashlib.sha256).hexdigest()

    def _refuse(self, why: str, code: int, text: str) -> Response:
        self.refused[why] += 1
        return PlainTextResponse(text + "\n", code)

    def _is_ours(self, host: str) -> bool:
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        name = name.strip("[]").lower().rstrip(".")
        if name in self._names:
            return True
        try:
            # A page that rebinds a name to this address still asks by its name.
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _cookie(headers: Headers) -> str:
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return "" if morsel is None else morsel.value
