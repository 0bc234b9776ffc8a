"""Why an RTSP stream does not open: asks the server itself, since the decoder does not say."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

DEFAULT_PORTS = {"rtsp": 554, "rtsps": 322}

MAX_TIMEOUT_S = 3.0
"""The question comes on top of a failed opening; a server that answers, answers at once."""

MAX_REPLY_BYTES = 4096

UNAUTHORIZED = 401
FIRST_ERROR = 400
"""RTSP status codes (RFC 2326, section 7.1.1)."""

REASONS = {
    # The question is asked without the password, so a camera that has one always answers so; the
    # decoder, which did send it, has failed.
    UNAUTHORIZED: "wrong user or password",
    403: "access denied by the camera",
    404: "the camera has no stream of this name",
    453: "the camera has too many viewers",
    454: "the camera has too many viewers",
    503: "the camera is overloaded",
}


def reason_for_failure(url: str, timeout_s: float) -> str | None:
    """Ask for a description of the stream and read the answer's status.

    Args:
        url: the stream; a user and password in it are not sent.
        timeout_s: longest wait.

    Returns:
        Plain words, or None if the server answers as if all were well.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or DEFAULT_PORTS.get(parts.scheme, 554)
    except ValueError:
        host = ""
    if not host:
        return "the address is not a valid URL with a host name"
    if parts.scheme == "rtsps":
        return None
    try:
        status = _describe(host, port, parts.path, min(timeout_s, MAX_TIMEOUT_S))
    except OSError as error:
        return _network_reason(error, f"{host}:{port}")
    if status is None:
        return f"what answers at {host}:{port} does not speak RTSP"
    if status == UNAUTHORIZED and parts.username is None:
        return "the camera wants a user and password; write rtsp://user:password@…"
    return REASONS.get(status, f"the camera answers {status}" if status >= FIRST_ERROR else None)


def _network_reason(error: OSError, place: str) -> str:
    if isinstance(error, socket.gaierror):
        return f"the host name of {place} is not known"
    if isinstance(error, ConnectionRefusedError):
        return f"connection refused by {place}; is the camera on and the port right?"
    if isinstance(error, TimeoutError):
        return f"no answer from {place}"
    return f"{place}: {error.strerror or error}"


def _describe(host: str, port: int, path: str, timeout_s: float) -> int | None:
    """RTSP status code of a DESCRIBE (RFC 2326, section 10.2), or None for another protocol."""
    address = f"[{host}]" if ":" in host else host
    request = (
        f"DESCRIBE rtsp://{address}:{port}{path or '/'} RTSP/1.0\r\n"
        "CSeq: 1\r\nAccept: application/sdp\r\nUser-Agent: vigia\r\n\r\n"
    )
    with socket.create_connection((host, port), timeout_s) as connection:
        connection.sendall(request.encode("ascii", "replace"))
        reply = connection.recv(MAX_REPLY_BYTES)
    words = reply.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"RTSP/") or not words[1].isdigit():  # noqa: PLR2004
        return None
    return int(words[1])
