"""Asks the running agent over its HTTP side; what it says is bounded."""

from __future__ import annotations

import http.client
import ipaddress
import json
from typing import TYPE_CHECKING, Any

from agent.errors import ServiceError

if TYPE_CHECKING:
    from agent.confighttp import HttpConfig

MAX_ANSWER_BYTES = 4 * 2**20
TIMEOUT_S = 5.0


def ask(config: HttpConfig, path: str, timeout_s: float = TIMEOUT_S) -> bytes:
    """What the agent of this machine answers.

    Args:
        config: where it listens, and its token.
        path: like "/api/status".
        timeout_s: for connecting, and again for each piece of the answer.

    Raises:
        ServiceError: it does not answer, or refuses; with what to do.
    """
    if not config.enabled:
        raise ServiceError("the HTTP side is off; set `http.enabled: true`")
    host = _reachable(config.host)
    headers = {"Host": "localhost"}
    if config.token is not None:
        headers["Authorization"] = f"Bearer {config.token.get_secret_value()}"
    link = http.client.HTTPConnection(host, config.port, timeout=timeout_s)
    try:
        link.request("GET", path, headers=headers)
        answer = link.getresponse()
        body = answer.read(MAX_ANSWER_BYTES + 1)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ServiceError(
            f"the agent does not answer at {host}:{config.port}: {reason}; does it run?"
        ) from error
    finally:
        link.close()
    if len(body) > MAX_ANSWER_BYTES:
        raise ServiceError(f"{path}: the answer has more than {MAX_ANSWER_BYTES} bytes")
    if answer.status != http.client.OK:
        told = body[:200].decode("utf-8", "replace").strip()
        raise ServiceError(f"the agent refuses {path} with {answer.status}: {told}")
    return body


def ask_status(config: HttpConfig) -> dict[str, Any]:
    """The agent's own status.

    Raises:
        ServiceError: as `ask`, or what answers there is another program.
    """
    try:
        found = json.loads(ask(config, "/api/status"))
    except ValueError as error:
        raise ServiceError(f"what listens at port {config.port} is not the agent") from error
    if not isinstance(found, dict):
        raise ServiceError(f"what listens at port {config.port} is not the agent")
    return found


def _reachable(host: str) -> str:
    """An address that is listened at everywhere is asked here."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return "::1" if address.version == 6 else "127.0.0.1"  # noqa: PLR2004
    return host
