"""TLS settings for the connection to a broker, and its failures in plain words."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

from agent.configfile import reveal
from agent.errors import ConfigError

if TYPE_CHECKING:
    from agent.config import TlsConfig


def make_context(config: TlsConfig) -> ssl.SSLContext:
    """A client context that verifies the broker's certificate and host name.

    Raises:
        ConfigError: a certificate or key cannot be read, or they do not fit each other.
    """
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"mqtt.tls.ca_file: {config.ca_file}: not a readable PEM certificate ({_why(error)})"
        ) from error
    if config.cert_file is not None:
        try:
            context.load_cert_chain(
                config.cert_file, config.key_file, lambda: reveal(config.key_password) or ""
            )
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"mqtt.tls.cert_file, key_file: {config.cert_file} with {config.key_file}: not a "
                f"readable pair of PEM certificate and key ({_why(error)})"
            ) from error
    return context


def reason_of(error: OSError, host: str, port: int) -> str:
    """Why a connection could not be made, and what to do.

    Args:
        error: what `socket` or `ssl` raised.
        host: broker's host.
        port: broker's port.
    """
    place = f"{host}:{port}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return _untrusted(error.verify_message, host)
    if isinstance(error, ssl.SSLError):
        return f"no TLS with {place} ({_why(error)}); is this the broker's TLS port?"
    known: dict[type[OSError], str] = {
        socket.gaierror: f"the host name {host} is not known; fix mqtt.host",
        ConnectionRefusedError: f"connection refused by {place}; is the broker running, is "
        "mqtt.port right?",
        TimeoutError: f"no answer from {place}; is a firewall between?",
    }
    return known.get(type(error), f"{place}: {_why(error)}")


def _untrusted(problem: str, host: str) -> str:
    if "expired" in problem:
        return "the broker's certificate has expired; renew it, or set this device's clock"
    if "ostname" in problem or "IP address" in problem:
        return f"the broker's certificate is for another host than {host}; fix mqtt.host"
    return f"the broker's certificate is not trusted ({problem}); set mqtt.tls.ca_file to its CA"


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return error.strerror or str(error)
