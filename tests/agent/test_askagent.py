"""Asking the running agent over HTTP, against a real server."""

import http.server
import threading

import pytest

from agent.askagent import MAX_ANSWER_BYTES, ask, ask_status
from agent.confighttp import HttpConfig
from agent.errors import ServiceError

TOKEN = "a-token-of-the-test"


@pytest.fixture
def answers():
    """What the server answers by path, and what it was asked with."""
    bodies: dict[str, bytes] = {}
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers.get("Authorization", ""))
            body = bodies.get(self.path)
            self.send_response(404 if body is None else 200)
            self.end_headers()
            self.wfile.write(body or b"no such page")

        def log_message(self, *_arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield bodies, asked, HttpConfig(port=server.server_address[1], token=TOKEN)
        server.shutdown()
        thread.join()


def test_the_agent_is_asked_with_its_token(answers):
    bodies, asked, config = answers
    bodies["/api/status"] = b'{"health": {}}'
    assert ask_status(config) == {"health": {}}
    assert asked == [f"Bearer {TOKEN}"]


@pytest.mark.parametrize("body", [b"<html>", b"[]"])
def test_another_program_at_the_port_is_told(answers, body):
    bodies, _, config = answers
    bodies["/api/status"] = body
    with pytest.raises(ServiceError, match="not the agent"):
        ask_status(config)


def test_a_refusal_and_an_endless_answer_are_told(answers):
    bodies, _, config = answers
    with pytest.raises(ServiceError, match="404: no such page"):
        ask(config, "/x")
    bodies["/x"] = b"a" * (MAX_ANSWER_BYTES + 1)
    with pytest.raises(ServiceError, match="more than"):
        ask(config, "/x")


def test_an_agent_that_does_not_run_is_told(answers):
    _, _, config = answers
    with pytest.raises(ServiceError, match="does it run"):
        ask(config.model_copy(update={"port": 1}), "/x")
    with pytest.raises(ServiceError, match="off"):
        ask(config.model_copy(update={"enabled": False}), "/x")


def test_an_agent_that_listens_everywhere_is_asked_here(answers):
    bodies, _, config = answers
    bodies["/x"] = b"here"
    assert ask(config.model_copy(update={"host": "0.0.0.0"}), "/x") == b"here"
