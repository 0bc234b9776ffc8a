"""Why a broker could not be reached or refused us, in words that say what to do. Pure."""

from __future__ import annotations

import errno
import socket
import ssl
from typing import Literal

from agent.errors import BrokerError

Stage = Literal["settings", "resolve", "tcp", "tls", "connect", "subscribe", "publish"]
"""The step of a connection that failed."""

Version = Literal["no matter", "doubtful", "refused"]
"""What a failure says of the MQTT version: nothing; perhaps too new, as brokers that know 3.1.1
only hang up or stay silent; too new, in the broker's words."""


class ConnectError(BrokerError):
    """A connection to the broker could not be made, or could not be used.

    Args:
        where: "host:port".
        stage: which step failed.
        reason: what happened.
        hint: what to do about it; may be empty.
        version: whether the MQTT version may be the cause.
    """

    def __init__(
        self,
        where: str,
        stage: Stage,
        reason: str,
        hint: str = "",
        *,
        version: Version = "no matter",
    ) -> None:
        super().__init__(f"broker {where}: {reason}{'; ' if hint else ''}{hint}")
        self.stage = stage
        self.reason = reason
        self.hint = hint
        self.version = version


class SessionLostError(BrokerError):
    """A connection that had been up has ended.

    Args:
        where: "host:port".
        reason: what happened.
        hint: what to do about it; may be empty.
    """

    def __init__(self, where: str, reason: str, hint: str = "") -> None:
        super().__init__(f"broker {where}: {reason}{'; ' if hint else ''}{hint}")
        self.reason = reason
        self.hint = hint


class OversizeError(ConnectionError):
    """A packet is announced that is larger than anything we take."""


TAKEN_OVER = 0x8E

SAME_ID_HINT = "another client uses the same id; give each device its own device.id"

_CONNACK: dict[int, tuple[str, str]] = {
    0x81: ("did not understand the connection request", ""),
    0x84: ("does not support this MQTT version", "set mqtt.protocol: auto"),
    0x85: ("refuses the client id", "set another device.id"),
    0x86: ("refuses the user name or password", "check mqtt.username and mqtt.password"),
    # Mosquitto answers so to a wrong password too.
    0x87: (
        "does not authorise this client",
        "check mqtt.username, mqtt.password and the broker's access list",
    ),
    0x88: ("is not available at present", ""),
    0x89: ("is busy", ""),
    0x8A: ("has banned this client", "ask the broker's operator"),
    0x8C: ("refuses the authentication method", ""),
    0x97: ("says a quota is exceeded", ""),
    0x9A: ("does not keep retained messages, which status and info need", ""),
    0x9B: ("does not support quality of service 1, which status and info need", ""),
    0x9C: ("asks to use another server", "set mqtt.host to it"),
    0x9D: ("has moved", "set mqtt.host to its new address"),
    0x9F: ("says that connections are made too often", ""),
}
"""Reason codes of CONNACK: MQTT 5.0, 3.2.2.2; those of 3.1.1 are translated by the library."""

_TOO_NEW = {0x81, 0x84}

_DISCONNECT: dict[int, tuple[str, str]] = {
    0x87: ("no longer authorises this client", "check the broker's access list"),
    0x8B: ("is shutting down", ""),
    0x8D: ("heard nothing for too long", ""),
    TAKEN_OVER: ("gave the session to another client", SAME_ID_HINT),
    0x95: ("says that a message was too large", ""),
    0x98: ("ended the session by an operator's action", ""),
}
"""Reason codes of DISCONNECT: MQTT 5.0, 3.14.2.1."""

# X509_V_ERR_*: https://docs.openssl.org/master/man3/X509_STORE_CTX_get_error/
_VERIFY: dict[int, tuple[str, str]] = {
    9: ("its certificate is not valid yet", "is this device's clock right?"),
    10: ("its certificate has expired", "renew it, or is this device's clock wrong?"),
    62: ("its certificate is issued for another name", "set mqtt.tls.server_name or fix mqtt.host"),
    64: ("its certificate is not issued for this address", "set mqtt.tls.server_name"),
}
_UNKNOWN_ISSUERS = {2, 18, 19, 20, 21}

_ALERTS: tuple[tuple[str, str, str], ...] = (
    (
        "CERTIFICATE_REQUIRED",
        "wants a client certificate",
        "set mqtt.tls.cert_file and mqtt.tls.key_file",
    ),
    (
        "ALERT_UNKNOWN_CA",
        "does not trust our client certificate",
        "mqtt.tls.cert_file must be signed by a CA that the broker knows",
    ),
    ("ALERT_CERTIFICATE_EXPIRED", "says that our client certificate has expired", "renew it"),
    ("ALERT_CERTIFICATE_REVOKED", "says that our client certificate is revoked", "renew it"),
    ("ALERT_BAD_CERTIFICATE", "refuses our client certificate", "check mqtt.tls.cert_file"),
    (
        "ALERT_HANDSHAKE_FAILURE",
        "refuses the TLS handshake",
        "it may want a client certificate: mqtt.tls.cert_file and mqtt.tls.key_file",
    ),
    ("PROTOCOL_VERSION", "wants another TLS version", "TLS 1.2 or newer is needed"),
)
"""Part of OpenSSL's name of an error, what the broker does, and what to do."""

