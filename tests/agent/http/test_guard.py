"""Who may ask what."""

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from agent.confighttp import HttpConfig
from agent.http.guard import Guard

TOKEN = "a token of sixteen or more"
HOST = "http://127.0.0.1:8642"


async def _hello(_request):
    return PlainTextResponse("hello")


@pytest.fixture
def ask():
    def make(token=None, names=()):
        routes = [Route(p, _hello) for p in ("/", "/healthz", "/api/status")]
        guard = Guard(Starlette(routes=routes), token, names)

        def get(path="/", method="GET", base=HOST, **headers):
            async def send():
                transport = httpx.ASGITransport(app=guard)
                async with httpx.AsyncClient(transport=transport, base_url=base) as client:
                    fields = {k.replace("_", "-"): v for k, v in headers.items()}
                    return await client.request(method, path, headers=fields)

            return anyio.run(send)

        return get

    return make


@pytest.mark.parametrize("host", ["127.0.0.1:8642", "localhost:1", "[::1]:8642", "page.example"])
def test_own_names_and_addresses_may_be_asked_by(ask, host):
    assert ask(names=["page.example"])(host=host).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8642", ""])
def test_a_name_that_was_rebound_is_refused(ask, host):
    assert ask()(host=host).status_code == 421


def test_another_page_cannot_read(ask):
    get = ask()
    assert get(sec_fetch_site="cross-site", sec_fetch_mode="no-cors").status_code == 403
    assert get(sec_fetch_site="cross-site", sec_fetch_mode="navigate").status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_changed(ask, method):
    assert ask()(method=method).status_code == 405


def test_headers_let_a_browser_load_nothing_from_elsewhere(ask):
    headers = ask()().headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in headers


def test_a_token_is_asked_of_all_but_probes(ask):
    get = ask(TOKEN)
    assert get("/api/status").status_code == 401
    assert get("/api/status", authorization="Bearer wrong").status_code == 401
    assert get("/api/status", authorization=f"Bearer {TOKEN}").text == "hello"
    assert get("/healthz").text == "hello"
    assert "<form" in get("/", accept="text/html").text


def test_a_browser_keeps_a_pass_and_not_the_token(ask):
    get = ask(TOKEN)
    answer = get("/?token=a+token+of+sixteen+or+more&x=1")
    assert (answer.status_code, answer.headers["location"]) == (303, "/?x=1")
    cookie = answer.headers["set-cookie"]
    assert TOKEN not in cookie
    assert "HttpOnly" in cookie
    assert get("/api/status", cookie=cookie.partition(";")[0]).text == "hello"
    assert get("/api/status", cookie="vigia=forged").status_code == 401


def test_a_host_that_is_not_loopback_needs_a_token():
    with pytest.raises(ValueError, match="needs a token"):
        HttpConfig(host="0.0.0.0")
    with pytest.raises(ValueError, match="16 characters"):
        HttpConfig(token="short")
    assert HttpConfig(host="0.0.0.0", token=TOKEN).token is not None
    assert HttpConfig(host="::1").loopback