_NO_TLS = (
    "does not answer in TLS",
    "is this the TLS port? Without TLS remove mqtt.tls; with TLS it is mostly 8883",
)


def explain_connect(error: Exception, where: str, *, tls: bool, timeout_s: float) -> ConnectError:
    """Explain an exception from resolving, connecting or the TLS handshake.

    Args:
        error: the exception.
        where: "host:port".
        tls: the TCP connection was there and TLS had begun.
        timeout_s: time that was given.
    """
    if isinstance(error, ssl.SSLError):
        return ConnectError(where, "tls", *explain_tls(error))
    if isinstance(error, socket.gaierror | UnicodeError):
        return ConnectError(
            where, "resolve", "the host name is not known", "check mqtt.host and the DNS"
        )
    if tls:
        return ConnectError(where, "tls", *_NO_TLS)
    return ConnectError(where, "tcp", *_explain_tcp(error, timeout_s))


def _explain_tcp(error: Exception, timeout_s: float) -> tuple[str, str]:
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there", "check mqtt.host and mqtt.port, start the broker"
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:g} s", "check mqtt.host, the network and firewalls"
    if isinstance(error, OSError) and error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return "the network does not reach it", "check the network"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text, "check mqtt.host and mqtt.port"


def explain_tls(error: ssl.SSLError) -> tuple[str, str]:
    """What went wrong in TLS, and what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        code = error.verify_code
        if code in _UNKNOWN_ISSUERS:
            return (
                "its certificate is not signed by a CA that is trusted here",
                "set mqtt.tls.ca_file to the CA's certificate",
            )
        return _VERIFY.get(
            code, (f"its certificate cannot be verified: {error.verify_message}", "")
        )
    if isinstance(error, ssl.SSLEOFError):
        return _NO_TLS
    name = getattr(error, "reason", None) or ""
    for part, reason, hint in _ALERTS:
        if part in name:
            return reason, hint
    if any(part in name for part in ("WRONG_VERSION", "UNEXPECTED_EOF", "RECORD_LAYER")):
        return _NO_TLS
    return f"TLS failed: {name or error}", ""


def explain_connack(code: int, name: str, where: str) -> ConnectError:
    """Explain a refusal by the broker: reason code, and the library's name of it."""
    reason, hint = _CONNACK.get(code, (f"refuses the connection: {name}", ""))
    version: Version = "refused" if code in _TOO_NEW else "no matter"
    return ConnectError(where, "connect", reason, hint, version=version)


def explain_disconnect(code: int, name: str, where: str) -> SessionLostError:
    """Explain a DISCONNECT by the broker: reason code, and the library's name of it."""
    reason, hint = _DISCONNECT.get(code, (f"ended the session: {name}", ""))
    return SessionLostError(where, reason, hint)


def explain_silence(error: Exception | None, where: str, *, tls: bool) -> ConnectError:
    """Explain why a connection ended before the broker had answered the request to connect.

    Args:
        error: what reading or writing the socket raised, if anything.
        where: "host:port".
        tls: TLS is configured.
    """
    if isinstance(error, ssl.SSLError):
        return ConnectError(where, "tls", *explain_tls(error))
    return ConnectError(
        where,
        "connect",
        "closed the connection instead of answering",
        "" if tls else "a TLS port needs mqtt.tls",
        version="doubtful",
    )


def explain_no_answer(where: str, *, timeout_s: float) -> ConnectError:
    """Explain why a connection was given up before the broker had answered the request to connect.

    Args:
        where: "host:port".
        timeout_s: time that was given.
    """
    return ConnectError(
        where,
        "connect",
        f"does not answer the connection request in {timeout_s:g} s",
        "is it an MQTT broker? A TLS port needs mqtt.tls",
        version="doubtful",
    )


def explain_loss(error: Exception | None, where: str, *, silent: bool = False) -> SessionLostError:
    """Explain the end of a connection without a word from the broker.

    Args:
        error: what reading or writing the socket raised, if anything.
        where: "host:port".
        silent: a keep-alive was not answered.
    """
    if isinstance(error, ssl.SSLError):
        return SessionLostError(where, *explain_tls(error))
    if isinstance(error, OversizeError):
        return SessionLostError(where, f"sends {error}", "look for who publishes such messages")
    if silent:
        return SessionLostError(where, "does not answer any more")
    # With MQTT 3.1.1 a broker has no other way to say that somebody else came with our id.
    return SessionLostError(
        where, "the connection was lost", f"if that happens again and again, {SAME_ID_HINT}"
    )
